"""The kind of figures 5, 6, 9 and 10: the mean over benchmarks, one panel per target or per temperature."""

from __future__ import annotations

from prism_ae.analysis.curves import Curve
from prism_ae.drawing.panels import Grid, Panel, PaperLine, of_panel
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite


def arrange(experiment: Experiment, curves: tuple[Curve, ...], paper: tuple[PaperLine, ...], suite: Suite) -> Grid:
    targets = tuple(dict.fromkeys(curve.target for curve in curves))
    temperatures = tuple(dict.fromkeys(curve.temperature for curve in curves))
    by_target = experiment.look.panels == "target"
    panels = []
    for number, target in enumerate(targets):
        for column, shown in enumerate([temperatures] if by_target else [(each,) for each in temperatures]):
            mine = tuple(curve for curve in curves if curve.target == target and curve.temperature in shown)
            title = suite.targets[target].label + ("" if by_target else f", temperature = {shown[0]:g}")
            row, place = (0, number) if by_target else (number, column)
            panels.append(Panel(row, place, title, mine, of_panel(paper, target, "", shown)))
    return Grid(tuple(panels), headings=(), share_y=False, told_apart=by_target, legend_below=False, font=18)
