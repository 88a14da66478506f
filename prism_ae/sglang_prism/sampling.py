"""Lossless verification at T > 0: SGLang's speculative sampling, from the distribution that its own sampler uses.

SGLang 0.5.17 is not lossless in three cases:

* On a CPU `eagle_sample` commits the likeliest tokens whatever the temperature.
* With both top-k and top-p it filters in turn: top-p acts on what top-k left, normalised to 1, and so keeps fewer
  tokens. The sampler without speculation applies both to the target's own probabilities, in the ``pytorch`` backend
  and, "joint", in flashinfer's. The texts then have different distributions, on a GPU too.
* It ignores min-p, which the sampler applies.

`HOOKS` wraps `eagle_sample`: while it runs, its own filters are off, and the tree walk that it calls filters first,
with `verification_probs`. Greedy batches stay as they are, and so does ``speculative_use_rejection_sampling`` on a GPU.
Custom logit processors are not applied in verification, as in stock SGLang.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor


class Filters(Protocol):
    """The fields of SGLang's ``SamplingBatchInfo`` that are read, for B requests: each tensor is [B]."""

    top_ks: Tensor
    top_ps: Tensor
    min_ps: Tensor
    need_top_k_sampling: bool
    need_top_p_sampling: bool
    need_min_p_sampling: bool


def verification_probs(probs: Tensor, filters: Filters, backend: str) -> Tensor:
    """The distribution from which SGLang's sampler draws without speculation.

    Args:
        probs: the target's distribution at the requests' temperatures, per node of their trees [B, n, V].
        backend: SGLang's ``sampling_backend``, "pytorch" or "flashinfer".

    Returns:
        [B, n, V], each row sums to 1.

    Raises:
        NotImplementedError: another backend.
    """
    if not (filters.need_top_k_sampling or filters.need_top_p_sampling or filters.need_min_p_sampling):
        return probs
    if backend not in ("pytorch", "flashinfer"):
        raise NotImplementedError(
            f"sampling_backend={backend!r}: its filters are not known, so verification cannot match them"
        )
    nodes = probs.shape[1]
    rows = probs.flatten(0, 1)
    top_k, top_p, min_p = (
        values.repeat_interleave(nodes) for values in (filters.top_ks, filters.top_ps, filters.min_ps)
    )
    if not filters.need_min_p_sampling:
        min_p = torch.zeros_like(min_p)
    if backend == "pytorch":
        kept = _by_rank(rows, top_k, top_p, min_p)
    elif filters.need_min_p_sampling:
        kept = _in_turn(rows, top_k, top_p, min_p)
    else:
        kept = _joined(rows, top_k, top_p)
    return (kept / kept.sum(dim=-1, keepdim=True)).view_as(probs)


def _by_rank(probs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """``pytorch``: a token stays if its rank is below k, those before it sum to at most p, and min-p allows it."""
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    stays = torch.arange(probs.shape[-1], device=probs.device) < top_k.unsqueeze(1)
    stays &= before <= top_p.unsqueeze(1)
    stays &= ordered >= (ordered[:, 0] * min_p).unsqueeze(1)
    return torch.zeros_like(probs).scatter_(1, order, ordered.where(stays, 0))


def _joined(probs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """flashinfer: a token stays if fewer than k are likelier than it and those sum to less than p."""
    from sgl_kernel import top_k_renorm_prob, top_p_renorm_prob

    return probs.where((top_k_renorm_prob(probs, top_k) > 0) & (top_p_renorm_prob(probs, top_p) > 0), 0)


def _in_turn(probs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """flashinfer with min-p: each filter acts on the normalised output of the one before it."""
    from sgl_kernel import top_k_renorm_prob, top_p_renorm_prob

    left = top_p_renorm_prob(top_k_renorm_prob(probs, top_k), top_p)
    return left.where(left >= left.max(dim=-1, keepdim=True).values * min_p.unsqueeze(1), 0)


def around_sample(original: Callable[..., Any], verify_input: Any, batch: Any, *args: Any, **options: Any) -> Any:
    """Around ``eagle_utils.eagle_sample``: sample where it would take the likeliest, and filter as the sampler does.

    Raises:
        NotImplementedError: ``speculative_use_rejection_sampling`` on a CPU.
    """
    import sgl_kernel
    from sglang.srt.runtime_context import get_exec, get_spec
    from sglang.srt.speculative import eagle_utils

    filters = batch.sampling_info
    if batch.forward_mode.is_idle() or filters.is_all_greedy:
        return original(verify_input, batch, *args, **options)
    if get_spec().speculative_use_rejection_sampling:
        if eagle_utils._is_cpu:
            raise NotImplementedError("speculative_use_rejection_sampling on a CPU: its kernel is for GPUs")
        return original(verify_input, batch, *args, **options)
    backend = get_exec().kernel.sampling_backend
    walk = sgl_kernel.tree_speculative_sampling_target_only

    def filtered(*, target_probs: Tensor, **arguments: Any) -> None:
        walk(target_probs=verification_probs(target_probs, filters, backend), **arguments)

    unfiltered = copy.copy(filters)
    unfiltered.need_top_k_sampling = unfiltered.need_top_p_sampling = False
    with (
        _replaced(batch, "sampling_info", value=unfiltered),
        _replaced(eagle_utils, "_is_cpu", value=False),  # read only where it decides between likeliest and sample
        _replaced(sgl_kernel, "tree_speculative_sampling_target_only", value=filtered),  # imported at each call
    ):
        return original(verify_input, batch, *args, **options)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, *, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


HOOKS = [("sglang.srt.speculative.eagle_utils.eagle_sample", around_sample, "around")]
"""For the plugin, on CPUs and GPUs: (function of SGLang, hook, kind)."""
