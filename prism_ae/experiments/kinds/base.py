"""What every kind of figure has besides its facts: from results to values, to lines for claims, to a painter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from prism_ae.analysis.claims import Group, Line, Lines
from prism_ae.analysis.estimates import Estimate, Place, Summary, combine, summarise, unique
from prism_ae.analysis.paper_values import PaperCurve, PaperValue
from prism_ae.analysis.quantities import Quantity
from prism_ae.analysis.results import Results
from prism_ae.cells import Point
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.io.schema import record
from prism_ae.suites.records import Suite, TargetRecord


def al_means(*, micro: bool) -> str:
    """Which acceptance length it is."""
    if micro:
        return "AL: acceptance length (micro), generated tokens / rounds"
    return "AL: acceptance length (macro), mean over questions of accepted drafts per round + 1"


@record
class Kind(Experiment):
    """An experiment that can be summarised, judged and drawn.

    Attributes:
        quantities: what is summarised.
        benchmarks_drawn: each benchmark, the mean over them, or both.
        axis: the field of `Place` that the x axis, and an x of the paper's values, is.
        same_texts_among: what may not change a text.
        paper_layer: how the paper's values look, in words.
        keeps_unpublished: a drafter that no checkpoint was published of is drawn as missing, not left out.
    """

    quantities: ClassVar[tuple[Quantity, ...]]
    benchmarks_drawn: ClassVar[Literal["each", "mean", "both"]] = "mean"
    axis: ClassVar[str]
    same_texts_among: ClassVar[str] = "drafters, draft trees and batch sizes"
    paper_layer: ClassVar[str] = "Grey"
    keeps_unpublished: ClassVar[bool] = False

    def acceptance_length(self, options: Options) -> str:
        """The name of the quantity "al": what was asked for, else as the paper counts, in time's tables and figures
        micro, elsewhere macro."""
        return f"al_{options.al or ('micro' if self.timed else 'macro')}"

    def check_drawable(self, points: Iterable[Point]) -> None:
        """Raises UsageError for what no drawing of this kind can show: refused before it is measured, not after."""

    def summarise(self, results: Results) -> tuple[Summary, ...]:
        """Every value, in the order drawn."""
        return summarise(results, self.quantities, self.benchmarks_drawn)

    def x(self, place: Place, suite: Suite) -> Any:
        """Where a value stands on the x axis."""
        return getattr(place, self.axis)

    def paper_x(self, curve: PaperCurve, x: float) -> tuple[str | None, Any]:
        """The benchmark (None is the mean) and the x of `Kind.x` that an x of the paper's values stands for."""
        return curve.benchmark or None, x

    def means(self, *, micro: bool) -> list[str]:
        """What the numbers are, in sentences for the caption; ``micro``: acceptance lengths are micro."""
        raise NotImplementedError

    def painter(self, material: Material) -> Painter:
        """What is drawn between title and small print."""
        raise NotImplementedError

    def judged(self, results: Results, quantity: Quantity) -> tuple[Summary, ...]:
        """What claims are about: each benchmark and the mean over them."""
        return summarise(results, [quantity], "both")

    def lines(self, summaries: Iterable[Summary], quantity: Quantity, suite: Suite) -> Lines:
        """What was measured, as claims compare it."""
        lines: dict[Group, dict[str, dict[Any, Estimate | None]]] = {}
        for summary in summaries:
            place = summary.place
            group = Group(place.target, place.temperature, place.benchmark, place.drafting)
            x = self.x(place, suite)
            value = summary.values.get(quantity.name)
            if value is None and len(summary.cell_ids) == summary.asked:
                value = Estimate(math.nan)  # undefined, or not comparable: measuring again would not help
            lines.setdefault(group, {}).setdefault(place.drafter, {})[0.0 if x is None else x] = value
        return self._as_lines(lines)

    def paper_lines(self, quantity: str, *, rerun: bool) -> Lines:
        """The paper's own values, or those of the authors' later run, as claims compare them; targets are roles.

        Where the benchmarks are known one by one, their mean is made of them. A speed-up is TPS / vanilla's TPS.
        """
        if quantity == "speed_up" and self.about == "tps":
            return self._paper_speed_ups(self.paper_lines("tps", rerun=rerun))
        lines: dict[Group, dict[str, dict[Any, Estimate | None]]] = {}
        for curve in self.paper.values:
            if (curve.quantity or self.about, curve.rerun) == (quantity, rerun):
                for number, known in self.paper.points(curve):
                    benchmark, x = self.paper_x(curve, number)
                    group = Group(curve.role, curve.temperature, benchmark)
                    lines.setdefault(group, {}).setdefault(curve.drafter, {})[0.0 if x is None else x] = Estimate(known)
        means: dict[Group, dict[str, dict[Any, Estimate | None]]] = {}
        for role, temperature in unique((group.target, group.temperature) for group in lines):
            groups = [Group(role, temperature, benchmark) for benchmark in self.cells.benchmarks]
            found = [lines.get(group, {}) for group in groups]
            for drafter in [name for name in found[0] if all(name in each for each in found)]:
                for x in [x for x in found[0][drafter] if all(x in each[drafter] for each in found)]:
                    several = [value for each in found if (value := each[drafter][x]) is not None]
                    mean = combine(lambda values: float(np.mean(values)), several)
                    means.setdefault(Group(role, temperature, None), {}).setdefault(drafter, {})[x] = mean
        return self._as_lines(lines | means)

    def _paper_speed_ups(self, tps: Lines) -> Lines:
        ratios: dict[Group, dict[str, dict[Any, Estimate | None]]] = {}
        for group, drafters in tps.items():
            for name, line in drafters.items() if "vanilla" in drafters else ():
                for x, own in line.values.items():
                    plain = drafters["vanilla"].values.get(x)
                    if own is not None and plain is not None:
                        ratio = combine(lambda values: float(values[0] / values[1]), [own, plain])
                        ratios.setdefault(group, {}).setdefault(name, {})[x] = ratio
        return self._as_lines(ratios)

    def _as_lines(self, lines: Mapping[Group, Mapping[str, Mapping[Any, Estimate | None]]]) -> Lines:
        return {
            group: {name: Line(values, log=self.axis in ("scale", "batch")) for name, values in drafters.items()}
            for group, drafters in lines.items()
        }


