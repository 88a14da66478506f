"""The kinds of figures 4, 5, 6, 9 and 10: acceptance length over training scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from prism_ae.analysis.estimates import Place, unique
from prism_ae.drawing.curves import CurveGrid, Panel
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.kinds.acceptance import Acceptance, Curves
from prism_ae.experiments.kinds.base import al_means
from prism_ae.experiments.records import Look
from prism_ae.io.schema import record
from prism_ae.suites.records import DrafterRecord, Suite


@record
class Scaling(Acceptance):
    """Curves over training scales."""

    axis: ClassVar[str] = "scale"

    def refusal(self, drafter: DrafterRecord) -> str:
        return super().refusal(drafter) or ("" if drafter.scaled else "it is not trained at several scales")

    def x(self, place: Place, suite: Suite) -> float:
        return next(scale.value for scale in suite.scales if scale.name == place.scale)

    def means(self, *, micro: bool) -> list[str]:
        return [al_means(micro=micro)]

    def _labels(self, suite: Suite) -> tuple[str, str]:
        return self.look.x_label or suite.scale_axis, self.look.y_label


@record
class GridLook(Look):
    """One panel per benchmark."""

    panels: Literal["benchmark"] = "benchmark"


@record
class ScalingGrid(Scaling):
    """Per target a group of two columns, in it one panel per benchmark, all temperatures together."""

    kind: Literal["scaling-grid"]
    look: GridLook

    benchmarks_drawn: ClassVar[Literal["each", "mean", "both"]] = "each"

    def curve_problems(self, benchmark: str, xs: tuple[float, ...]) -> Iterator[str]:
        if benchmark not in self.cells.benchmarks:
            yield f".benchmark: '{benchmark}' is not among cells.benchmarks"

    def painter(self, material: Material) -> Painter:
        curves, labels = Curves(self, material), material.suite.benchmarks
        benchmarks = unique(curve.benchmark for curve in curves.measured)
        width = min(2, len(benchmarks))
        panels, headings = [], []
        for group, target in enumerate(material.targets):
            headings.append((group * width, group * width + width - 1, material.target_label(target)))
            for number, benchmark in enumerate(benchmarks):
                row, column = divmod(number, width)
                mine = curves.of(target, material.temperatures, benchmark)
                panels.append(Panel(row, group * width + column, labels[benchmark].label, *mine))
        return CurveGrid(
            material, tuple(panels), self.look.panel, *self._labels(material.suite),
            headings=tuple(headings), mixed=True, font=15,
        )  # fmt: skip


@record
class MeanLook(Look):
    """What makes a panel."""

    panels: Literal["target", "temperature"] = "temperature"


@record
class ScalingMean(Scaling):
    """The mean over benchmarks, one panel per target or per temperature."""

    kind: Literal["scaling-mean"]
    look: MeanLook

    def painter(self, material: Material) -> Painter:
        curves, by_target = Curves(self, material), self.look.panels == "target"
        shown = [material.temperatures] if by_target else [[each] for each in material.temperatures]
        panels = []
        for number, target in enumerate(material.targets):
            for column, temperatures in enumerate(shown):
                title = material.target_label(target) + ("" if by_target else f", temperature = {temperatures[0]:g}")
                row, place = (0, number) if by_target else (number, column)
                panels.append(Panel(row, place, title, *curves.of(target, temperatures)))
        labels = self._labels(material.suite)
        return CurveGrid(material, tuple(panels), self.look.panel, *labels, mixed=by_target)
