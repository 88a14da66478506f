"""The plugin's entry point: registers the algorithms and the hooks, in every process of an SGLang server or engine.

Each hook wraps one function of the pinned SGLang version; a test compares the wrapped functions' signatures, so
that another version is noticed where it matters. With the plugin installed, a server that does not ask for PRISM
behaves as before.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

from prism_ae.engines.registry import SGLANG_VERSION
from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED, register_algorithms
from prism_ae.sglang_prism.hooks import Hook

CPU_VARIABLE = "SGLANG_USE_CPU_ENGINE"


def register() -> None:
    """Called by SGLang while it loads its plugins.

    Raises:
        RuntimeError: another version of SGLang; SGLang logs it and goes on without PRISM.
    """
    found = importlib.metadata.version("sglang")
    if found != SGLANG_VERSION:
        raise RuntimeError(f"prism-ae's plugin is made for SGLang {SGLANG_VERSION}, this is {found}")
    from prism_ae.sglang_prism import control

    register_algorithms()
    control.install()
    for target, hook, kind in hooks():
        _register_hook(target, hook, kind)


def hooks() -> list[Hook]:
    """Every wrapped function of SGLang."""
    from prism_ae.sglang_prism import control, drafting, registration, sampling, steps

    found = [*registration.HOOKS, *steps.HOOKS, *drafting.HOOKS, *control.HOOKS]
    if os.environ.get(CPU_VARIABLE) == "1":
        from prism_ae.sglang_prism import cpu

        cpu.install()
        return [*found, *cpu.HOOKS, *sampling.HOOKS]
    return [*found, *((target, _for_prism(hook), kind) for target, hook, kind in sampling.HOOKS)]


def _for_prism(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook around a function of (verify_input, batch, …) where PRISM drafts the batch, elsewhere the function."""

    def wrapped(original: Callable[..., Any], verify_input: Any, batch: Any, *args: Any, **options: Any) -> Any:
        if batch.spec_algorithm.name in (PRISM, PRISM_CAPTURED):
            return hook(original, verify_input, batch, *args, **options)
        return original(verify_input, batch, *args, **options)

    return wrapped


def _register_hook(target: str, hook: Callable[..., Any], kind: str) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(target, hook, HookType(kind))
