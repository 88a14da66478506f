"""Control of a running engine: its identity, the settings in effect, and changes of drafter, tree or drafting.

Only engines that this project starts can be changed: they have a nonce in their environment. A user's own server with
PRISM only reports its settings, in ``/server_info``. The command is a method added to SGLang's scheduler, called by its
own remote calls. The settings are read from the objects that use them, not from the start options, and added to
SGLang's internal state.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prism_ae.cells import EXACT, STOCK, EngineSettings

NONCE = "PRISM_AE_NONCE"
"""Environment variable that the engine has to echo."""

KEY = "prism_ae"
"""Our key in SGLang's internal state."""

CONFIGURE = "prism_ae_configure"
"""Name of the command, a method of the scheduler."""


def install() -> None:
    """Add the command to the scheduler, if a nonce shows that this project started the engine."""
    if os.environ.get(NONCE):
        from sglang.srt.managers.scheduler import Scheduler

        setattr(Scheduler, CONFIGURE, configure)


def configure(scheduler: Any, drafter: str | None = None, tree: str | None = None, drafting: str | None = None) -> None:
    """Change drafter, tree or drafting of an idle engine.

    Args:
        drafter: folder of a checkpoint of the loaded architecture.
        tree: "steps,branch,verified"; only without CUDA graphs, none larger than the engine was started for.
        drafting: "exact" or "stock"; only without CUDA graphs.

    Raises:
        RuntimeError: the engine is busy, or cannot change this while it runs.
        PrismError: the checkpoint cannot be loaded; the engine keeps its drafter.
    """
    if not scheduler.is_fully_idle():
        raise RuntimeError("the engine is busy")
    worker = scheduler.draft_worker
    if (tree or drafting) and captured_batches(scheduler):
        raise RuntimeError("tree and drafting are part of the captured CUDA graphs; start the engine with them")
    if drafting:
        from prism_ae.sglang_prism import drafting as module

        module.set_draft_mode(drafting)
    if drafter:
        _load(worker.draft_worker, Path(drafter))
    if tree:
        _shape(worker, *(int(part) for part in tree.split(",")))


def _load(draft_worker: Any, folder: Path) -> None:
    model = draft_worker.draft_runner.model
    if model.quant_config is not None:
        raise RuntimeError("a quantised drafter's weights cannot be replaced; start the engine with the other one")
    model.load_drafter(folder)
    if draft_worker.hot_token_id is not None:
        draft_worker.hot_token_id.copy_(model.hot_token_id)


def _shape(worker: Any, steps: int, branch: int, verified: int) -> None:
    """Set another tree in target and draft worker, and rebuild what depends on it."""
    from sglang.srt.runtime_context import get_context, get_server_args

    started = get_server_args()
    if steps > started.speculative_num_steps or branch > started.speculative_eagle_topk:
        raise RuntimeError(f"draft tree {steps},{branch},{verified} is larger than the engine was started for")
    if verified > started.max_speculative_num_draft_tokens:
        raise RuntimeError(f"draft tree {steps},{branch},{verified} is larger than the engine was started for")
    get_context().override(
        KEY, speculative_num_steps=steps, speculative_eagle_topk=branch, speculative_num_draft_tokens=verified
    )
    for part in (worker, worker.draft_worker):
        part.topk, part.speculative_num_steps, part.speculative_num_draft_tokens = branch, steps, verified
    worker.draft_worker._rebuild_topk1_chain_buffers()
    worker.draft_worker.init_attention_backend()
    for runner in (worker.target_worker.model_runner, worker.draft_worker.draft_runner):
        runner.attn_backend.num_draft_tokens = verified


def add_state(result: Any, scheduler: Any, *args: Any) -> None:
    """After SGLang described its state: add ours, in this project's engines and in users' servers with PRISM."""
    from prism_ae.sglang_prism.algorithm import NAMES

    if os.environ.get(NONCE) or scheduler.spec_algorithm.name in NAMES:
        result.internal_state[KEY] = state(scheduler)


def state(scheduler: Any) -> dict[str, Any]:
    """The settings in effect, read from the objects that use them; plain values."""
    runner = scheduler.tp_worker.model_runner
    found = EngineSettings(
        dtype=str(next(runner.model.parameters()).dtype).removeprefix("torch."),
        attention=type(runner.attn_backend).__name__,
        cuda_graphs=captured_batches(scheduler) or "eager",
        radix_cache=type(scheduler.tree_cache).__name__ != "ChunkCache",
        overlap=bool(scheduler.enable_overlap),
        largest_batch=scheduler.max_running_requests,
        nonce=os.environ.get(NONCE) or None,
        others={
            "pid": os.getpid(),
            "algorithm": scheduler.spec_algorithm.name,
            "device": str(runner.device),
            "sampling": sampling_backend(),
            "kv_tokens": int(scheduler.max_total_num_tokens),
            "memory_bytes": memory_bytes(runner.device),
            "tree": None,
            "drafting": None,
            "drafter": None,
        },
    ).to_json()
    return found if scheduler.draft_worker is None else found | draft_state(scheduler.draft_worker.draft_worker)


