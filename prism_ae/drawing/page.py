"""One page around any content: title and legend above it, the small print below. Every place is computed, in inches.

Nothing is left to an automatic layout: that would be slow, and would move when a label changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from prism_ae.drawing.legend import ROW, LegendItem, draw_legend, in_rows
from prism_ae.drawing.style import INK, WARNING, SeriesStyle
from prism_ae.drawing.text import EDGE, NARROWEST, Text, width_of, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Painter(Protocol):
    """Paints what stands in the middle of a page."""

    @property
    def font(self) -> float:
        """Size of legend and labels, points; the small print and the title follow from it."""
        ...

    @property
    def legend_below(self) -> bool:
        """Whether the legend stands under the content instead of above."""
        ...

    def size(self) -> tuple[float, float]:
        """Width and height, inches."""
        ...

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        """Entries of the drafters, and others."""
        ...

    def paint(self, figure: Figure, left: float, top: float) -> None:
        """Draw with the upper left corner at these inches from the page's."""
        ...


@dataclasses.dataclass(frozen=True)
class Page:
    """Everything that is drawn; ``styles`` per drafter, in legend order."""

    title: Text
    content: Painter
    small_print: tuple[Text, ...]
    styles: Mapping[str, SeriesStyle]


def draw(page: Page) -> Figure:
    """The page as a matplotlib figure under the caller's rcParams, its size fitting its content."""
    from matplotlib.figure import Figure

    content, em = page.content, page.content.font / 72
    small, large = 0.64 * content.font, 1.05 * content.font
    content_width, content_height = content.size()
    width = max(content_width + 2 * EDGE, NARROWEST)
    legend = in_rows(*content.legend(), width - 2 * EDGE, content.font)
    title = wrap(page.title.text, width - 2 * EDGE, large, "bold")
    printed = [(line, text.warning) for text in page.small_print for line in wrap(text.text, width - 2 * EDGE, small)]
    line_height = 1.45 * small / 72
    legend_height = ROW * em * len(legend) + 0.3 * em if legend else 0.0
    top = EDGE + 1.5 * em * len(title) + 0.3 * em
    content_top = top if content.legend_below else top + legend_height
    legend_top = content_top + content_height if content.legend_below else top
    print_top = top + legend_height + content_height + 0.6 * em
    figure = Figure(figsize=(width, print_top + line_height * len(printed) + EDGE))
    for number, line in enumerate(title):
        color = WARNING if page.title.warning else INK
        put(figure, EDGE, EDGE + 1.5 * em * number, line, fontsize=large, va="top", weight="bold", color=color)
    draw_legend(figure, legend, content.font, legend_top)
    content.paint(figure, (width - content_width) / 2, content_top)
    for number, (line, warning) in enumerate(printed):
        color = WARNING if warning else INK
        put(figure, EDGE, print_top + line_height * number, line, fontsize=small, va="top", color=color)
    return figure


def put(figure: Figure, x: float, y: float, text: str, **how: Any) -> None:
    """A text at inches from the page's upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, **how)


def axes_box(figure: Figure, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """A box, its upper left corner at inches from the page's, as matplotlib counts: parts of the page, from below."""
    page_width, page_height = figure.get_size_inches()
    return x / page_width, 1 - (y + height) / page_height, width / page_width, height / page_height


def fitting(text: str, size: float, room: float, least: float = 4.5) -> float:
    """``size`` or, where a text is wider than ``room`` inches, the points at which it fits, ``least`` at the least."""
    return max(min(size, size * room / max(width_of(text, size), 1e-9)), least)
