"""Curves on panels in a grid: lines with gaps where a value is missing, intervals, the paper's values behind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.estimates import Estimate, Place
from prism_ae.drawing.legend import LegendItem
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import axes_box, put
from prism_ae.drawing.style import FAINT, INK, SeriesStyle, line_style
from prism_ae.drawing.text import EDGE, shortened, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Range = tuple[float, float]
DODGE, DODGE_ALONE = 2.0, 9.0
"""Points between neighbouring curves at one x, so that their intervals can be told apart; the data stay exact. Where
there is one x alone no line joins the markers, and they stand side by side."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The values of one drafter at one temperature; ``benchmark`` None is the mean; None is a gap."""

    target: str
    drafter: str
    temperature: float
    benchmark: str | None
    points: tuple[tuple[float, Estimate | None], ...]

    @property
    def xs(self) -> tuple[float, ...]:
        return tuple(x for x, _ in self.points)

    @property
    def ys(self) -> list[float]:
        return [value.value if value else math.nan for _, value in self.points]


_Key = tuple[str, str, float, str | None]


def curves_of(material: Material, x: Callable[[Place], float], quantity: str) -> tuple[tuple[Curve, ...], ...]:
    """The measured curves and the paper's, each in the order of its values."""
    measured: dict[_Key, dict[float, Estimate | None]] = {}
    for summary in material.summaries:
        place = summary.place
        key = (place.target, place.drafter, place.temperature, place.benchmark)
        measured.setdefault(key, {})[x(place)] = material.value(summary, quantity)
    paper: dict[_Key, dict[float, Estimate | None]] = {}
    for each in material.known:
        key = (each.target, each.drafter, each.temperature, each.benchmark)
        paper.setdefault(key, {})[float(each.x)] = Estimate(each.value)  # type: ignore[arg-type]
    return tuple(
        tuple(Curve(*key, points=tuple(points.items())) for key, points in layer.items()) for layer in (measured, paper)
    )


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes, at a row and column counted from 0 at the top left; ``title`` "" for none."""

    row: int
    column: int
    title: str
    curves: tuple[Curve, ...]
    paper: tuple[Curve, ...]


@dataclasses.dataclass(frozen=True)
class CurveGrid:
    """The panels of a figure.

    Attributes:
        headings: (first column, last column, text) above groups of columns.
        share_y: one y range, labelled on the first column only.
        mixed: panels mix temperatures, so line styles tell them apart.
        legend_below: legend under the panels instead of above.
        font: size of labels, points.
        panel: width and height of one panel's axes, inches.
    """

    material: Material
    panels: tuple[Panel, ...]
    panel: tuple[float, float]
    x_label: str
    y_label: str
    headings: tuple[tuple[int, int, str], ...] = ()
    share_y: bool = False
    mixed: bool = False
    legend_below: bool = False
    font: float = 18

    @property
    def curves(self) -> tuple[Curve, ...]:
        return tuple(curve for panel in self.panels for curve in panel.curves)

    @property
    def _em(self) -> float:
        return self.font / 72

    @property
    def _tick(self) -> float:
        return 0.86 * self.font

    @property
    def _tick_width(self) -> float:
        """Inches that y tick labels take: four digits and a point at most, as acceptance lengths and rates have."""
        return width_of("0.000", self._tick) + 0.5 * self._em

    @property
    def _titled(self) -> bool:
        return any(panel.title for panel in self.panels)

    @property
    def _left(self) -> float:
        return 1.9 * self._em + self._tick_width

    @property
    def _gaps(self) -> tuple[float, float]:
        """Inches between columns and between rows."""
        across = 1.1 * self._em if self.share_y else 0.9 * self._em + self._tick_width
        return across, (3.6 if self._titled else 2.0) * self._em

    @property
    def _block(self) -> tuple[float, float]:
        """Inches of all panels together."""
        columns, rows = (max(getattr(panel, side) for panel in self.panels) + 1 for side in ("column", "row"))
        (width, height), (across, down) = self.panel, self._gaps
        groups = sum(first > 0 for first, _, _ in self.headings)
        return columns * width + (columns - 1) * across + groups * self._em, rows * height + (rows - 1) * down

    @property
    def _above(self) -> float:
        """Inches for headings and titles above the first row."""
        titled = any(panel.title and panel.row == 0 for panel in self.panels)
        return (1.7 * self._em if self.headings else 0.0) + (1.5 if titled else 0.4) * self._em

    def size(self) -> tuple[float, float]:
        width, height = self._block
        return self._left + width + 0.5 * self._em, self._above + height + 3.2 * self._em

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        return self._drafters(), self._others()

    def _drafters(self) -> list[LegendItem]:
        from matplotlib.lines import Line2D

        items: list[LegendItem] = []
        for drafter, style in self.material.styles.items():
            look: dict[str, Any] = {
                "linestyle": line_style(0, control=style.control, mixed=True),
                "marker": style.marker,
                "markersize": 0.45 * self.font,
                "markeredgewidth": 1.4 if style.marker in "x+" else 0.0,
                "alpha": 0.35 if self.material.unmeasured(drafter) else 1.0,
            }
            line = Line2D([], [], color=style.color, linewidth=1.6, **look)
            items.append((self.material.legend_label(drafter), line))
        return items

    def _others(self) -> list[LegendItem]:
        """What line styles mean, and the paper's layer."""
        from matplotlib.lines import Line2D

        items: list[LegendItem] = []
        for temperature in sorted({curve.temperature for curve in self.curves}) if self.mixed else ():
            look: dict[str, Any] = {"linestyle": line_style(temperature, control=False, mixed=True)}
            if one_x(self.curves):
                face = "white" if temperature else INK
                look = {"linestyle": "", "marker": "o", "markersize": 0.42 * self.font, "markerfacecolor": face}
            items.append((f"T = {temperature:g}", Line2D([], [], color=INK, linewidth=1.6, **look)))
        if any(panel.paper for panel in self.panels):
            look = {"marker": "o", "markersize": 0.27 * self.font, "markerfacecolor": "white", "alpha": 0.7}
            items.append(("pale: the paper's values", Line2D([], [], color=FAINT, linewidth=1.0, **look)))
        return items

    def paint(self, figure: Figure, left: float, top: float) -> None:
        em, (across, down), (width, height) = self._em, self._gaps, self.panel
        left, panels_top = left + self._left, top + self._above
        groups = [first for first, _, _ in self.headings if first]

        def column_left(column: int) -> float:
            return left + column * (width + across) + em * sum(first <= column for first in groups)

        shared = y_range(self.panels) if self.share_y else None
        for panel in self.panels:
            x, y = column_left(panel.column), panels_top + panel.row * (height + down)
            axes = figure.add_axes(axes_box(figure, x, y, width, height))
            draw_panel(axes, panel, self.material.styles, 0.42 * self.font, mixed=self.mixed)
            self._dress(axes, panel, shared or y_range([panel]))
            if panel.title:
                axes.set_title(shortened(panel.title, width, self.font), fontsize=self.font, pad=0.35 * self.font)
        large = 1.05 * self.font
        for first, last, text in self.headings:
            ends = column_left(first), column_left(last) + width
            text = shortened(text, ends[1] - ends[0], large, "bold")
            how = {"fontsize": large, "ha": "center", "va": "bottom", "weight": "bold"}
            put(figure, sum(ends) / 2, panels_top - 1.75 * em, text, **how)
        block, page_width = self._block, figure.get_figwidth()
        middle, bottom = left + block[0] / 2, panels_top + block[1]
        text = shortened(self.x_label, 2 * min(middle, page_width - middle) - 2 * EDGE, self.font)
        put(figure, middle, bottom + 1.6 * em, text, fontsize=self.font, ha="center", va="top")
        text, x = shortened(self.y_label, block[1], self.font), left - self._tick_width - 0.7 * em
        put(figure, x, panels_top + block[1] / 2, text, fontsize=self.font, rotation=90, ha="right", va="center")

    def _dress(self, axes: Axes, panel: Panel, limits: Range | None) -> None:
        """Ticks at the x that were asked for, spaced by value; a y range from the data, labels with all digits."""
        from matplotlib.ticker import MaxNLocator, ScalarFormatter

        xs = sorted({x for curve in panel.curves for x in curve.xs})
        margin = 0.07 * (xs[-1] - xs[0]) or 0.5
        axes.set_xlim(xs[0] - margin, xs[-1] + margin)
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        if limits is None:
            axes.set_yticks([])
        else:
            axes.set_ylim(*limits)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=int(1.5 * self.panel[1]) + 1, steps=[1, 2, 2.5, 5, 10]))
            axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.tick_params(labelsize=self._tick, labelleft=not self.share_y or panel.column == 0)


