"""One page around any content: title and legend above, the small print below; its size follows from what is on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from prism_ae.drawing.legend import ROW, Entry, draw_legend, in_rows
from prism_ae.drawing.style import INK, WARNING, SeriesStyle
from prism_ae.drawing.text import EDGE, NARROWEST, Text, width_of, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Content(Protocol):
    """What stands in the middle of a page."""

    def size(self) -> tuple[float, float]:
        """Width and height, inches."""
        ...

    def legend(self) -> tuple[list[Entry], list[Entry]]:
        """Entries of the drafters, and others."""
        ...

    def paint(self, figure: Figure, left: float, top: float) -> None:
        """Draw with the upper left corner at these inches from the page's."""
        ...


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Everything that is drawn.

    Attributes:
        font: size of legend and labels, points; the small print and the title follow from it.
        styles: per drafter.
    """

    title: Text
    content: Content
    small_print: tuple[Text, ...]
    font: float
    styles: Mapping[str, SeriesStyle]


def draw(sheet: Sheet) -> Figure:
    """The page as a matplotlib figure."""
    from matplotlib.figure import Figure

    em, small, large = sheet.font / 72, 0.64 * sheet.font, 1.05 * sheet.font
    content_width, content_height = sheet.content.size()
    width = max(content_width + 2 * EDGE, NARROWEST)
    legend = in_rows(*sheet.content.legend(), width - 2 * EDGE, sheet.font)
    title = wrap(sheet.title.text, width - 2 * EDGE, large, "bold")
    printed = [(line, text.warning) for text in sheet.small_print for line in wrap(text.text, width - 2 * EDGE, small)]
    line_height = 1.45 * small / 72
    legend_top = EDGE + 1.5 * em * len(title) + 0.3 * em
    content_top = legend_top + (ROW * em * len(legend) + 0.3 * em if legend else 0.0)
    print_top = content_top + content_height + 0.6 * em
    height = print_top + line_height * len(printed) + EDGE
    figure = Figure(figsize=(width, height))
    for number, line in enumerate(title):
        color = WARNING if sheet.title.warning else INK
        put(figure, EDGE, EDGE + 1.5 * em * number, line, fontsize=large, va="top", weight="bold", color=color)
    draw_legend(figure, legend, sheet.font, legend_top)
    sheet.content.paint(figure, (width - content_width) / 2, content_top)
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
