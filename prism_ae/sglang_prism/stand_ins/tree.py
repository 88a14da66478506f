"""The draft tree as SGLang's links, and the target's greedy walk down it.

A tree has n nodes, node 0 is the root. Its links are ``next_token`` (first child) and ``next_sibling``, or -1; children
come in ascending order of their number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FULL_MASK, QLEN_ONLY = 0, 1  # SGLang's TreeMaskMode: a mask over text and tree, or over the tree alone


def build_tree_kernel_efficient_cpu(
    parent_list: Tensor,
    selected_index: Tensor,
    seq_lens: Tensor,
    tree_mask: Tensor,
    positions: Tensor,
    retrieve_index: Tensor,
    retrieve_next_token: Tensor,
    retrieve_next_sibling: Tensor,
    topk: int,
    depth: int,
    draft_token_num: int,
    tree_mask_mode: int,
) -> None:
    """Turn the kept nodes into positions, links and a mask; the five tensors from ``tree_mask`` on are written.

    Args:
        parent_list: each beam's number in the full draft [B, beams]; beam i is the parent of the drafted tokens
            i * topk .. (i + 1) * topk - 1, beam 0 is the root.
        selected_index: numbers in the full draft of the kept nodes, ascending [B, n - 1].
        seq_lens: text before the root [B].
        tree_mask: flat. ``QLEN_ONLY``: [B, n, n]. ``FULL_MASK``: per request [n, text + n]; the text's part stays.
        positions: [B * n]
        retrieve_index, retrieve_next_token, retrieve_next_sibling: [B, n]; the first numbers the nodes of all requests.
    """
    if int(tree_mask_mode) not in (FULL_MASK, QLEN_ONLY):
        raise NotImplementedError(f"tree_mask_mode={tree_mask_mode}: no bit-packed masks on the CPU")
    rows, n = seq_lens.numel(), draft_token_num
    lengths = seq_lens.long()
    parents = _parents(parent_list, selected_index, topk)
    visible, depths = _ancestors(parents, depth)

    positions.copy_((lengths.unsqueeze(1) + depths).flatten())
    retrieve_index.copy_(torch.arange(rows * n).view(rows, n))
    numbers = torch.arange(n)
    child = (parents.unsqueeze(1) == numbers.unsqueeze(1)) & (numbers > 0)  # [B, parent, child]
    retrieve_next_token.copy_(_first(child))
    later_sibling = (parents.unsqueeze(2) == parents.unsqueeze(1)) & (numbers > numbers.unsqueeze(1))
    retrieve_next_sibling.copy_(_first(later_sibling & (parents >= 0).unsqueeze(2)))

    if int(tree_mask_mode) == QLEN_ONLY:
        tree_mask[: visible.numel()] = visible.flatten().to(tree_mask.dtype)
        return
    widths = lengths + n
    begin = (widths.cumsum(0) - widths) * n + lengths
    cells = begin.view(-1, 1, 1) + numbers.unsqueeze(1) * widths.view(-1, 1, 1) + numbers
    tree_mask[cells.flatten()] = visible.flatten().to(tree_mask.dtype)


def _parents(parent_list: Tensor, selected: Tensor, topk: int) -> Tensor:
    """Each node's parent [B, n]; -1 for the root and for a node whose parent was not kept."""
    beam = selected // topk
    parents = torch.zeros_like(beam)
    if parent_list.shape[1]:  # with a single draft step every node is the root's child
        number = parent_list.gather(1, beam)
        same = selected.unsqueeze(1) == number.unsqueeze(2)  # [B, node, kept node]
        place = _first(same)
        parents = torch.where(beam == 0, parents, torch.where(place < 0, place, place + 1))
    return torch.cat([torch.full_like(selected[:, :1], -1), parents], dim=1)


def _first(found: Tensor) -> Tensor:
    """The first place along the last axis that is True, or -1."""
    return torch.where(found.any(dim=-1), found.int().argmax(dim=-1), -1)


