"""The dynamic draft tree of EAGLE-2, as pure functions of draft scores.

A node's score is the sum of the drafter's log-probabilities along its path, and 0 for the root. Step 0 gives the root w
children; each later step expands the w best nodes of the newest level (the beam) into w children each; d steps in all.
Of the root and all these drafts the v best are verified. A score never exceeds its parent's, and nodes are numbered
level by level, so taking the best in a stable order takes a parent before its child even where both scores are equal
(a log-probability may be exactly 0): what is taken is a tree. A chain is the tree with w = 1.

Source: EAGLE-2 (arXiv 2406.16858), sections 4.1 and 4.2.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_ae.cells import TreeShape


@dataclasses.dataclass(frozen=True)
class DraftTree:
    """Trees of B rows, v nodes each; node 0 is the root, the last committed token. Parents come before children.

    Attributes:
        tokens: target token ids [B, v].
        parents: index of the parent node [B, v]; -1 for the root.
        depths: [B, v], 0 for the root.
    """

    tokens: Tensor
    parents: Tensor
    depths: Tensor


def root_only(root: Tensor) -> DraftTree:
    """The tree that drafts nothing: ``root`` [B] alone."""
    tokens = root.unsqueeze(1)
    return DraftTree(tokens, torch.full_like(tokens, -1), torch.zeros_like(tokens))


class TreeChoice:
    """Which of a round's drafted nodes are verified, for trees of one shape.

    Nodes are numbered: the root is 0, then all drafted nodes level by level, w of each parent. So a node's number says
    its depth and the place of its parent in the beams, for all rows alike: both are tables.

    Args:
        shape: of the trees.
        device: of the scores.
    """

    def __init__(self, shape: TreeShape, device: torch.device) -> None:
        self._verified = shape.verified
        widths = [1, shape.branch, *[shape.branch**2] * (shape.steps - 1)]
        depths = torch.repeat_interleave(torch.arange(shape.steps + 1), torch.tensor(widths))
        beam_places = (torch.arange(len(depths)) - 1).clamp(min=0) // shape.branch
        self._tables = torch.stack([depths, beam_places], dim=1).to(device)
        """Of each number its depth, and its parent's place in the beams, the root being the first [nodes, 2]."""

    def best(self, tokens: list[Tensor], scores: list[Tensor], beams: list[Tensor]) -> tuple[DraftTree, Tensor]:
        """The root and the drafted nodes with the highest scores.

        Args:
            tokens: target token ids, root and levels, in the order of the numbers [B, n] each.
            scores: of the same, 0 for the root [B, n] each.
            beams: numbers of the nodes whose children were drafted: the root's, and w of each later step [B, n] each.

        Returns:
            The trees, and the scores of all nodes [B, nodes].
        """
        every = torch.cat(scores, dim=1)
        numbers = best_first(every, self._verified)[1].sort(dim=1).values
        depths, places = F.embedding(numbers, self._tables).unbind(dim=2)
        parent_numbers = torch.cat(beams, dim=1).gather(1, places)
        # A parent is always there, unless scores are no numbers.
        parents = torch.searchsorted(numbers, parent_numbers).clamp_(max=self._verified - 1)
        parents[:, 0] = -1
        return DraftTree(torch.cat(tokens, dim=1).gather(1, numbers), parents, depths), every


def best_first(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest of ``scores`` [B, n], highest first, and their indices [B, count]; equal ones in their own order."""
    values, indices = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :count], indices[:, :count]


def visible(parents: Tensor, depth: int) -> Tensor:
    """The nodes that each node may attend to: itself and its ancestors.

    Args:
        parents: [B, v] as in `DraftTree`.
        depth: the deepest node's, or more.

    Returns:
        Boolean [B, v, v], query by key.
    """
    rows, count = parents.shape
    up = parents.clamp(min=0)
    seen = [torch.arange(count, device=parents.device).expand(rows, count)]
    for _ in range(depth):
        seen.append(up.gather(1, seen[-1]))
    nothing = torch.zeros(rows, count, count, dtype=torch.bool, device=parents.device)
    return nothing.scatter_(2, torch.stack(seen, dim=2), value=True)
