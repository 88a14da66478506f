"""What every kind of drawing hands to the page: panels with their curves, in a grid."""

from __future__ import annotations

import dataclasses

from prism_ae.analysis.curves import Curve
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class PaperLine:
    """The paper's values of one curve that is drawn: x and y of the same length."""

    target: str
    drafter: str
    temperature: float
    benchmark: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes, at a row and column counted from 0 at the top left; ``title`` "" for none."""

    row: int
    column: int
    title: str
    curves: tuple[Curve, ...]
    paper: tuple[PaperLine, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """The panels of a figure.

    Attributes:
        headings: (first column, last column, text) above groups of columns.
        share_y: one y range, labelled on the first column only.
        told_apart: panels mix temperatures, so line styles tell them apart.
        legend_below: legend under the panels instead of above.
        font: size of labels, points.
    """

    panels: tuple[Panel, ...]
    headings: tuple[tuple[int, int, str], ...]
    share_y: bool
    told_apart: bool
    legend_below: bool
    font: float

    @property
    def rows(self) -> int:
        return max(panel.row for panel in self.panels) + 1

    @property
    def columns(self) -> int:
        return max(panel.column for panel in self.panels) + 1

    @property
    def curves(self) -> tuple[Curve, ...]:
        return tuple(curve for panel in self.panels for curve in panel.curves)


def paper_lines(experiment: Experiment, suite: Suite, curves: tuple[Curve, ...]) -> tuple[PaperLine, ...]:
    """The paper's values for curves that are drawn, at places that are drawn."""
    targets = {target.role: target.name for target in suite.targets.values()}
    drawn = {(c.target, c.drafter, c.temperature, c.benchmark): {point.x for point in c.points} for c in curves}
    lines = []
    for curve in experiment.paper.values:
        key = (targets.get(curve.role, ""), curve.drafter, curve.temperature, curve.benchmark)
        xs = experiment.paper.x if curve.x is None else curve.x
        pairs = [(x, y) for x, y in zip(xs, curve.y, strict=True) if x in drawn.get(key, ())]
        if pairs:
            lines.append(PaperLine(*key, x=tuple(x for x, _ in pairs), y=tuple(y for _, y in pairs)))
    return tuple(lines)


def of_panel(
    lines: tuple[PaperLine, ...], target: str, benchmark: str, temperatures: tuple[float, ...]
) -> tuple[PaperLine, ...]:
    return tuple(
        line
        for line in lines
        if line.target == target and line.benchmark == benchmark and line.temperature in temperatures
    )