def _ancestors(parents: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """(visible [B, n, n]: the root, the node and its ancestors up to ``depth``; depth of each node [B, n])."""
    rows, n = parents.shape
    visible = torch.zeros(rows, n, n, dtype=torch.bool)
    visible[:, :, 0] = True
    depths = torch.zeros_like(parents)
    node = torch.arange(n).expand(rows, n)
    for _ in range(depth):
        below = node > 0  # neither at the root nor lost
        depths += below
        visible.scatter_(2, node.clamp(min=0).unsqueeze(2), value=True)  # the root's column is True anyway
        node = torch.where(below, parents.gather(1, node.clamp(min=0)), node)
    return visible, depths


def parents_of_links(next_token: Tensor, next_sibling: Tensor) -> Tensor:
    """Each node's parent [B, n] from its links [B, n]; -1 for the root and for a node without a link to it."""
    rows, n = next_token.shape
    numbers = torch.arange(n).expand(rows, n)

    def sources(links: Tensor) -> Tensor:
        """The node that links to each node, or -1. Column n collects the missing links and is dropped."""
        found = torch.full((rows, n + 1), -1)
        return found.scatter_(1, torch.where(links < 0, n, links), numbers)[:, :n]

    # The first sibling is found by doubling: after j rounds a node points 2^j siblings back.
    before = sources(next_sibling)
    first = torch.where(before < 0, numbers, before)
    for _ in range(math.ceil(math.log2(max(n, 2)))):
        first = first.gather(1, first)
    return sources(next_token).gather(1, first)


class Committed(NamedTuple):
    """The tensors that a walk down the trees is written to; see `verify_tree_greedy_cpu`."""

    predicts: Tensor
    accept_index: Tensor
    accept_token_num: Tensor


def write_walk(
    to: Committed, nodes: list[Tensor], tokens: list[Tensor], accepted: Tensor, retrieve_index: Tensor
) -> None:
    """Write the tokens that a walk committed to SGLang's three output tensors.

    Args:
        nodes: visited node per level, [B] each; entries after a row's end are not read.
        tokens: the token committed at each of them.
        accepted: accepted drafts [B].
    """
    path, committed = torch.stack(nodes, dim=1), torch.stack(tokens, dim=1)
    places = retrieve_index.gather(1, path)
    visited = torch.arange(path.shape[1]) <= accepted.unsqueeze(1)
    to.predicts[places[visited]] = committed[visited].to(to.predicts.dtype)
    index = to.accept_index[:, : path.shape[1]]
    index.copy_(torch.where(visited, places.to(index.dtype), index))
    to.accept_token_num.copy_(accepted)


def verify_tree_greedy_cpu(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Walk down each tree along the target's own tokens; the first three tensors are written.

    Args:
        predicts: committed token at each visited node, flat over all requests [B * n]; other entries stay.
        accept_index: visited nodes, root first [B, depth + 1]; entries after them stay (SGLang hands over -1).
        accept_token_num: accepted drafts [B].
        candidates: the nodes' tokens [B, n].
        retrive_index, retrive_next_token, retrive_next_sibling: as `build_tree_kernel_efficient_cpu` writes them.
        target_predict: the target's token at each node [B, n].
    """
    parents = parents_of_links(retrive_next_token, retrive_next_sibling)
    target = target_predict.view_as(candidates)
    node = torch.zeros_like(retrive_index[:, 0])
    accepted = torch.zeros_like(node)
    nodes, tokens = [node], [target[:, 0]]
    for _ in range(1, accept_index.shape[1]):
        child = (parents == node.unsqueeze(1)) & (candidates == tokens[-1].unsqueeze(1))
        going = child.any(dim=1)  # a walk that has ended finds no child at its last node again
        if not bool(going.any()):
            break
        node = torch.where(going, child.int().argmax(dim=1), node)
        accepted = accepted + going
        nodes.append(node)
        tokens.append(target.gather(1, node.unsqueeze(1)).squeeze(1))
    write_walk(Committed(predicts, accept_index, accept_token_num), nodes, tokens, accepted, retrive_index)
