"""Verifying only the part of a tree that the target is expected to visit.

A walk visits few of a tree's nodes, and what the target computes at the others changes nothing. Which ones it will
visit follows from the text that it will write, and since the randomness belongs to the question
(`prism_ae.decoding.sampling`) that text is the same for every drafter: after the first drafter it is known. So a round
verifies the nodes along the expected text first, a tenth of the tree. Nothing rests on the expectation: the target
still samples at every node it visits, and should a sample lead to a node that was left out, the whole tree is verified.
The round's outcome is that of the whole tree, always.

Time is never measured this way.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from prism_ae.decoding.tree import DraftTree
from prism_ae.decoding.verify import Walk, walk

UNKNOWN = -1
"""Stands for an expected token where the text is not known; no draft equals it."""

_NOWHERE = -2
"""Parent of a node that only pads a row: no walk reaches it."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a tree that is expected to be visited.

    Attributes:
        tree: it, as a tree of its own: a chain from the root, padded to the longest of the batch.
        nodes: the whole tree's index of each of its nodes [B, part].
    """

    tree: DraftTree
    nodes: Tensor


def along(tree: DraftTree, depth: int, expected: Tensor) -> Part:
    """The nodes of ``tree`` that a walk writing the tokens ``expected`` [B, depth + 1] would visit."""
    guess = walk(tree, depth, lambda _, level: expected[:, level])
    width = int(guess.accepted.max()) + 1
    nodes, place = guess.nodes[:, :width], torch.arange(width, device=expected.device)
    visited = place <= guess.accepted.unsqueeze(1)
    part = DraftTree(
        tokens=tree.tokens.gather(1, nodes),
        parents=torch.where(visited, place - 1, _NOWHERE),
        depths=tree.depths.gather(1, nodes),
    )
    return Part(part, nodes)


def left_out(tree: DraftTree, part: Part, done: Walk) -> bool:
    """Whether a walk through the part ended where, in any row, the whole tree goes on."""
    end = done.accepted.unsqueeze(1)
    node, token = part.nodes.gather(1, done.nodes.gather(1, end)), done.tokens.gather(1, end)
    return bool(((tree.parents == node) & (tree.tokens == token)).any())
