"""Random draft trees in the form SGLang's drafting hands over, and a reference that follows links one by one."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Drafted:
    """``parent_list`` and ``selected_index`` as SGLang makes them, and each kept node's parent [B][n]."""

    parent_list: Tensor
    selected_index: Tensor
    parents: list[list[int]]


def drafted(rows: int, topk: int, steps: int, nodes: int) -> Drafted:
    """A beam search with random scores that keeps ``nodes - 1`` of the drafted tokens; some lose their parents.

    Numbers in the full draft: step 0 drafts 0..topk-1; step i drafts topk * topk tokens, topk for each beam in order.
    """
    parent_lists, selections, parents = [], [], []
    for _ in range(rows):
        beams, parent_list, parent_of = list(range(topk)), [-1, *range(topk)], dict.fromkeys(range(topk), -1)
        count = topk
        for step in range(1, steps):
            new = list(range(count, count + topk * topk))
            parent_of.update({number: beams[place // topk] for place, number in enumerate(new)})
            count += topk * topk
            beams = sorted(torch.randperm(len(new))[:topk].add(new[0]).tolist())
            if step < steps - 1:
                parent_list += beams
        kept = sorted(torch.randperm(count)[: nodes - 1].tolist())
        place = {-1: 0, **{number: place + 1 for place, number in enumerate(kept)}}
        parents.append([-1, *(place.get(parent_of[number], -1) for number in kept)])
        selections.append(kept)
        parent_lists.append(parent_list if steps > 1 else [])
    return Drafted(torch.tensor(parent_lists).view(rows, -1).long(), torch.tensor(selections).view(rows, -1), parents)


def ancestors(parents: list[int], node: int) -> list[int]:
    """The node and those above it, without the root; ends at a node whose parent was lost."""
    found = []
    while node > 0:
        found.append(node)
        node = parents[node]
    return found


def links(parents: list[int]) -> tuple[list[int], list[int]]:
    """First child and next sibling of each node."""
    n = len(parents)
    child = [[j for j in range(1, n) if parents[j] == node] for node in range(n)]
    first = [children[0] if children else -1 for children in child]
    sibling = [-1] * n
    for children in child:
        for one, other in itertools.pairwise(children):
            sibling[one] = other
    return first, sibling
