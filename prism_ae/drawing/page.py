"""One page: title, legend, a grid of panels, and the small print below. Every place is computed, in inches.

Nothing is left to an automatic layout: that would be slow, and would move when a label changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prism_ae.drawing.legend import ROW, Entry, draw_legend, in_rows
from prism_ae.drawing.lines import draw_panel, one_x, y_range
from prism_ae.drawing.panels import Grid, Panel
from prism_ae.drawing.style import FAINT, INK, WARNING, SeriesStyle, line_style
from prism_ae.drawing.text import EDGE, NARROWEST, Text, shortened, width_of, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Page:
    """Everything that is drawn, the panels in `grid` apart.

    Attributes:
        styles: per drafter, in legend order.
        panel: width and height of one panel, inches.
        missing: drafters of which nothing was measured.
    """

    title: Text
    grid: Grid
    styles: Mapping[str, SeriesStyle]
    panel: tuple[float, float]
    x_label: str
    y_label: str
    small_print: tuple[Text, ...]
    missing: frozenset[str]


def draw(page: Page) -> Figure:
    """The page as a matplotlib figure, its size fitting its content."""
    from matplotlib.figure import Figure

    grid, em = page.grid, page.grid.font / 72
    small, large = 0.64 * grid.font, 1.05 * grid.font
    tick = 0.86 * grid.font
    left, right = EDGE + 1.9 * em + _tick_width(grid, tick), EDGE + 0.5 * em
    gap_x = 1.1 * em if grid.share_y else 0.9 * em + _tick_width(grid, tick)
    gap_y = 3.6 * em if any(panel.title for panel in grid.panels) else 2.0 * em
    groups = [first for first, _, _ in grid.headings if first]
    panel_width, panel_height = page.panel
    block = grid.columns * panel_width + (grid.columns - 1) * gap_x + len(groups) * em
    width = max(left + block + right, NARROWEST)
    left += (width - left - block - right) / 2

    legend = in_rows(_drafter_entries(page), _other_entries(page), width - 2 * EDGE, grid.font)
    title = wrap(page.title.text, width - 2 * EDGE, large, "bold")
    printed = [(line, text.warning) for text in page.small_print for line in wrap(text.text, width - 2 * EDGE, small)]
    line_height = 1.45 * small / 72
    legend_height = ROW * em * len(legend) + 0.3 * em
    top = EDGE + 1.5 * em * len(title) + 0.3 * em
    panels_top = top + (0 if grid.legend_below else legend_height) + (1.7 * em if grid.headings else 0)
    panels_top += 1.5 * em if any(panel.title and panel.row == 0 for panel in grid.panels) else 0.4 * em
    panels_bottom = panels_top + grid.rows * panel_height + (grid.rows - 1) * gap_y
    labels_bottom = panels_bottom + 3.2 * em
    print_top = labels_bottom + (legend_height if grid.legend_below else 0) + 0.3 * em
    height = print_top + line_height * len(printed) + EDGE

    figure = Figure(figsize=(width, height))

    def put(x: float, y: float, text: str, **how: Any) -> None:
        figure.text(x / width, 1 - y / height, text, **how)

    def column_left(column: int) -> float:
        return left + column * (panel_width + gap_x) + em * sum(first <= column for first in groups)

    for number, line in enumerate(title):
        color = WARNING if page.title.warning else INK
        put(EDGE, EDGE + 1.5 * em * number, line, fontsize=large, va="top", weight="bold", color=color)
    draw_legend(figure, legend, grid.font, labels_bottom if grid.legend_below else top)
    shared = y_range(grid.panels) if grid.share_y else None
    for panel in grid.panels:
        x, y = column_left(panel.column), panels_top + panel.row * (panel_height + gap_y)
        axes = figure.add_axes((x / width, 1 - (y + panel_height) / height, panel_width / width, panel_height / height))
        draw_panel(axes, panel, page.styles, grid.told_apart, 0.42 * grid.font)
        _dress(
            axes, panel, shared or y_range([panel]), panel_height, tick, labelled=not grid.share_y or panel.column == 0
        )
        if panel.title:
            title_text = shortened(panel.title, panel_width, grid.font)
            axes.set_title(title_text, fontsize=grid.font, pad=0.35 * grid.font)
    for first, last, text in grid.headings:
        middle = (column_left(first) + column_left(last) + panel_width) / 2
        y = panels_top - 1.75 * em
        room = column_left(last) + panel_width - column_left(first)
        put(middle, y, shortened(text, room, large, "bold"), fontsize=large, ha="center", va="bottom", weight="bold")
    middle = left + block / 2
    x_label = shortened(page.x_label, 2 * min(middle, width - middle) - 2 * EDGE, grid.font)
    put(middle, panels_bottom + 1.6 * em, x_label, fontsize=grid.font, ha="center", va="top")
    y = (panels_top + panels_bottom) / 2
    label_x = left - _tick_width(grid, tick) - 0.7 * em
    y_label = shortened(page.y_label, panels_bottom - panels_top, grid.font)
    put(label_x, y, y_label, fontsize=grid.font, rotation=90, ha="right", va="center")
    for number, (line, warning) in enumerate(printed):
        color = WARNING if warning else INK
        put(EDGE, print_top + line_height * number, line, fontsize=small, va="top", color=color)
    return figure


def _dress(
    axes: Axes, panel: Panel, limits: tuple[float, float] | None, height: float, tick: float, labelled: bool
) -> None:
    """Ticks at the x that were asked for, spaced by value; a y range from the data, labels with all their digits."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    xs = sorted({point.x for curve in panel.curves for point in curve.points})
    margin = 0.07 * (xs[-1] - xs[0]) or 0.5
    axes.set_xlim(xs[0] - margin, xs[-1] + margin)
    axes.set_xticks(xs, [f"{x:g}" for x in xs])
    if limits is None:
        axes.set_yticks([])
    else:
        axes.set_ylim(*limits)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=int(1.5 * height) + 1, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.tick_params(labelsize=tick, labelleft=labelled)