def paper_values(
    experiment: Kind, suite: Suite, summaries: Sequence[Summary], drafters: Iterable[str]
) -> tuple[PaperValue, ...]:
    """The paper's values at places of ``summaries``, of all ``drafters`` that were asked for.

    None for a target that takes several of the roles: the paper has a value for each.
    """
    targets = {
        taken[0]: target.name for target in suite.targets.values() if len(taken := roles_taken(experiment, target)) == 1
    }
    asked = unique(drafters)
    places = {
        (place.target, drafter, place.temperature, place.benchmark, experiment.x(place, suite))
        for place in (summary.place for summary in summaries)
        for drafter in ((place.drafter,) if experiment.keeps_unpublished else asked)
    }
    found = []
    for curve in experiment.paper.values:
        for number, value in experiment.paper.points(curve):
            benchmark, x = experiment.paper_x(curve, number)
            place = (targets.get(curve.role, ""), curve.drafter, curve.temperature, benchmark, x)
            if place in places:
                quantity = curve.quantity or experiment.about
                found.append(PaperValue(*place, quantity=quantity, value=value, rerun=curve.rerun))
    return tuple(found)


def roles_taken(experiment: Kind, target: TargetRecord) -> list[str]:
    """The roles that an experiment asks for and that one target fills."""
    return [role for role in experiment.cells.roles if role in target.roles]


def as_in_the_paper(experiment: Kind, suite: Suite, results: Results) -> bool:
    """Whether the paper's values are of what was asked: its benchmarks where they are means, its trees, its batches.

    A mean over other benchmarks, or with another draft tree, is something else, and the paper's beside it would
    mislead.
    """
    points = [point for point in results.points if suite.drafters[point.drafter].kind != "lookup"]  # not the paper's
    means = experiment.benchmarks_drawn == "mean"
    same = not means or {point.benchmark for point in points} == set(experiment.cells.benchmarks)
    trees = {point.tree for point in points if point.tree}
    own = trees if experiment.trees else set(experiment.own_trees(suite))
    batches = experiment.several_batches or {point.batch for point in points} == set(experiment.batches or (None,))
    return same and batches and trees <= own
