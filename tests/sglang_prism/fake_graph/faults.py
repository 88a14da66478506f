"""Mistakes that a plugin could make, and that eager drafting never brings to light."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

COUNTED = "counted"
"""The draft step is counted instead of read from the forward context."""

ASKED = "asked"
"""The draft step is right, and the device is asked for a number on the way."""

_passes = 0
_right: Callable[[Any], int] | None = None


def begin_round(*args: Any, **options: Any) -> None:
    """Before the draft worker drafts, eagerly or by a graph; a capture does not come by here."""
    global _passes
    _passes = 0


def apply(fault: str) -> None:
    """Make this mistake, or with "" none, from now on; captured graphs stay as they are."""
    global _right
    models: Any = importlib.import_module("prism_ae.sglang_prism.models")
    right: Callable[[Any], int] = _right or models.draft_step
    _right = right
    models.draft_step = {"": right, COUNTED: _counted, ASKED: _asked}[fault]


def _counted(forward_batch: Any) -> int:
    """As many passes as there were since the round began: right as long as every pass is Python's."""
    global _passes
    if not forward_batch.forward_mode.is_decode():
        return 0
    _passes += 1
    return _passes


def _asked(forward_batch: Any) -> int:
    assert _right is not None
    return _right(forward_batch) if forward_batch.positions.max() >= 0 else 0
