"""Results summarised: one value with its interval per place and quantity, whatever the quantity is.

Drawings and claims read the same summaries, so a verdict is about exactly what a figure shows. A value exists only if
every cell it needs was measured: a mean over five of six benchmarks is a missing value, not a mean. Over several
training seeds it is the mean of the seeds' values. A ratio to vanilla decoding needs the vanilla cell of everything
that is alike (`_ALIKE`), measured on the same device with the same attention kernels. No value is over cells of two
checkpoints of the target or of two versions of the engine.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from prism_ae.analysis.intervals import Error, Factor, Factors, combined, error_of, question_freedom
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
        factors: None where no interval can be given (a value of the paper, a ratio whose two sides answered other
            questions).
        cell_ids: what it was made of.
        seeds: trainings behind it, the fewest of its parts.
        repeats: how often its times were measured, the fewest of its parts; None where it is not made of time.
        unstable: of ``cell_ids``, those whose times hang on one of their measurements (`STABLE`).
    """

    value: float
    factors: Factors | None = None
    cell_ids: tuple[str, ...] = ()
    seeds: int = 1
    repeats: int | None = None
    unstable: tuple[str, ...] = ()

    @functools.cached_property
    def error(self) -> Error | None:
        """The standard error; None where there are too few questions for one."""
        return error_of(self.factors)

    @functools.cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval, None where it would mean nothing."""
        return None if self.error is None else self.error.interval(self.value)

    def minus(self, other: Estimate) -> Estimate:
        """The difference, paired where the two answered the same questions."""
        return combine(lambda values: values[0] - values[1], [self, other])


def combine(function: Callable[[Floats], float], estimates: Sequence[Estimate]) -> Estimate:
    """The value of a smooth function of several estimates, paired where they share units.

    Deviations follow by the function's gradient (the delta method), taken as a central difference: exact for sums, to
    about ten digits otherwise.
    """
    values = np.array([each.value for each in estimates])
    parts: list[tuple[float, Factors | None]] = []
    for number, each in enumerate(estimates):
        step = 1e-5 * max(1.0, abs(each.value))
        moved = np.zeros(len(values))
        moved[number] = step
        slope = (function(values + moved) - function(values - moved)) / (2 * step)
        parts.append((slope, each.factors))
    ids = unique(cell_id for each in estimates for cell_id in each.cell_ids)
    unstable = unique(cell_id for each in estimates for cell_id in each.unstable)
    return Estimate(
        float(function(values)),
        combined(parts),
        tuple(ids),
        seeds=min(each.seeds for each in estimates),
        repeats=min((each.repeats for each in estimates if each.repeats is not None), default=None),
        unstable=tuple(unstable),
    )


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
        unstable: cells whose times hang on one of their measurements; repeats: how often times were measured.
        questions: with rounds, over its benchmarks; without_rounds: those left out of the acceptance length.
        overshoot: tokens that were committed behind the answers' ends.
    """

    place: Place
    values: Mapping[str, Estimate]
    asked: int
    cell_ids: tuple[str, ...]
    vanilla_ids: tuple[str, ...]
    unstable: int
    repeats: int
    questions: int
    without_rounds: int
    overshoot: int

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
        for benchmark in unique(point.benchmark for point in points) if benchmarks == "both" else ():
            own = [point for point in points if point.benchmark == benchmark]
            one = dataclasses.replace(place, benchmark=benchmark)
            summaries.append(_summary(one, own, plain, results, quantities))
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
    cells = [results.cells[point] for point in points if point in results.cells]
    alike = [plain.get(_ALIKE(cell.point)) for cell in cells]
    base = [results.cells[point] for point in alike if point is not None and point in results.cells]
    complete = len(cells) == len(points) and len({cell.checkpoint for cell in cells}) == 1
    comparable = complete and [cell.setting for cell in base] == [cell.setting for cell in cells]
    repeated, alike_repeated = (not any(cell.lacks_repeats for cell in side) for side in (cells, base))
    wanted = [quantity for quantity in quantities if quantity.applies(vanilla=place.tree is None)]
    values = {
        quantity.name: _over_trainings(quantity, cells, base)
        for quantity in wanted
        if complete
        and (quantity.over_vanilla is None or (comparable and alike_repeated))
        and (repeated or not quantity.timed)
    }
    ids = tuple(cell_id for cell in cells for cell_id in cell.cell_ids)
    without = 0 if place.tree is None else sum(cell.columns.without_rounds for cell in cells)
    return Summary(
        place=place,
        values={name: value for name, value in values.items() if value is not None},
        asked=len(points) + sum(len(results.repeats.get(point, ())) for point in points),
        cell_ids=ids,
        vanilla_ids=tuple(cell_id for cell in base for cell_id in cell.cell_ids) if comparable else (),
        unstable=sum(not stable(cell) for cell in cells),
        repeats=min((1 + len(cell.repeats) for cell in cells), default=0),
        questions=sum(len(cell.columns.question_ids) for cell in cells) - without,
        without_rounds=without,
        overshoot=sum(int(cell.columns.overshoot.sum()) for cell in cells),
    )


