"""Exact drafting: every branch of the draft tree attends to its own ancestors' keys and values.

SGLang's draft loop reorders tokens and hidden states after each step, but not the key-value slots: branch j of the
beam keeps the slots of the previous branch j, so a draft attends to tokens of another branch (upstream issue 7523). The
target's verification is not affected, the acceptance length is. The fix: after step i selects the branches that
continue, the i slots of each selected parent are copied into the slots of the branch that continues it.

Shapes depend on batch, branches and step alone and nothing waits for the device, so a CUDA graph of the draft loop
captures the fix too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prism_ae.cells import EXACT

if TYPE_CHECKING:
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch

VARIABLE = "PRISM_AE_DRAFTING"
"""Environment variable: "exact" or "stock" for every algorithm; unset, only PRISM drafts exactly."""

BUFFERS = ("k_buffer", "v_buffer")


class _Loop:
    """One run of the draft loop: slots [batch, branch, steps] and the draft pool's buffers."""

    def __init__(self, slots: Tensor, buffers: list[Tensor]) -> None:
        self.slots, self.buffers = slots, buffers


_running: _Loop | None = None
_chosen: str | None = os.environ.get(VARIABLE)


def set_draft_mode(drafting: str) -> None:
    """Set `EXACT` or `STOCK` from now on; only where no CUDA graph has been captured."""
    global _chosen
    _chosen = drafting


def is_exact(algorithm: Any) -> bool:
    """Whether a worker of this speculative algorithm drafts exactly."""
    if _chosen is not None:
        return _chosen == EXACT
    from prism_ae.sglang_prism.algorithm import NAMES

    return algorithm.name in NAMES


def around_draft_forward(original: Callable[..., Any], draft_worker: Any, forward_batch: ForwardBatch) -> Any:
    """Around the draft loop: keep the slots of all its steps, since SGLang overwrites the batch's field at each."""
    global _running
    steps, branch = draft_worker.speculative_num_steps, draft_worker.topk
    if (
        branch == 1
        or steps < 3  # the first reordering that a later forward could see follows the second step
        or forward_batch.forward_mode.is_idle()
        or not is_exact(draft_worker.speculative_algorithm)
    ):
        return original(draft_worker, forward_batch)
    slots = forward_batch.out_cache_loc.view(forward_batch.batch_size, branch, steps)
    _running = _Loop(slots, draft_buffers(draft_worker.draft_runner))
    try:
        return original(draft_worker, forward_batch)
    finally:
        _running = None


def around_select(original: Callable[..., Any], i: int, *args: Any, **options: Any) -> Any:
    """Around the selection of step i's beam: give each branch its parent's keys and values of steps 0 .. i - 1."""
    chosen = original(i, *args, **options)
    # No forward pass follows the last selection, and the first has nothing to copy.
    if _running is not None and 1 <= i < _running.slots.shape[2] - 1:
        branch = _running.slots.shape[1]
        (_, _, candidates) = chosen[3]
        # SGLang numbers candidates through the whole tree: branch of the first step, then branch^2 of each later one.
        parents = (candidates - (branch * branch * (i - 1) + branch)) // branch
        inherit(_running.slots, parents, i, _running.buffers)
    return chosen


def inherit(slots: Tensor, parents: Tensor, depth: int, buffers: list[Tensor]) -> None:
    """Copy the first ``depth`` slots of each branch's parent into the branch's own, in every buffer.

    Args:
        slots: [batch, branch, steps], indices into a buffer's first dimension.
        parents: [batch, branch], the branch that each branch continues.
        buffers: [slots of the pool, heads, head size] each; changed in place.
    """
    own = slots[:, :, :depth]
    source = own.gather(1, parents.unsqueeze(-1).expand(-1, -1, depth)).reshape(-1)
    destination = own.reshape(-1)
    for buffer in buffers:
        # Everything is read before anything is written: branches may swap places.
        buffer.index_copy_(0, destination, buffer.index_select(0, source))


def draft_buffers(draft_runner: Any) -> list[Tensor]:
    """Keys and values of the drafter, one buffer [slots, heads, head size] per layer and kind.

    Raises:
        NotImplementedError: a pool of a layout that exact drafting does not know; stock drafting would still run.
    """
    pool = draft_runner.token_to_kv_pool
    if draft_runner.page_size != 1:
        raise NotImplementedError(
            f"exact drafting needs page size 1, not {draft_runner.page_size}; set {VARIABLE}=stock"
        )
    found = [buffer for name in BUFFERS for buffer in (getattr(pool, name, None) or ())]
    scaled = getattr(pool, "k_scale_buffer", None) is not None  # its scales would have to move along
    if not found or scaled or any(not torch.is_tensor(buffer) or buffer.dim() != 3 for buffer in found):
        raise NotImplementedError(f"exact drafting does not know {type(pool).__name__}; set {VARIABLE}=stock")
    return found


def check_pool(result: Any, draft_worker: Any, *args: Any, **options: Any) -> None:
    """After the draft worker's set-up: refuse a pool that exact drafting does not know, before the first request."""
    if draft_worker.topk > 1 and is_exact(draft_worker.speculative_algorithm):
        draft_buffers(draft_worker.draft_runner)


HOOKS = [
    ("sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker.init_attention_backend", check_pool, "after"),
    ("sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker.draft_forward", around_draft_forward, "around"),
    ("sglang.srt.speculative.spec_utils.select_top_k_tokens", around_select, "around"),
]
