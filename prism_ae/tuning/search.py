"""Which trees to look at next, which are worth timing, and where a curve of speed-ups meets 1. Pure.

    decode speed-up = tokens per round / cost of a round (in steps of vanilla decoding)

A larger tree accepts about as much as a smaller one that it contains, or more. So the tokens per round of a tree that
was looked at bound those of every smaller one from above, and with its expected cost a tree that cannot be among the
best need not be looked at: branch and bound. ``SLACK`` allows for that "about": rounds of two trees begin at other
places of the text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from prism_ae.cells import TreeShape
from prism_ae.tuning.cost import CostModel
from prism_ae.tuning.space import contains

SLACK = 0.01
"""By how much, relatively, a tree may accept more than one that contains it. Of 1,834 such pairs on the mini suite the
worst one did by 0.7 %."""


def most_tokens(tree: TreeShape, lengths: Mapping[TreeShape, float]) -> float:
    """An upper bound of a tree's tokens per round, from those of others."""
    larger = [length for one, length in lengths.items() if contains(one, tree)]
    return min(tree.steps + 1.0, (1 + SLACK) * min(larger, default=math.inf))


def promising(
    trees: Sequence[TreeShape], lengths: Mapping[TreeShape, float], model: CostModel, count: int
) -> tuple[TreeShape, ...]:
    """Trees to look at next, ``count`` at most, the most promising first; () when no other can be among the best.

    Args:
        lengths: tokens per round of those that were looked at; at least one.
    """
    best = max(length / model.of(tree) for tree, length in lengths.items())
    hopes = {tree: most_tokens(tree, lengths) / model.of(tree) for tree in trees if tree not in lengths}
    hopeful = [tree for tree, hope in hopes.items() if hope > best]
    return tuple(sorted(hopeful, key=lambda tree: -hopes[tree])[:count])


def finalists(lengths: Mapping[TreeShape, float], model: CostModel, count: int) -> tuple[TreeShape, ...]:
    """The ``count`` trees of the largest expected speed-up, the best first."""
    return tuple(sorted(lengths, key=lambda tree: -lengths[tree] / model.of(tree))[:count])


def crossing(curve: Mapping[int, float]) -> float | None:
    """The batch size from which on drafting does not pay: where the speed-up first falls below 1.

    Between two batch sizes that were measured it is a straight line over the logarithm of the batch size.

    Args:
        curve: batch size -> speed-up, at least one.

    Returns:
        The smallest batch size where not even that pays; None where all do.
    """
    batches = sorted(curve)
    if curve[batches[0]] < 1:
        return float(batches[0])
    for low, high in itertools.pairwise(batches):
        above, below = curve[low], curve[high]
        if below < 1:
            part = (above - 1) / (above - below)
            return float(2 ** (math.log2(low) + part * (math.log2(high) - math.log2(low))))
    return None
