"""The dynamic draft tree of EAGLE-2, as pure functions of draft scores.

A node's score is the sum of the drafter's log-probabilities along its path. Step 0 gives the root w children; each
later step expands the w best nodes of the newest level (the beam) into w children each; d steps in all. Of all these
candidates the v - 1 best are verified, and the root. A score never exceeds its parent's, and candidates are numbered
level by level, so taking the best in a stable order takes a parent before its child even where both scores are equal
(a log-probability may be exactly 0): what is taken is a tree. A chain is the tree with w = 1.

Source: EAGLE-2 (arXiv 2406.16858), sections 4.1 and 4.2.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


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


class Candidates:
    """All drafted nodes of a round, level by level."""

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._parents: list[Tensor] = []
        self._levels: list[int] = []

    def __len__(self) -> int:
        return sum(self._levels)

    def add(self, tokens: Tensor, scores: Tensor, parents: Tensor) -> None:
        """A level: target token ids, scores and parents' candidate numbers (-1: the root), all [B, n]."""
        self._tokens.append(tokens)
        self._scores.append(scores)
        self._parents.append(parents)
        self._levels.append(tokens.shape[1])

    def best(self, root: Tensor, count: int) -> DraftTree:
        """The tree of ``root`` [B] and the ``count`` candidates with the highest scores."""
        tokens, parents = torch.cat(self._tokens, dim=1), torch.cat(self._parents, dim=1)
        order = best_first(torch.cat(self._scores, dim=1), count)
        chosen = order.sort(dim=1).values
        rows, total = tokens.shape
        # Place of each candidate in the tree, shifted by one so that the root (-1) finds place 0 in front.
        place = tokens.new_zeros(rows, total + 1)
        place.scatter_(1, chosen + 1, torch.arange(1, count + 1, device=tokens.device).expand(rows, count))
        levels = torch.repeat_interleave(
            torch.arange(1, len(self._levels) + 1, device=tokens.device),
            torch.tensor(self._levels, device=tokens.device),
            output_size=total,
        )
        parent_places = place.gather(1, parents.gather(1, chosen) + 1)
        first = torch.zeros_like(root).unsqueeze(1)
        return DraftTree(
            tokens=torch.cat([root.unsqueeze(1), tokens.gather(1, chosen)], dim=1),
            parents=torch.cat([first - 1, parent_places], dim=1),
            depths=torch.cat([first, levels[chosen]], dim=1),
        )


def best_first(scores: Tensor, count: int) -> Tensor:
    """Indices [B, count] of the highest of ``scores`` [B, n], highest first; equal ones in their own order."""
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


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
    node = torch.arange(count, device=parents.device).expand(rows, count)
    seen = torch.zeros(rows, count, count, dtype=torch.bool, device=parents.device)
    for _ in range(depth + 1):
        seen.scatter_(2, node.unsqueeze(2), value=True)
        node = up.gather(1, node)
    return seen
