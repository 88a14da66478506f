"""A plugin for SGLang: fills keys and values with NaN where a test orders it, when the prefix cache is emptied, and
filters samples.

The file ``SGLANG_POISON`` says what happens: nothing ("" or no file), "emptied": after the cache was emptied, so that
nothing that is read afterwards was written before; "kept": the cache is not emptied, so that what is read is poison.
The file beside it, ``filters``, holds sampling parameters as JSON, which every request is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "SGLANG_POISON"


def register() -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register("sglang.srt.managers.scheduler.Scheduler.flush_cache", around_flush, HookType.AROUND)
    normalize = "sglang.srt.sampling.sampling_params.SamplingParams.normalize"
    HookRegistry.register(normalize, filter_samples, HookType.BEFORE)


def filter_samples(parameters: Any, *args: Any) -> None:
    file = Path(os.environ[VARIABLE]).with_name("filters")
    for name, value in (json.loads(file.read_text()) if file.exists() else {}).items():
        setattr(parameters, name, value)


def around_flush(original: Callable[..., Any], scheduler: Any, *args: Any, **options: Any) -> Any:
    file = Path(os.environ[VARIABLE])
    order = file.read_text().split()[0] if file.exists() else ""
    flushed = original(scheduler, *args, **options) if order != "kept" else scheduler.is_fully_idle()
    if order and flushed:
        runners = [scheduler.tp_worker.model_runner]
        if scheduler.draft_worker is not None:
            runners.append(scheduler.draft_worker.draft_worker.draft_runner)
        buffers = [
            buffer
            for runner in runners
            for name in ("k_buffer", "v_buffer")
            for buffer in getattr(runner.token_to_kv_pool, name)
        ]
        for buffer in buffers:
            buffer.fill_(float("nan"))
        file.write_text(f"{order} {len(buffers)}")
    return flushed
