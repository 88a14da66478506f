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
    environment = "sglang.srt.distributed.parallel_state.init_distributed_environment"
    HookRegistry.register(environment, meet_in_a_file, HookType.AROUND)
    HookRegistry.register(f"{SCHEDULER}.flush_cache", obey, HookType.BEFORE)
    HookRegistry.register(f"{SCHEDULER}.run_batch", tell, HookType.AFTER)
    HookRegistry.register(f"{WORKER}.draft", faults.begin_round, HookType.BEFORE)
    HookRegistry.register(f"{WORKER}.draft", note_trees, HookType.AFTER)


def full_mask() -> Any:
    from sglang.srt.speculative.eagle_utils import TreeMaskMode

    return TreeMaskMode.FULL_MASK


def meet_in_a_file(original: Any, *args: Any, **options: Any) -> Any:
    """Around the set-up of torch's process group: several ranks, which one process started, meet in a file of theirs
    and not at a port that every interface would listen at."""
    if options.get("world_size", 1) > 1:
        options["distributed_init_method"] = f"file://{folder()}/ranks-of-{os.getppid()}"
    return original(*args, **options)


@dataclasses.dataclass
class _State:
    """Of this process.

    Attributes:
        obeyed: number of the order that was obeyed last, and whether drafting was exact then; None before the first.
        rank: only the first one reports.
    """

    report: Report = dataclasses.field(default_factory=Report)
    obeyed: tuple[str, bool] | None = None
    rank: int = 0


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
    number, orders = Orders.read(folder())
    wanted = number, drafting.is_exact(draft_worker.speculative_algorithm)
    if _state.obeyed == wanted:
        return
    if _state.obeyed is None:
        backend.make_attention_opaque()
    _state.report, _state.obeyed, _state.rank = Report(), wanted, scheduler.ps.tp_rank
    faults.apply(orders.fault)
    backend.capture(draft_worker, orders, _state.report)
    tell()


def note_trees(drafted: Any, *args: Any, **options: Any) -> None:
    """After the draft worker drafted: each request's tree, its tokens with their places and their kin."""
    if drafted.draft_token is None or _state.obeyed is None:
        return
    width = drafted.draft_token_num
    parts = (drafted.draft_token, drafted.positions, drafted.retrieve_next_token, drafted.retrieve_next_sibling)
    for row in zip(*(part.view(-1, width).tolist() for part in parts), strict=True):
        _state.report.trees[hashlib.sha256(repr(row).encode()).hexdigest()[:16]] += 1


def tell(*args: Any, **options: Any) -> None:
    """After each pass, so before anybody is given what came of it."""
    if _state.obeyed is not None and _state.rank == 0:
        _state.report.write(folder())
