"""What a cell's settings say of sizes and bandwidth (`execution.limit`), as sums over its rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from prism_ae.analysis.quantities import READS, Sums, rounds_or_steps

_VANILLA = {
    "bytes": "target_step_bytes",
    "parameters": "target_parameters",
    "active_parameters": "target_active_parameters",
    "target_parameters": "target_parameters",
}
_DRAFTED = _VANILLA | {
    "bytes": "round_bytes",
    "parameters": "drafter_parameters",
    "active_parameters": "drafter_active_parameters",
}
"""Name in `READS` -> key of the setting "sizes"."""


def with_reads(sums: Sums, settings: Mapping[str, Any]) -> Sums:
    """The sums with `Sums.reads`; NaN is what the settings do not say."""
    sizes = settings.get("sizes")
    sizes = sizes if isinstance(sizes, Mapping) else {}
    keys = _DRAFTED if "round_bytes" in sizes else _VANILLA
    rounds = rounds_or_steps(sums)
    found = {name: rounds * _number(sizes.get(key)) for name, key in keys.items()}
    found["readable_bytes"] = sums.decode_seconds * _number(settings.get("bandwidth"))
    return dataclasses.replace(sums, reads=np.stack([found[name] for name in READS], axis=-1))


def _number(value: Any) -> float:
    """A number from a log, which may hold anything."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value > 0 else math.nan