def draft_state(draft_worker: Any) -> dict[str, Any]:
    """The part of `state` that describes the drafter."""
    from prism_ae.sglang_prism import drafting
    from prism_ae.sglang_prism.description import KEY as DESCRIBED

    model = draft_worker.draft_runner.model
    exact = drafting.is_exact(draft_worker.speculative_algorithm)
    described = getattr(model.config, DESCRIBED, {}).get("config", {})
    extend = draft_worker.draft_extend_attn_backend or draft_worker.draft_runner.attn_backend
    return EngineSettings(
        tree=[
            draft_worker.speculative_num_steps,
            draft_worker.topk,
            draft_worker.speculative_num_draft_tokens,
        ],
        drafting=EXACT if exact else STOCK,
        drafter=getattr(model, "prism_ae_folder", None),
        draft_cuda_graphs=_captured(getattr(draft_worker, "cuda_graph_runner", None)) or "eager",
        extend_cuda_graphs=_captured(getattr(draft_worker, "cuda_graph_runner_for_draft_extend", None)) or "eager",
        others={
            "modules": described.get("modules"),
            "step_mapping": described.get("step_mapping"),
            "captured_states": described.get("capture"),
            "draft_attention": type(draft_worker.draft_attn_backend).__name__,
            "extend_attention": type(extend).__name__,
        },
    ).to_json()


def memory_bytes(device: Any) -> int:
    """What the scheduler's process takes: on a GPU the most that it ever allocated there, on a CPU what is resident."""
    if str(device) == "cpu":
        import psutil  # type: ignore[import-untyped]

        return int(psutil.Process().memory_info().rss)
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def sampling_backend() -> str:
    """Name of the backend whose kernels filter and sample."""
    from sglang.srt.runtime_context import get_exec

    return str(get_exec().kernel.sampling_backend)


def captured_batches(scheduler: Any) -> list[int]:
    """Batch sizes for which CUDA graphs of the target's decoding were captured; [] where it runs eagerly."""
    return _captured(getattr(scheduler.tp_worker.model_runner, "decode_cuda_graph_runner", None))


def _captured(graphs: Any) -> list[int]:
    return [int(size) for size in getattr(graphs, "capture_bs", ())]


def use_file_rendezvous(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Around the set-up of torch's process group: an engine of one process uses a file, instead of listening on every
    network interface."""
    if os.environ.get(NONCE) and options.get("world_size") == 1:
        folder = tempfile.mkdtemp(prefix="rendezvous-")  # below the engine's own temporary folder
        options["distributed_init_method"] = f"file://{folder}/store"
    return original(*args, **options)


def bigram_prefix_cache_keys(cache: Any, params: Any) -> None:
    """Before the prefix cache is made: where a separate model drafts, key it by pairs of tokens, as SGLang does for
    EAGLE.

    SGLang's draft worker reads token t + 1 at position t, whatever the drafter is: the keys and values at the last
    position of a shared prefix depend on the next token. Keyed by single tokens, a request would reuse those of another
    request's next token, and its acceptance would depend on what was served before.
    """
    from sglang.srt.runtime_context import get_server_args

    if os.environ.get(NONCE) and get_server_args().speculative_algorithm == "STANDALONE":
        params.is_eagle = True


def keep_what_is_loaded(*args: Any) -> None:
    """Before the scheduler begins to serve: the garbage collector need not look at all that was imported again.

    It takes a quarter of a second to, which SGLang lets it do whenever the prefix cache is emptied on a CPU, and Python
    at any moment of a measurement.
    """
    gc.collect()
    gc.freeze()


def without_detokenizer(original: Callable[..., Any], *args: Any, **options: Any) -> tuple[list[Any], list[str]]:
    """Around the start of SGLang's detokenizers: token ids go in and come out of this project's engines, and a process
    with nothing to do would take as long to start as the others, and memory as long as the engine lives."""
    return [], []


HOOKS = [
    ("sglang.srt.distributed.parallel_state.init_distributed_environment", use_file_rendezvous, "around"),
    ("sglang.srt.managers.scheduler.Scheduler.get_internal_state", add_state, "after"),
    ("sglang.srt.mem_cache.radix_cache.RadixCache.__init__", bigram_prefix_cache_keys, "before"),
]

OWN_HOOKS: list[tuple[str, Callable[..., Any], str]] = [
    ("sglang.srt.managers.scheduler.dispatch_event_loop", keep_what_is_loaded, "before")
]
"""Only in engines that this project starts."""


def fork_schedulers(*args: Any, **options: Any) -> None:
    """After SGLang chose to start its processes anew: a copy of this one has everything imported already, which is
    most of a start. On a CPU alone: what CUDA has begun cannot be copied."""
    if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
        multiprocessing.set_start_method("fork", force=True)


_DETOKENIZERS = "sglang.srt.entrypoints.engine.Engine._launch_detokenizer_subprocesses"
MAIN_HOOKS: list[tuple[str, Callable[..., Any], str]] = [
    (_DETOKENIZERS, without_detokenizer, "around"),
    ("sglang.srt.entrypoints.engine._set_envs_and_config", fork_schedulers, "after"),
]
"""Only in their main process."""
