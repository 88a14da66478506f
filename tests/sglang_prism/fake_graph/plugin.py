"""The plugin's entry point."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

from fake_graph import faults
from fake_graph.orders import Orders, Report, folder

WORKER = "sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker"
SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"

FULL_MASK = "FAKE_GRAPH_FULL_MASK"
"""Environment variable: masks of verification as the kernels of GPUs read them, whatever the device is."""


def register() -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    if os.environ.get(FULL_MASK):
        HookRegistry.register("sglang.srt.speculative.eagle_utils.default_tree_mask_mode", full_mask, HookType.REPLACE)
    HookRegistry.register(f"{SCHEDULER}.flush_cache", obey, HookType.BEFORE)
    HookRegistry.register(f"{SCHEDULER}.run_batch", tell, HookType.AFTER)
    HookRegistry.register(f"{WORKER}.draft", faults.begin_round, HookType.BEFORE)
    HookRegistry.register(f"{WORKER}.draft", note_trees, HookType.AFTER)


def full_mask() -> Any:
    from sglang.srt.speculative.eagle_utils import TreeMaskMode

    return TreeMaskMode.FULL_MASK


@dataclasses.dataclass
class _State:
    """Of this process: what was done, whether attention has been made opaque, and whether drafting is exact."""

    report: Report = dataclasses.field(default_factory=Report)
    ready: bool = False
    exact: bool | None = None


_state = _State()


def obey(scheduler: Any, *args: Any, **options: Any) -> None:
    """Before the prefix cache is emptied, so where nothing is under way: do what was ordered since.

    Exact drafting is part of what is captured: graphs are also made anew where the engine was told to draft otherwise.
    """
    if scheduler.draft_worker is None or not scheduler.is_fully_idle():
        return
    from fake_graph import backend
    from prism_ae.sglang_prism import drafting

    draft_worker = scheduler.draft_worker.draft_worker
    exact = drafting.is_exact(draft_worker.speculative_algorithm)
    if _state.exact == exact and (folder() / "report").exists():
        return
    if not _state.ready:
        backend.make_attention_opaque()
    orders = Orders.read(folder())
    _state.report, _state.ready, _state.exact = Report(), True, exact
    faults.apply(orders.fault)
    backend.capture(draft_worker, orders, _state.report)
    tell()


def note_trees(drafted: Any, *args: Any, **options: Any) -> None:
    """After the draft worker drafted: each request's tree, its tokens with their places and their kin."""
    if drafted.draft_token is None or not _state.ready:
        return
    width = drafted.draft_token_num
    parts = (drafted.draft_token, drafted.positions, drafted.retrieve_next_token, drafted.retrieve_next_sibling)
    for row in zip(*(part.view(-1, width).tolist() for part in parts), strict=True):
        _state.report.trees[hashlib.sha256(repr(row).encode()).hexdigest()[:16]] += 1


def tell(*args: Any, **options: Any) -> None:
    """After each pass, so before anybody is given what came of it."""
    if _state.ready:
        _state.report.write(folder())
