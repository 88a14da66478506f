"""Sampling down the draft tree, and filters of a distribution.

At each visited node the walk tries the children in turn. One uniform number decides for all of them: the first child at
which the children's summed probability exceeds it is accepted, which happens with exactly the child's own probability.
If none is, the round's last token is drawn from the target's distribution without the children. Either way the
committed token has the target's distribution at that node: the sampling is lossless.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prism_ae.sglang_prism.stand_ins.tree import Committed, parents_of_links, write_walk


def tree_speculative_sampling_target_only(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    uniform_samples: Tensor,
    uniform_samples_for_final_sampling: Tensor,
    target_probs: Tensor,
    draft_probs: Tensor,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    deterministic: bool = True,
) -> None:
    """Walk down each tree, sampling; the first three tensors are written as by the greedy walk.

    Args:
        candidates, retrive_index, retrive_next_token, retrive_next_sibling: the tree, see `tree`.
        uniform_samples: in [0, 1), one per node [B, n], used where the node's children are tried.
        uniform_samples_for_final_sampling: in [0, 1), one per request [B].
        target_probs: the target's distribution at each node [B, n, V].
        draft_probs: working memory of the compiled kernel, neither read nor written here.
        threshold_single: a child with at least this probability is accepted at once; below 1 this is not lossless.
        threshold_acc: the summed probability is divided by it; below 1 this is not lossless.

    A child is accepted where the sum *exceeds* the number (the compiled kernel also accepts equality): a token of
    probability 0 is then never accepted.
    """
    parents = parents_of_links(retrive_next_token, retrive_next_sibling)
    rows = torch.arange(candidates.shape[0])
    node = torch.zeros_like(candidates[:, 0], dtype=torch.long)
    accepted = torch.zeros_like(node)
    depth = accept_index.shape[1] - 1
    refused = torch.zeros_like(candidates, dtype=torch.bool)  # children of each row's last node
    nodes, tokens = [node], []
    for _ in range(depth):
        children = parents == node.unsqueeze(1)
        chance = target_probs[rows, node].gather(1, candidates.long()).where(children, 0)
        reached = chance.cumsum(dim=1) / max(threshold_acc, 1e-9) > uniform_samples[rows, node].unsqueeze(1)
        accept = children & (reached | (chance >= threshold_single))
        going = accept.any(dim=1)  # a walk that has ended is refused at its last node again, by the same number
        refused = children & ~going.unsqueeze(1)
        if not bool(going.any()):
            break
        node = torch.where(going, accept.int().argmax(dim=1), node)
        accepted = accepted + going
        nodes.append(node)
        tokens.append(candidates[rows, node])
    last = _draw(target_probs[rows, node], candidates, refused, uniform_samples_for_final_sampling)
    # Place i of a row holds the token committed at its node i: drafts up to `accepted`, there the last token.
    committed = [torch.where(accepted == level, last, token) for level, token in enumerate([*tokens, last])]
    to = Committed(predicts, accept_index, accept_token_num)
    write_walk(to, nodes, committed, accepted, retrive_index)


def _draw(probs: Tensor, candidates: Tensor, refused: Tensor, numbers: Tensor) -> Tensor:
    """One token per row from ``probs`` [B, V] without the refused candidates, by the inverse of the cumulative sum."""
    refusals = torch.zeros_like(probs, dtype=torch.int32).scatter_add_(1, candidates.long(), refused.int())
    rest = probs.double().masked_fill(refusals > 0, 0)
    # By rounding the refused can have all the probability; then one of them is drawn.
    rest = torch.where(rest.sum(dim=1, keepdim=True) > 0, rest, probs.double())
    cumulative = rest.cumsum(dim=1)
    threshold = numbers.double().unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


def top_k_renorm_prob(probs: Tensor, top_k: Tensor | int) -> Tensor:
    """Keep the k largest of each row of ``probs`` [N, V] and those equal to the k-th, then normalise; [N, V].

    Args:
        top_k: one for all rows or [N]; V or more keeps all.
    """
    k = torch.as_tensor(top_k).view(-1, 1).expand(probs.shape[0], 1).long().clamp(1, probs.shape[-1])
    ordered = probs.sort(dim=-1, descending=True).values
    return _at_least(probs, ordered.gather(1, k - 1))


def top_p_renorm_prob(probs: Tensor, top_p: Tensor | float) -> Tensor:
    """Keep the fewest largest of each row of ``probs`` [N, V] that sum to p and those equal to the last; normalise.

    Args:
        top_p: in (0, 1], one for all rows or [N]; 1 keeps all.
    """
    p = torch.as_tensor(top_p, dtype=probs.dtype).view(-1, 1).expand(probs.shape[0], 1)
    ordered = probs.sort(dim=-1, descending=True).values
    fewer = (ordered.cumsum(dim=-1) - ordered < p).sum(dim=-1, keepdim=True)
    last = ordered.gather(1, fewer.clamp(min=1) - 1)
    return _at_least(probs, last.where(p < 1, 0))  # rounded sums may reach 1 before the last entry


def _at_least(probs: Tensor, least: Tensor) -> Tensor:
    kept = probs.where(probs >= least, 0)
    return kept / kept.sum(dim=-1, keepdim=True)
