"""Figure 4's kind: per target a group of two columns, in it one panel per benchmark, both temperatures together."""

from __future__ import annotations

from prism_ae.analysis.curves import Curve
from prism_ae.drawing.panels import Grid, Panel, PaperLine, of_panel
from prism_ae.suites.records import Suite


def arrange(curves: tuple[Curve, ...], paper: tuple[PaperLine, ...], suite: Suite) -> Grid:
    targets = tuple(dict.fromkeys(curve.target for curve in curves))
    benchmarks = tuple(dict.fromkeys(curve.benchmark for curve in curves))
    width = min(2, len(benchmarks))
    panels = []
    for group, target in enumerate(targets):
        for number, benchmark in enumerate(benchmarks):
            mine = tuple(curve for curve in curves if (curve.target, curve.benchmark) == (target, benchmark))
            temperatures = tuple(dict.fromkeys(curve.temperature for curve in mine))
            row, column = divmod(number, width)
            lines = of_panel(paper, target, benchmark, temperatures)
            panels.append(Panel(row, group * width + column, suite.benchmarks[benchmark].label, mine, lines))
    return Grid(
        panels=tuple(panels),
        headings=tuple(
            (group * width, group * width + width - 1, suite.targets[target].label)
            for group, target in enumerate(targets)
        ),
        share_y=False,
        told_apart=True,
        legend_below=False,
        font=15,
    )
