"""What a tuning found, as text for people, as data, and as files. Pure, but for `write`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_ae.errors import StoreError
from prism_ae.io.atomic import atomic_write_all
from prism_ae.io.paths import why_not
from prism_ae.io.words import pluralise, table
from prism_ae.tuning.cost import TERMS
from prism_ae.tuning.curve import as_pdf
from prism_ae.tuning.points import Setting
from prism_ae.tuning.tune import TimedTree, Tuned


def as_lines(setting: Setting, tuned: Tuned, options: str) -> list[str]:
    """The trees of the finals, the best one's batch sizes, where drafting stops paying, the server's options.

    Args:
        options: of the server, for the best tree.
    """
    best = tuned.best
    looked = f"{len(tuned.lengths)} of {pluralise(tuned.candidates, 'draft tree')} looked at"
    return [
        f"{looked}; the best of them, timed at batch {best.batch} on {tuned.device}:",
        *_table("draft tree", [(str(timed.tree), timed) for timed in tuned.finals]),
        "",
        f"draft tree {best.tree} at each batch size:",
        *_table("batch", [(str(timed.batch), timed) for timed in tuned.curve]),
        "",
        verdict(tuned),
        options if best.speed_up > 1 else f"no drafts are faster; the best tree's options: {options}",
    ]


def _table(first: str, rows: Sequence[tuple[str, TimedTree]]) -> list[str]:
    head = (first, "tokens/round", "round cost", "speed-up", "of the blocks", "tokens/s", "without drafts")
    return table([head, *((name, *_row(timed)) for name, timed in rows)], "  ")


def _row(timed: TimedTree) -> tuple[str, ...]:
    low, high = timed.spread
    speeds = f"{timed.tps:,.1f}", f"{timed.vanilla_tps:,.1f}"
    return (
        f"{timed.tokens_per_round:.2f}",
        f"{timed.cost:.2f}",
        f"{timed.speed_up:.2f}×",
        f"{low:.2f}–{high:.2f}",
        *speeds,
    )


def verdict(tuned: Tuned) -> str:
    """From which batch size on drafting does not pay."""
    first, last = tuned.curve[0].batch, tuned.curve[-1].batch
    where = tuned.pays_below
    if where is None:
        return f"drafting pays at batch {first}" + (f" and at every batch size up to {last}" if last > first else "")
    if where <= first:
        return f"drafting does not pay, not even at batch {first}"
    return f"drafting pays below a batch of about {where:.0f}"


def as_data(setting: Setting, tuned: Tuned, options: str) -> dict[str, Any]:
    """The same for programs; seconds, and tokens per second."""
    return {
        "suite": setting.suite.name,
        "target": setting.target,
        "drafter": setting.drafter,
        "scale": setting.scale,
        "engine": setting.engine,
        "device": tuned.device,
        "dtype": setting.dtype,
        "temperature": setting.temperature,
        "benchmarks": list(setting.benchmarks),
        "questions": setting.questions,
        "tree": str(tuned.best.tree),
        "options": options,
        "finals": [_as_data(timed) for timed in tuned.finals],
        "batches": [_as_data(timed) for timed in tuned.curve],
        "does_not_pay_from_batch": tuned.pays_below,
        "tokens_per_round": {str(tree): length for tree, length in tuned.lengths.items()},
        "candidates": tuned.candidates,
        "cost_model": {
            "prices": dict(zip(TERMS, map(float, tuned.model.prices), strict=True)),
            "largest_relative_error": tuned.model.error,
        },
        "cells": [cell.measured.cell_id for cell in tuned.results.done],
    }


def _as_data(timed: TimedTree) -> dict[str, Any]:
    return {
        "tree": str(timed.tree),
        "batch": timed.batch,
        "tokens_per_round": timed.tokens_per_round,
        "round_seconds": timed.rounds,
        "step_seconds": timed.steps,
        "round_cost": timed.cost,
        "speed_up": timed.speed_up,
        "speed_up_of_blocks": timed.spread,
        "tps": timed.tps,
        "vanilla_tps": timed.vanilla_tps,
    }


def write(folder: Path, setting: Setting, tuned: Tuned, options: str) -> list[Path]:
    """Write <target>-<drafter>[-<scale>] as .pdf (the curve), .csv (a row per cell and quantity) and .json.

    Raises:
        StoreError: the folder cannot be written.
    """
    name = "-".join(filter(None, [setting.target, setting.drafter, setting.scale]))
    title = f"{setting.suite.drafters[setting.drafter].label}, {setting.suite.targets[setting.target].label}"
    small = (
        f"Draft tree {tuned.best.tree}, T = {setting.temperature:g}; {setting.engine} in {setting.dtype}.",
        f"{tuned.device}.",
        f"{verdict(tuned).capitalize()}. Bars: slowest and fastest of {len(tuned.best.rounds)} blocks.",
    )
    files = {
        folder / f"{name}.pdf": as_pdf(tuned.curve, f"{title}: speed-up by batch size", small),
        folder / f"{name}.csv": tuned.results.table().to_csv(index=False).encode(),
        folder / f"{name}.json": (json.dumps(as_data(setting, tuned, options), indent=1) + "\n").encode(),
    }
    try:
        atomic_write_all(files)
    except OSError as error:
        path = Path(error.filename or folder)
        raise StoreError(
            f"cannot write {path}: {why_not(error, path)}", "choose another folder with --out; measurements are kept"
        ) from error
    return list(files)