def y_range(panels: Iterable[Panel]) -> Range | None:
    """What the values, intervals and paper values of some panels span, with a margin; None if there is nothing."""
    found = [value for panel in panels for curve in (*panel.curves, *panel.paper) for _, value in curve.points if value]
    values = [y for value in found for y in (value.value, *(value.bounds or ()))]
    if not values:
        return None
    margin = max(0.06 * (max(values) - min(values)), 0.01)
    return min(values) - margin, max(values) + margin


def one_x(curves: Iterable[Curve]) -> bool:
    """Whether the curves are single points: then open markers, and not line styles, tell temperatures apart."""
    return len({x for curve in curves for x in curve.xs}) == 1


def draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, SeriesStyle], size: float, *, mixed: bool) -> None:
    """Draw a panel's curves and paper values.

    Args:
        styles: per drafter.
        size: of a marker, points.
        mixed: line styles tell temperatures apart.
    """
    from matplotlib.transforms import ScaledTranslation

    for curve in panel.paper:
        style = styles[curve.drafter]
        look: dict[str, Any] = {"color": style.color, "alpha": 0.35, "linewidth": 1.0, "marker": style.marker}
        look |= {
            "linestyle": line_style(curve.temperature, control=style.control, mixed=mixed),
            "markerfacecolor": "white",
        }
        axes.plot(curve.xs, curve.ys, markersize=0.6 * size, zorder=1.5, gid="paper", **look)
    alone = one_x(panel.curves)
    room = 0.8 * axes.get_window_extent().width / axes.figure.dpi / max(1, len(panel.curves))
    dodge = min(DODGE_ALONE / 72, room) if alone else DODGE / 72
    for number, curve in enumerate(panel.curves):
        style = styles[curve.drafter]
        shift = ScaledTranslation((number - (len(panel.curves) - 1) / 2) * dodge, 0, axes.figure.dpi_scale_trans)
        place = axes.transData + shift
        axes.plot(
            curve.xs,
            curve.ys,
            color=style.color,
            linewidth=1.6,
            linestyle=line_style(curve.temperature, control=style.control, mixed=mixed),
            marker=style.marker,
            markersize=size,
            markeredgewidth=1.4 if style.marker in "x+" else float(alone),
            markerfacecolor="white" if alone and mixed and curve.temperature else style.color,
            transform=place,
            zorder=3 + 0.01 * number,
            gid="measured",
        )
        _intervals(axes, curve.points, place, style.color, 0.6 * size)
    if all(value is None for curve in panel.curves for _, value in curve.points):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _intervals(
    axes: Axes, points: Sequence[tuple[float, Estimate | None]], place: Any, color: str, size: float
) -> None:
    bars = [(x, *value.bounds) for x, value in points if value and value.bounds]
    if not bars:
        return
    xs, low, high = zip(*bars, strict=True)
    look: dict[str, Any] = {"color": color, "alpha": 0.5, "transform": place, "zorder": 2.5}
    axes.vlines(xs, low, high, linewidth=0.9, **look)
    for ends in (low, high):
        axes.plot(xs, ends, "_", markersize=size, **look)
