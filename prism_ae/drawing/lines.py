"""Curves on one pair of axes: lines with gaps where a cell is missing, intervals, the paper's values behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prism_ae.analysis.curves import Curve
from prism_ae.drawing.panels import Panel
from prism_ae.drawing.style import FAINT, SeriesStyle, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Range = tuple[float, float]
DODGE, DODGE_ALONE = 2.0, 9.0
"""Points between neighbouring curves at one x, so that their intervals can be told apart; the data stay exact. Where
there is one x alone no line joins the markers, and they stand side by side."""


def y_range(panels: Iterable[Panel]) -> Range | None:
    """What the values, intervals and paper values of some panels span, with a margin; None if there is nothing."""
    values: list[float] = []
    for panel in panels:
        for point in (point for curve in panel.curves for point in curve.points):
            if point.estimate is not None:
                values += [point.estimate.value, *(point.estimate.bounds or ())]
        values += [y for line in panel.paper for y in line.y]
    if not values:
        return None
    margin = max(0.06 * (max(values) - min(values)), 0.01)
    return min(values) - margin, max(values) + margin


def one_x(curves: Iterable[Curve]) -> bool:
    """Whether the curves are single points: then open markers, and not line styles, tell temperatures apart."""
    return len({point.x for curve in curves for point in curve.points}) == 1


def draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, SeriesStyle], told_apart: bool, size: float) -> None:
    """Draw a panel's curves and paper values.

    Args:
        styles: per drafter.
        told_apart: line styles tell temperatures apart.
        size: of a marker, points.
    """
    from matplotlib.transforms import ScaledTranslation

    for line in panel.paper:
        style = styles[line.drafter]
        axes.plot(
            line.x,
            line.y,
            color=style.color,
            alpha=0.35,
            linewidth=1.0,
            linestyle=line_style(line.temperature, style.control, told_apart),
            marker=style.marker,
            markersize=0.6 * size,
            markerfacecolor="white",
            zorder=1.5,
            gid="paper",
        )
    alone = one_x(panel.curves)
    room = 0.8 * axes.get_window_extent().width / axes.figure.dpi / max(1, len(panel.curves))
    dodge = min(DODGE_ALONE / 72, room) if alone else DODGE / 72
    for number, curve in enumerate(panel.curves):
        style = styles[curve.drafter]
        shift = ScaledTranslation((number - (len(panel.curves) - 1) / 2) * dodge, 0, axes.figure.dpi_scale_trans)
        place = axes.transData + shift
        xs = [point.x for point in curve.points]
        ys = [point.estimate.value if point.estimate else math.nan for point in curve.points]
        axes.plot(
            xs,
            ys,
            color=style.color,
            linewidth=1.6,
            linestyle=line_style(curve.temperature, style.control, told_apart),
            marker=style.marker,
            markersize=size,
            markeredgewidth=1.4 if style.marker in "x+" else float(alone),
            markerfacecolor="white" if alone and told_apart and curve.temperature else style.color,
            transform=place,
            zorder=3 + 0.01 * number,
            gid="measured",
        )
        bars = [(p.x, *p.estimate.bounds) for p in curve.points if p.estimate and p.estimate.bounds]
        if bars:
            x, low, high = zip(*bars, strict=True)
            axes.vlines(x, low, high, color=style.color, alpha=0.5, linewidth=0.9, transform=place, zorder=2.5)
            for ends in (low, high):
                axes.plot(
                    x, ends, "_", color=style.color, alpha=0.5, markersize=0.6 * size, transform=place, zorder=2.5
                )
    if all(point.estimate is None for curve in panel.curves for point in curve.points):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)
