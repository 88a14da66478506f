"""What was drawn of an experiment that measures time, as rows: its .csv, and part of its .json.

A ratio never stands alone: beside it are the two values that it divides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_ae.analysis.entries import QUANTITIES, Entry
from prism_ae.analysis.paper_values import Reference
from prism_ae.drawing.style import SeriesStyle

COLUMNS = (
    "layer",
    "target",
    "benchmark",
    "drafter",
    "label",
    "temperature",
    "drafting",
    "tree",
    "batch",
    *(f"{name}{part}" for name in QUANTITIES for part in ("", "_low", "_high")),
    "vanilla_tps",
    "vanilla_decode_tps",
    "vanilla_step_seconds",
    "questions",
    "questions_without_rounds",
    "cells_asked",
    "cells_measured",
    "cell_ids",
    "vanilla_cell_ids",
)
"""``layer`` is "measured", "paper" or "artifact re-run"; ``benchmark`` "mean" is that over those asked; an empty value
is a hole, or not defined; ``_low`` and ``_high`` bound the 95 % interval over questions; speed_up = tps / vanilla_tps,
decode_speed_up = tokens_per_round / round_cost, round_cost = round_seconds / vanilla_step_seconds."""


def timed_rows(
    entries: Sequence[Entry], known: Sequence[Reference], styles: Mapping[str, SeriesStyle]
) -> list[dict[str, Any]]:
    """One row per entry, holes included, then one per number of the paper."""
    table: list[dict[str, Any]] = []
    for entry in entries:
        row: dict[str, Any] = {
            "layer": "measured",
            "target": entry.target,
            "benchmark": entry.benchmark or "mean",
            "drafter": entry.drafter,
            "label": styles[entry.drafter].label,
            "temperature": entry.temperature,
            "drafting": "" if entry.vanilla else entry.drafting,
            "tree": entry.tree,
            "batch": entry.batch,
        }
        for name, estimate in entry.values.items():
            low, high = estimate.bounds or (None, None)
            row |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
        row |= {f"vanilla_{name}": value for name, value in entry.baseline.items()}
        row |= {
            "questions": entry.questions,
            "questions_without_rounds": entry.without_rounds,
            "cells_asked": entry.asked,
            "cells_measured": len(entry.cell_ids),
            "cell_ids": " ".join(entry.cell_ids),
            "vanilla_cell_ids": " ".join(entry.baseline_ids),
        }
        table.append(row)
    for each in known:
        name = "al_micro" if each.quantity == "al" else each.quantity
        table.append(
            {
                "layer": "artifact re-run" if each.rerun else "paper",
                "target": each.target,
                "benchmark": each.benchmark or "mean",
                "drafter": each.drafter,
                "label": styles[each.drafter].label,
                "temperature": each.temperature,
                "tree": each.tree,
                "batch": each.batch,
                name: each.value,
            }
        )
    return table
