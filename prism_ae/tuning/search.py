"""Which trees to look at next, which are worth timing, and where a curve of speed-ups meets 1. Pure.

    decode speed-up = tokens per round / cost of a round (in steps of vanilla decoding)

A larger tree accepts about as much as a smaller one that it contains, or more (of 1,834 pairs on the mini suite the
worst accepted 0.7 % less). So the trees that were looked at hold the tokens per round of every other one between two
bounds, which become tight where trees are looked at. One is worth a look while the middle of its bounds, over its
expected cost, is more than what the best of those before is expected to reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from prism_ae.cells import TreeShape
from prism_ae.tuning.cost import CostModel


def expected_tokens(tree: TreeShape, lengths: Mapping[TreeShape, float]) -> float:
    """A tree's tokens per round: the geometric middle of its bounds by those of others."""
    larger = [length for one, length in lengths.items() if one.contains(tree)]
    smaller = [length for one, length in lengths.items() if tree.contains(one)]
    most = min([tree.steps + 1.0, *larger])
    return math.sqrt(most * max([1.0, *smaller]))


def promising(
    trees: Sequence[TreeShape], lengths: Mapping[TreeShape, float], model: CostModel, count: int
) -> tuple[TreeShape, ...]:
    """Trees to look at next, ``count`` at most, the most promising first; () when no other is.

    Args:
        lengths: tokens per round of those that were looked at; at least one.
    """
    best = max(length / model.of(tree) for tree, length in lengths.items())
    hopes = {tree: expected_tokens(tree, lengths) / model.of(tree) for tree in trees if tree not in lengths}
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
