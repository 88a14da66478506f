"""The plugin's entry point: registers the algorithms and the hooks, in every process of an SGLang server or engine.

Each hook wraps one function of the pinned SGLang version; a test compares the wrapped functions' signatures, so a new
version of SGLang fails there. With the plugin installed, a server that does not ask for PRISM behaves as before.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from prism_ae.sglang_prism.algorithm import NAMES, PRISM, register_algorithms
from prism_ae.sglang_prism.version import SGLANG_VERSION

CPU_VARIABLE = "SGLANG_USE_CPU_ENGINE"

Hook = tuple[str, Callable[..., Any], str]
"""Path of a function of SGLang, ours, and when ours runs: "before", "after" or "around" it."""


def register() -> None:
    """Called by SGLang while it loads its plugins.

    In another version of SGLang the only hook is one that refuses PRISM with a message: SGLang only logs exceptions
    that are raised here.
    """
    found = importlib.metadata.version("sglang")
    if found != SGLANG_VERSION:
        _register_hook(*_another_version(found))
        return
    from prism_ae.sglang_prism import control

    register_algorithms(missing_hooks)
    control.install()
    for target, hook, kind in hooks():
        _register_hook(target, hook, kind)


def hooks() -> list[Hook]:
    """Every function of SGLang that is wrapped in this process."""
    from prism_ae.sglang_prism import (
        accepted,
        context_limit,
        control,
        drafting,
        finish,
        penalties,
        registration,
        sampling,
        stages,
        steps,
        streams,
    )

    modules = (registration, steps, drafting, control, finish, accepted, penalties, context_limit)
    found: list[Hook] = [hook for module in modules for hook in module.HOOKS]
    main, ours = multiprocessing.parent_process() is None, bool(os.environ.get(control.NONCE))
    if main:
        found += streams.HOOKS
    if ours:
        found += [*stages.HOOKS, *control.OWN_HOOKS]
    if main and ours:
        found += control.MAIN_HOOKS
    if os.environ.get(CPU_VARIABLE) == "1":
        from prism_ae.sglang_prism import cpu

        cpu.install()
        return [*found, *cpu.HOOKS, *sampling.HOOKS]
    return [*found, *((target, _for_prism(hook), kind) for target, hook, kind in sampling.HOOKS)]


def missing_hooks() -> list[str]:
    """The functions of SGLang that should be wrapped in this process and are not, sorted."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    return sorted({target for target, _, _ in hooks()} - HookRegistry._patched)


def _another_version(found: str) -> Hook:
    def refuse(server_args: Any, *args: Any, **options: Any) -> None:
        if (server_args.speculative_algorithm or "").upper() == PRISM:
            raise ValueError(
                f"prism-ae's PRISM is made for SGLang {SGLANG_VERSION}, and this is {found}; "
                f"pip install sglang=={SGLANG_VERSION}"
            )

    return "sglang.srt.arg_groups.speculative_hook.handle_speculative_decoding", refuse, "before"


def _for_prism(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook around a function of (verify_input, batch, …) where PRISM drafts the batch, elsewhere the function."""

    def wrapped(original: Callable[..., Any], verify_input: Any, batch: Any, *args: Any, **options: Any) -> Any:
        if batch.spec_algorithm.name in NAMES:
            return hook(original, verify_input, batch, *args, **options)
        return original(verify_input, batch, *args, **options)

    return wrapped


def _register_hook(target: str, hook: Callable[..., Any], kind: str) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(target, hook, HookType(kind))
