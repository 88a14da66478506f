"""Verifying only the path of a draft tree that the target is known to take.

A walk visits few of a tree's nodes, and what the target computes at the others changes nothing. The visited nodes
follow from the text that the target will write, and since the randomness belongs to the question
(`prism_ae.decoding.sampling`) that text is the same for every drafter: after the first drafter it is known. So a round
verifies the nodes along the known text first, a tenth of the tree. The result does not rest on that knowledge: the
target still samples at every node it visits, and where a sample leads to a node that was left out, the whole tree is
verified. The round's outcome is always that of the whole tree.

Throughput cells never use this, nor half precision: there the path alone rounds otherwise than the whole tree.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from prism_ae.decoding.tree import DraftTree
from prism_ae.decoding.verify import Walk, walk

UNKNOWN = -1
"""Stands for a token of the text that is not known; no draft equals it."""

_NO_PARENT = -2
"""Parent of a node that only pads a row: no walk reaches it."""


@dataclasses.dataclass(frozen=True)
class KnownPath:
    """The path through a draft tree that a known text takes, n nodes.

    Attributes:
        tree: the path as a tree of its own: a chain from the root, padded to the longest of the batch.
        nodes: index in the whole tree of each of its nodes [B, n].
    """

    tree: DraftTree
    nodes: Tensor


def known_path(tree: DraftTree, depth: int, text: Tensor) -> KnownPath:
    """The nodes of ``tree`` that a walk writing the tokens ``text`` [B, depth + 1] would visit."""
    guess = walk(tree, depth, lambda _, level: text[:, level])
    width = int(guess.accepted.max()) + 1
    nodes, place = guess.nodes[:, :width], torch.arange(width, device=text.device)
    visited = place <= guess.accepted.unsqueeze(1)
    chain = DraftTree(
        tokens=tree.tokens.gather(1, nodes),
        parents=torch.where(visited, place - 1, _NO_PARENT),
        depths=tree.depths.gather(1, nodes),
    )
    return KnownPath(chain, nodes)


def leaves_path(tree: DraftTree, path: KnownPath, done: Walk) -> bool:
    """Whether, in any row, a walk along the path ended where the whole tree goes on."""
    end = done.accepted.unsqueeze(1)
    node, token = path.nodes.gather(1, done.nodes.gather(1, end)), done.tokens.gather(1, end)
    return bool(((tree.parents == node) & (tree.tokens == token)).any())
