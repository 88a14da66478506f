"""Figure 1's kind: acceptance rate over draft positions, one panel per temperature, on one y range."""

from __future__ import annotations

from prism_ae.analysis.curves import Curve
from prism_ae.drawing.panels import Grid, Panel, PaperLine, of_panel
from prism_ae.suites.records import Suite


def arrange(curves: tuple[Curve, ...], paper: tuple[PaperLine, ...], suite: Suite) -> Grid:
    targets = tuple(dict.fromkeys(curve.target for curve in curves))
    temperatures = tuple(dict.fromkeys(curve.temperature for curve in curves))
    panels = []
    for row, target in enumerate(targets):
        for column, temperature in enumerate(temperatures):
            mine = tuple(curve for curve in curves if (curve.target, curve.temperature) == (target, temperature))
            title = f"Temperature = {temperature:g}"
            title = f"{suite.targets[target].label}, {title.lower()}" if len(targets) > 1 else title
            panels.append(Panel(row, column, title, mine, of_panel(paper, target, "", (temperature,))))
    return Grid(tuple(panels), headings=(), share_y=True, told_apart=False, legend_below=True, font=18)
