"""One table of everything that was asked, measured or not: what metrics, claims and drawings start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.acceptance import al_macro, al_micro, counts_of, without_rounds
from prism_ae.analysis.speed import times_of, totals, tps
from prism_ae.cells import Point, Sample
from prism_ae.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Measured:
    """A finished cell, as the store has it.

    Attributes:
        samples: one per question.
        wall_seconds, settings: of the engine's `Result`.
        finished: UTC, ISO 8601.
        device: in words.
    """

    cell_id: str
    samples: tuple[Sample, ...]
    wall_seconds: float
    settings: Mapping[str, Any]
    finished: str
    device: str


def build_frame(points: Iterable[Point], measured: Mapping[Point, Measured]) -> pd.DataFrame:
    """One row per point, in order.

    Columns: those of `Point` (``tree`` as text), ``measured`` (bool), and, missing where it is False: ``cell_id``,
    ``finished``, ``device``, ``wall_seconds``, ``without_rounds`` (questions), ``rounds``,
    ``accepted`` (drafts), ``generated_tokens``, ``al_macro``, ``al_micro``, ``counts`` (`metrics.Counts`),
    ``settings`` and, of cells whose time is measured, ``times`` (`timing.Times`) and ``tps`` (tokens per second).

    Raises:
        StoreError: samples that contradict themselves or what was asked; names the cell.
    """
    import pandas as pd

    rows = [_row(point, measured.get(point)) for point in points]
    columns = [*(field.name for field in dataclasses.fields(Point)), "measured", *_RESULT]
    return pd.DataFrame(rows, columns=columns, dtype=object).astype({"measured": bool})


_RESULT = (
    "cell_id",
    "finished",
    "device",
    "wall_seconds",
    "without_rounds",
    "rounds",
    "accepted",
    "generated_tokens",
    "al_macro",
    "al_micro",
    "counts",
    "settings",
    "times",
    "tps",
)


def _row(point: Point, result: Measured | None) -> dict[str, Any]:
    asked = {field.name: getattr(point, field.name) for field in dataclasses.fields(point)}
    asked["tree"] = str(point.tree) if point.tree else None
    if result is None:
        return asked | {"measured": False} | dict.fromkeys(_RESULT)
    try:
        return asked | {"measured": True} | _result(point, result)
    except ValueError as error:
        hint = "the engine that measured it is at fault; please report this"
        raise StoreError(f"cell {result.cell_id}: {error}", hint) from None


def _result(point: Point, result: Measured) -> dict[str, Any]:
    counts = counts_of(result.samples)
    if len(result.samples) != point.questions:
        raise ValueError(f"{len(result.samples)} questions were answered, {point.questions} were asked")
    if point.tree is not None and counts.histograms[:, point.tree.steps + 1 :].any():
        raise ValueError(f"more drafts were accepted in a round than the tree {point.tree} has steps")
    if point.tree is None and counts.rounds.any():
        raise ValueError("rounds were counted, but nothing drafts")
    times = None if point.batch is None else times_of(result.samples, result.wall_seconds, point.batch)
    return {
        "cell_id": result.cell_id,
        "finished": result.finished,
        "device": result.device,
        "wall_seconds": result.wall_seconds,
        "without_rounds": without_rounds(counts),
        "rounds": int(counts.rounds.sum()),
        "accepted": int(counts.accepted.sum()),
        "generated_tokens": int(counts.generated.sum()),
        "al_macro": al_macro(counts),
        "al_micro": al_micro(counts),
        "counts": counts,
        "settings": result.settings,
        "times": times,
        "tps": None if times is None else float(tps(totals(times))),
    }
