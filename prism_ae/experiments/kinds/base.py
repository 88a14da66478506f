"""What every kind of figure has besides its facts: from results to values, to lines for claims, to a painter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

from prism_ae.analysis.claims import Claim, Layers, TreeClaim, Verdict, judge
from prism_ae.analysis.estimates import Estimate, Place, Summary, summarise, unique
from prism_ae.analysis.paper_values import PaperCurve, PaperValue
from prism_ae.analysis.quantities import Quantity
from prism_ae.analysis.results import Results
from prism_ae.cells import Point
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.records import Experiment
from prism_ae.io.schema import record
from prism_ae.suites.records import Suite


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

    def judged(self, summaries: Iterable[Summary]) -> Iterator[Summary]:
        """Those that claims are about: what is drawn."""
        yield from summaries

    def verdicts(self, material: Material, known: Sequence[PaperValue]) -> tuple[Verdict, ...]:
        """A verdict for each claim whose series were asked for together; ``known`` are the paper's values."""
        found = [judge(claim, self._layers(claim, material, known)) for claim in self.all_claims.values()]
        return tuple(verdict for verdict in found if verdict is not None)

    def _layers(self, claim: Claim | TreeClaim, material: Material, known: Sequence[PaperValue]) -> Layers:
        quantity = claim.quantity or self.about
        places = [(summary.place, summary) for summary in self.judged(material.summaries)]
        measured = [
            (place, self.x(place, material.suite), material.value(summary, quantity)) for place, summary in places
        ]
        layers: list[dict[Any, Any]] = [_lines(claim, measured)]
        for rerun in (False, True):
            mine = [each for each in known if (each.quantity, each.rerun) == (quantity, rerun)]
            values: list[tuple[Any, Any, Estimate | None]] = [(each, each.x, Estimate(each.value)) for each in mine]
            if quantity == "speed_up":  # vanilla decoding is 1 by definition
                plain = [dataclasses.replace(each, drafter="vanilla") for each in mine]
                values += [(each, each.x, Estimate(1.0)) for each in plain]
            layers.append(_lines(claim, values))
        return Layers(*layers)


def _lines(
    claim: Claim | TreeClaim, values: Iterable[tuple[Any, Any, Estimate | None]]
) -> dict[Any, dict[Any, dict[float, Estimate | None]]]:
    """Values as the lines that a claim compares: of drafters, or of one drafter's trees."""
    lines: dict[Any, dict[Any, dict[float, Estimate | None]]] = {}
    for place, x, value in values:
        if isinstance(claim, TreeClaim):
            if x is not None:
                lines.setdefault((place.target, place.drafter, place.temperature), {}).setdefault(x, {})[0.0] = value
        else:
            group = lines.setdefault((place.target, place.benchmark, place.temperature), {})
            group.setdefault(place.drafter, {})[float(x or 0)] = value
    return lines


def paper_values(
    experiment: Kind, suite: Suite, summaries: Sequence[Summary], drafters: Iterable[str]
) -> tuple[PaperValue, ...]:
    """The paper's values at places of ``summaries``, of all ``drafters`` that were asked for."""
    targets = {target.role: target.name for target in suite.targets.values()}
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


def as_in_the_paper(experiment: Kind, suite: Suite, results: Results) -> bool:
    """Whether the paper's values are of what was asked: its benchmarks where they are means, its trees, its batches.

    A mean over other benchmarks, or with another draft tree, is something else, and the paper's beside it would
    mislead.
    """
    points = results.points
    means = experiment.benchmarks_drawn == "mean"
    same = not means or {point.benchmark for point in points} == set(experiment.cells.benchmarks)
    trees = {point.tree for point in points if point.tree}
    own = trees if experiment.trees else set(experiment.own_trees(suite))
    batches = experiment.several_batches or {point.batch for point in points} == set(experiment.batches or (None,))
    return same and batches and trees <= own
