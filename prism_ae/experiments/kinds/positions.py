"""Figure 1's kind: acceptance rate over draft positions, one panel per temperature, on one y range."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from prism_ae.analysis.claims import Lines, QuantityName
from prism_ae.analysis.estimates import Summary, summarise
from prism_ae.analysis.quantities import Quantity, acceptance_rate
from prism_ae.analysis.results import Results
from prism_ae.drawing.curves import CurveGrid, Panel
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.kinds.acceptance import Acceptance, AcceptanceSelection, Curves
from prism_ae.experiments.records import Look
from prism_ae.io.schema import record


@record
class PositionsSelection(AcceptanceSelection):
    """Curves are over positions: one scale."""

    _: dataclasses.KW_ONLY
    scales: Literal["largest"] = "largest"


@record
class PositionsLook(Look):
    """``positions``: draft positions drawn, at most those that the tree drafts."""

    positions: int
    _: dataclasses.KW_ONLY
    panels: Literal["temperature"] = "temperature"


@record
class Positions(Acceptance):
    """Pooled over a benchmark's questions, then the mean over the benchmarks."""

    kind: Literal["positions"]
    cells: PositionsSelection
    look: PositionsLook

    about: ClassVar[QuantityName] = "acceptance_rate"
    axis: ClassVar[str] = "position"
    quantities: ClassVar[tuple[Quantity, ...]] = (acceptance_rate(1),)

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.look.positions < 1:
            yield "look.positions: must be at least 1"

    def summarise(self, results: Results) -> tuple[Summary, ...]:
        steps = min(point.tree.steps for point in results.points if point.tree)
        positions = range(1, min(self.look.positions, steps) + 1)
        columns = [summarise(results, [acceptance_rate(number)], "mean", number) for number in positions]
        return tuple(summary for row in zip(*columns, strict=True) for summary in row)

    def judged(self, results: Results, quantity: Quantity) -> tuple[Summary, ...]:
        return self.summarise(results)

    def paper_lines(self, quantity: str, *, rerun: bool) -> Lines:
        """Those at the positions that are drawn."""
        return {
            group: {
                name: dataclasses.replace(
                    line, values={x: value for x, value in line.values.items() if x <= self.look.positions}
                )
                for name, line in drafters.items()
            }
            for group, drafters in super().paper_lines(quantity, rerun=rerun).items()
        }

    def means(self, *, micro: bool) -> list[str]:
        return [
            "Acceptance rate: chance that a draft is accepted given that those before it were, pooled over a "
            "benchmark's questions"
        ]

    def painter(self, material: Material) -> Painter:
        curves = Curves(self, material)
        panels = []
        for row, target in enumerate(material.targets):
            for column, temperature in enumerate(material.temperatures):
                title = f"Temperature = {temperature:g}"
                if len(material.targets) > 1:
                    title = f"{material.target_label(target)}, {title.lower()}"
                panels.append(Panel(row, column, title, *curves.of(target, [temperature])))
        labels = (self.look.x_label or material.suite.scale_axis, self.look.y_label)
        return CurveGrid(material, tuple(panels), self.look.panel, *labels, share_y=True, legend_below=True)