def _tick_width(grid: Grid, tick: float) -> float:
    """Inches that y tick labels take: four digits and a point at most, as acceptance lengths and rates have."""
    return width_of("0.000", tick) + 0.5 * grid.font / 72


def _drafter_entries(page: Page) -> list[Entry]:
    """One legend entry per drafter; pale and "not measured" where it has no cell at all."""
    from matplotlib.lines import Line2D

    size = 0.45 * page.grid.font
    entries: list[Entry] = []
    for drafter, style in page.styles.items():
        line = line_style(0, style.control, told_apart=True)
        empty = drafter in page.missing
        label = f"{style.label} (not measured)" if empty else style.label
        edge = 1.4 if style.marker in "x+" else 0.0
        look: dict[str, Any] = {
            "marker": style.marker,
            "markersize": size,
            "markeredgewidth": edge,
            "alpha": 0.35 if empty else 1.0,
        }
        entries.append((label, Line2D([], [], color=style.color, linestyle=line, linewidth=1.6, **look)))
    return entries


def _other_entries(page: Page) -> list[Entry]:
    """What line styles mean, and the paper's layer."""
    from matplotlib.lines import Line2D

    entries: list[Entry] = []
    if page.grid.told_apart:
        for temperature in sorted({curve.temperature for curve in page.grid.curves}):
            look: dict[str, Any] = {"linestyle": line_style(temperature, control=False, told_apart=True)}
            if one_x(page.grid.curves):
                face = "white" if temperature else INK
                look = {"linestyle": "", "marker": "o", "markersize": 0.42 * page.grid.font, "markerfacecolor": face}
            entries.append((f"T = {temperature:g}", Line2D([], [], color=INK, linewidth=1.6, **look)))
    if any(panel.paper for panel in page.grid.panels):
        size = 0.27 * page.grid.font
        pale: dict[str, Any] = {
            "color": FAINT,
            "alpha": 0.7,
            "marker": "o",
            "markersize": size,
            "markerfacecolor": "white",
        }
        entries.append(("pale: the paper's values", Line2D([], [], linewidth=1.0, **pale)))
    return entries
