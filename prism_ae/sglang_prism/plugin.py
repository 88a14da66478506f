"""The plugin's entry point: registers the algorithms and the hooks, in every process of an SGLang server or engine.

Each hook wraps one function of the pinned SGLang version; a test compares the wrapped functions' signatures, so that another
version is noticed where it matters. With the plugin installed, a server that does not ask for PRISM behaves as before.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

from prism_ae.engines.registry import SGLANG_VERSION
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
    from prism_ae.sglang_prism.algorithm import register_algorithms

    register_algorithms()
    control.install()
    for target, hook, kind in hooks():
        _register_hook(target, hook, kind)


def hooks() -> list[Hook]:
    """Every wrapped function of SGLang: its path, the hook and the kind ("before", "after" or "around")."""
    from prism_ae.sglang_prism import control, drafting, registration, steps

    found = [*registration.HOOKS, *steps.HOOKS, *drafting.HOOKS, *control.HOOKS]
    if os.environ.get(CPU_VARIABLE) == "1":
        from prism_ae.sglang_prism import cpu

        cpu.install()
        found += cpu.HOOKS
    return found


def _register_hook(target: str, hook: Callable[..., Any], kind: str) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(target, hook, HookType(kind))
