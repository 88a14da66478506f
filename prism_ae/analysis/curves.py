"""A frame folded into the curves of a figure, every point with its bootstrap replicates.

Drawing and claims read the same curves, so a verdict under a figure is about exactly what the figure shows. A point
is an estimate only if every cell it needs was measured: a mean over five of six benchmarks is a hole, not a mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prism_ae.analysis.acceptance import Counts, Floats, acceptance_lengths, al_macro, al_micro, conditional_acceptance
from prism_ae.analysis.bootstrap import interval, mean_replicates, rate_replicates
from prism_ae.cells import TreeShape
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

Row = dict[Hashable, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A drawn number.

    Attributes:
        value: AL macro, or a conditional acceptance rate; a mean over benchmarks where the curve says so.
        bounds: 95 % interval, or None where it would mean nothing.
        replicates: [REPLICATES], for paired differences.
        question_ids: per benchmark, in order: only estimates over the same questions are compared as pairs.
        al_micro: of the same cells; None for a rate.
    """

    value: float
    bounds: tuple[float, float] | None
    replicates: Floats
    question_ids: tuple[tuple[str, ...], ...]
    al_micro: float | None


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """One place of a curve.

    Attributes:
        x: scale value, or draft position; label: the scale's name, or the position.
        estimate: None is a hole.
        asked: cells that the point needs; cell_ids: those that were measured.
        questions: with rounds, over all its benchmarks; without_rounds: those left out.
    """

    x: float
    label: str
    estimate: Estimate | None
    asked: int
    cell_ids: tuple[str, ...]
    questions: int
    without_rounds: int


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a figure; ``benchmark`` "" is the mean over the benchmarks that were asked."""

    target: str
    drafter: str
    temperature: float
    benchmark: str
    points: tuple[CurvePoint, ...]


def fold(frame: pd.DataFrame, experiment: Experiment, suite: Suite) -> tuple[Curve, ...]:
    """The curves of an experiment, in the order of the frame. ``frame`` is `build_frame` of the experiment's points."""
    values = {scale.name: scale.value for scale in suite.scales}
    keys = ("target", "drafter", "temperature", *(["benchmark"] if experiment.kind == "scaling-grid" else []))
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in frame.to_dict("records"):
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    curves = []
    for (target, drafter, temperature, *rest), rows in groups.items():
        if experiment.kind == "positions":
            steps = min(TreeShape.parse(row["tree"]).steps for row in rows)
            points = _positions(rows, min(experiment.look.positions or steps, steps))
        else:
            names = dict.fromkeys(row["scale"] for row in rows)
            points = tuple(_length([row for row in rows if row["scale"] == name], values[name], name) for name in names)
        curves.append(Curve(target, drafter, temperature, rest[0] if rest else "", points))
    return tuple(curves)


def _length(rows: Sequence[Row], x: float, label: str) -> CurvePoint:
    """Acceptance length at one scale: one row, or the mean over the rows' benchmarks."""
    cells = [row["counts"] for row in rows if row["measured"]]
    estimate = None
    if len(cells) == len(rows):
        replicates = [mean_replicates(acceptance_lengths(c), r["benchmark"]) for c, r in zip(cells, rows, strict=True)]
        micro = float(np.mean([al_micro(counts) for counts in cells]))
        estimate = _estimate([al_macro(counts) for counts in cells], replicates, cells, micro)
    return _point(x, label, estimate, rows)


def _positions(rows: Sequence[Row], positions: int) -> tuple[CurvePoint, ...]:
    """Conditional acceptance at each position: per benchmark pooled over its questions, then the mean over the rows."""
    cells = [row["counts"] for row in rows if row["measured"]]
    estimates: list[Estimate | None] = [None] * positions
    if len(cells) == len(rows):
        rates = [conditional_acceptance(counts.histograms.sum(axis=0), positions) for counts in cells]
        replicates = [
            rate_replicates(c.histograms, positions, r["benchmark"]) for c, r in zip(cells, rows, strict=True)
        ]
        estimates = [
            _estimate([float(rate[i]) for rate in rates], [each[:, i] for each in replicates], cells, None)
            for i in range(positions)
        ]
    return tuple(_point(i + 1, str(i + 1), estimate, rows) for i, estimate in enumerate(estimates))


def _estimate(
    values: Sequence[float], replicates: Sequence[Floats], cells: Sequence[Counts], micro: float | None
) -> Estimate | None:
    """The mean over benchmarks, None if it is undefined in any of them."""
    value = float(np.mean(values))
    if np.isnan(value):
        return None
    mean = np.mean(replicates, axis=0)
    fewest = min(int(np.count_nonzero(counts.rounds)) for counts in cells)
    return Estimate(value, interval(mean, fewest), mean, tuple(counts.question_ids for counts in cells), micro)


def _point(x: float, label: str, estimate: Estimate | None, rows: Sequence[Row]) -> CurvePoint:
    done = [row for row in rows if row["measured"]]
    without = sum(row["without_rounds"] for row in done)
    return CurvePoint(
        x=x,
        label=label,
        estimate=estimate,
        asked=len(rows),
        cell_ids=tuple(row["cell_id"] for row in done),
        questions=sum(len(row["counts"].question_ids) for row in done) - without,
        without_rounds=without,
    )