STABLE = 0.03
"""The spread of a cell's times (`CellResult.spread`) up to which it counts as stable: what is claimed of speeds is a
few percent, too."""


def stable(cell: CellResult) -> bool:
    """Whether the cell's times spread no further than `STABLE`; of one measurement nothing is known against it."""
    return cell.spread is None or cell.spread <= STABLE


def _over_trainings(quantity: Quantity, cells: Sequence[CellResult], base: Sequence[CellResult]) -> Estimate | None:
    """The mean over training seeds; None where the value of one is undefined."""
    found: dict[int, Estimate] = {}
    for seed in unique(cell.point.training_seed for cell in cells):
        mine = [number for number, cell in enumerate(cells) if cell.point.training_seed == seed]
        plain = [base[number] for number in mine] if len(base) == len(cells) else []
        value = _estimate(quantity, [cells[number] for number in mine], plain)
        if value is None:
            return None
        found[seed] = value
    return over_seeds(found, cells[0].point.target)


def _estimate(quantity: Quantity, cells: Sequence[CellResult], base: Sequence[CellResult]) -> Estimate | None:
    """Over the cells of one training; None where the value is undefined."""
    value = float(_value(quantity, [cell.total for cell in cells], [cell.total for cell in base]))
    if np.isnan(value):
        return None
    every = (*cells, *base) if quantity.over_vanilla else tuple(cells)
    estimate = Estimate(value, None, tuple(cell.measured.cell_id for cell in cells))
    if quantity.timed:
        ids = tuple(cell_id for cell in cells for cell_id in cell.cell_ids)
        unstable = tuple(cell_id for cell in every if not stable(cell) for cell_id in cell.cell_ids)
        repeats = min(1 + len(cell.repeats) for cell in every)
        estimate = Estimate(value, None, ids, repeats=repeats, unstable=unstable)
    asked, alike = ([cell.columns.question_ids for cell in side] for side in (cells, base))
    if quantity.over_vanilla is not None and asked != alike:
        return estimate
    factors = {}
    for number, cell in enumerate(cells):

        def without(one: Callable[[CellResult], Sums], count: int, number: int = number) -> Floats:
            """Deviations [count] of the value without each of this cell's units, all of the others."""
            own, plain = (
                [one(each) if place == number else each.total for place, each in enumerate(side)]
                for side in (cells, base)
            )
            return (count - 1) * (value - np.broadcast_to(_value(quantity, own, plain), count))

        units = cell.columns.question_ids
        deviations = without(lambda each: each.without_each, len(units))
        factors[f"questions of {cell.point.benchmark}"] = Factor.of(units, deviations, question_freedom(cell.questions))
        if quantity.timed and cell.repeats:
            count = 1 + max(len(side[number].repeats) for side in (cells, base) if side)
            deviations = without(operator.methodcaller("without_each_repeat", count), count)
            factors[_block(cell.point)] = Factor.of(tuple(map(str, range(count))), deviations, count - 1)
    return dataclasses.replace(estimate, factors=factors)


def _block(point: Point) -> str:
    """What is measured in one go with other methods, repeat by repeat: their times are paired within it."""
    return f"times of {point.target}, {point.benchmark}, T = {point.temperature:g}, batch {point.batch}"


def over_seeds(estimates: Mapping[int, Estimate], target: str) -> Estimate:
    """The mean over training seeds, which are a factor of its interval; of one seed just its estimate."""
    several = list(estimates.values())
    if len(several) == 1:
        return several[0]
    mean = combine(lambda values: float(np.mean(values)), several)
    apart = np.array([each.value - mean.value for each in several])
    seeds = Factor.of(tuple(str(seed) for seed in estimates), apart, len(several) - 1)
    factors = None if mean.factors is None else {**mean.factors, f"training on {target}": seeds}
    return dataclasses.replace(mean, factors=factors, seeds=len(several))


def _value(quantity: Quantity, cells: Sequence[Sums], base: Sequence[Sums]) -> Floats:
    """Of several cells: the mean of their values, or the value of their sums."""
    if quantity.over_vanilla is not None:
        return quantity.over_vanilla(lambda own: _value(own, cells, ()), lambda plain: _value(plain, base, ()))
    assert quantity.formula is not None
    if quantity.pooled:
        return quantity.formula(functools.reduce(operator.add, cells))
    values = np.broadcast_arrays(*(quantity.formula(sums) for sums in cells))
    return np.mean(np.asarray(values, dtype=np.float64), axis=0)


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))
