"""What a hook is: the path of a function of SGLang, ours, and when ours runs ("before", "after" or "around" it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = tuple[str, Callable[..., Any], str]
