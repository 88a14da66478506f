"""Results summarised: one value with its interval per place and quantity, whatever the quantity is.

Drawings and claims read the same summaries, so a verdict under a figure is about exactly what the figure shows. A value
exists only if every cell it needs was measured: a mean over five of six benchmarks is a missing value, not a mean. A
ratio to vanilla decoding needs the vanilla cell of everything that is alike (`_ALIKE`), measured on the same device
with the same attention kernels.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from prism_ae.analysis.bootstrap import interval
from prism_ae.analysis.quantities import Floats, Quantity, Sums
from prism_ae.analysis.results import CellResult, Results
from prism_ae.cells import Point, TreeShape

_ALIKE = operator.attrgetter(
    "suite", "target", "benchmark", "temperature", "engine", "batch", "questions", "max_new_tokens", "max_length",
    "seed", "dtype", "compat",
)  # fmt: skip
"""What a cell shares with the vanilla cell that it is compared with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A value with what its interval follows from.

    Attributes:
        replicates: [REPLICATES], None where no interval can be given (a value of the paper, or a ratio whose two sides
            answered other questions).
        question_ids: per benchmark, in order: only estimates over the same questions are compared as pairs.
        questions: resampled, the fewest of its benchmarks.
    """

    value: float
    replicates: Floats | None = None
    question_ids: tuple[tuple[str, ...], ...] = ()
    questions: int = 0

    @functools.cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval, None where it would mean nothing."""
        return None if self.replicates is None else interval(self.replicates, self.questions)

    def minus(self, other: Estimate) -> Estimate:
        """The difference, paired; without an interval where the two have none or answered other questions."""
        value = self.value - other.value
        if self.bounds is None or other.bounds is None or self.question_ids != other.question_ids:
            return Estimate(value)
        assert self.replicates is not None
        assert other.replicates is not None
        fewest = min(len(questions) for questions in self.question_ids)
        return Estimate(value, self.replicates - other.replicates, self.question_ids, fewest)

    def scaled(self, factor: float) -> Estimate:
        """``factor`` times this."""
        replicates = None if self.replicates is None else factor * self.replicates
        return dataclasses.replace(self, value=factor * self.value, replicates=replicates)


@dataclasses.dataclass(frozen=True)
class Place:
    """What a value is of. ``benchmark`` None is the mean over those that were asked; ``position`` a draft position."""

    target: str
    drafter: str
    temperature: float
    benchmark: str | None = None
    scale: str | None = None
    drafting: str = "exact"
    tree: TreeShape | None = None
    batch: int | None = None
    position: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """What was measured at one place.

    Attributes:
        values: by the quantity's name; what is not there is missing, or undefined (vanilla decoding has no rounds).
        asked: cells it needs; cell_ids: those measured; vanilla_ids: those that its ratios are over.
        questions: with rounds, over its benchmarks; without_rounds: those left out of the acceptance length.
    """

    place: Place
    values: Mapping[str, Estimate]
    asked: int
    cell_ids: tuple[str, ...]
    vanilla_ids: tuple[str, ...]
    questions: int
    without_rounds: int

    @property
    def vanilla(self) -> bool:
        return self.place.tree is None


def summarise(
    results: Results,
    quantities: Sequence[Quantity],
    benchmarks: Literal["each", "mean", "both"] = "mean",
    position: int | None = None,
) -> tuple[Summary, ...]:
    """A summary per place, in the order of the points: each benchmark, the mean over them, or each before the mean.

    Args:
        position: of quantities of one draft position.
    """
    plain = {_ALIKE(point): point for point in results.points if point.tree is None}
    groups: dict[Place, list[Point]] = {}
    for point in results.points:
        groups.setdefault(_place(point, point.benchmark if benchmarks == "each" else None, position), []).append(point)
    summaries = []
    for place, points in groups.items():
        for point in points if benchmarks == "both" else ():
            one = dataclasses.replace(place, benchmark=point.benchmark)
            summaries.append(_summary(one, [point], plain, results, quantities))
        summaries.append(_summary(place, points, plain, results, quantities))
    return tuple(summaries)


def _place(point: Point, benchmark: str | None, position: int | None) -> Place:
    return Place(
        target=point.target,
        drafter=point.drafter,
        temperature=point.temperature,
        benchmark=benchmark,
        scale=point.scale,
        drafting=point.drafting,
        tree=point.tree,
        batch=point.batch,
        position=position,
    )


def _summary(
    place: Place,
    points: Sequence[Point],
    plain: Mapping[Any, Point],
    results: Results,
    quantities: Sequence[Quantity],
) -> Summary:
    found = [results.cells.get(point) for point in points]
    cells = [cell for cell in found if cell is not None]
    alike = [plain.get(_ALIKE(point)) for point in points]
    base = [results.cells[point] for point in alike if point is not None and point in results.cells]
    complete = len(cells) == len(points)
    comparable = complete and [cell.hardware for cell in base] == [cell.hardware for cell in cells]
    wanted = [quantity for quantity in quantities if quantity.applies(vanilla=place.tree is None)]
    values = {
        quantity.name: _estimate(quantity, cells, base)
        for quantity in wanted
        if complete and (comparable or quantity.over_vanilla is None)
    }
    without = 0 if place.tree is None else sum(cell.columns.without_rounds for cell in cells)
    return Summary(
        place=place,
        values={name: value for name, value in values.items() if value is not None},
        asked=len(points),
        cell_ids=tuple(cell.measured.cell_id for cell in cells),
        vanilla_ids=tuple(cell.measured.cell_id for cell in base) if comparable else (),
        questions=sum(len(cell.columns.question_ids) for cell in cells) - without,
        without_rounds=without,
    )


def _estimate(quantity: Quantity, cells: Sequence[CellResult], base: Sequence[CellResult]) -> Estimate | None:
    """None where the value is undefined."""
    ids = tuple(cell.columns.question_ids for cell in cells)
    paired = quantity.over_vanilla is None or ids == tuple(cell.columns.question_ids for cell in base)
    value, replicates = (
        _value(quantity, [sums(cell) for cell in cells], [sums(cell) for cell in base]) for sums in (_total, _resampled)
    )
    if np.isnan(value):
        return None
    return Estimate(float(value), replicates if paired else None, ids, min(cell.questions for cell in cells))


_total: Callable[[CellResult], Sums] = operator.attrgetter("total")
_resampled: Callable[[CellResult], Sums] = operator.attrgetter("resampled")


def _value(quantity: Quantity, cells: Sequence[Sums], base: Sequence[Sums]) -> Floats:
    """Of several cells: the mean of their values, or the value of their sums."""
    if quantity.over_vanilla is not None:
        return quantity.over_vanilla(lambda own: _value(own, cells, ()), lambda plain: _value(plain, base, ()))
    assert quantity.formula is not None
    if quantity.pooled:
        return quantity.formula(functools.reduce(operator.add, cells))
    return np.mean(np.asarray([quantity.formula(sums) for sums in cells], dtype=np.float64), axis=0)


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))
