"""A table as cells with rules, independent of what it says: drawn on a page here, written as LaTeX by `latex`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prism_ae.drawing.legend import LegendItem
from prism_ae.drawing.page import put
from prism_ae.drawing.style import FAINT, INK
from prism_ae.drawing.text import NAME, shortened, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = 9.0
CAPTION_FONT = 12.5
"""Of a table's title and small print, which follow from it; its cells have their own."""
PAD = 0.09
"""Inches between two columns."""


@dataclasses.dataclass(frozen=True)
class TableCell:
    """``span`` columns wide; ``pale`` is a value that was not measured here."""

    text: str = ""
    span: int = 1
    bold: bool = False
    pale: bool = False

    @property
    def weight(self) -> str:
        return "bold" if self.bold else "normal"

    @property
    def drawn(self) -> str:
        """The text as a page has it; LaTeX gets all of it."""
        return shortened(self.text, NAME, FONT, self.weight)


Row = tuple[TableCell, ...]
"""Its cells' spans add up to the table's columns."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in the style of booktabs: rules above, below and between blocks, no vertical lines.

    Attributes:
        labels: columns on the left that hold names and stand to the left; the others are centred.
        head: rows above the first rule; a cell of several columns gets a line of its own below.
        blocks: groups of rows, with a rule between them.
        least: width and height of a cell at the least, inches.
    """

    labels: int
    head: tuple[Row, ...]
    blocks: tuple[tuple[Row, ...], ...]
    least: tuple[float, float]
    font: float = CAPTION_FONT
    legend_below: bool = False

    @property
    def columns(self) -> int:
        return sum(cell.span for cell in self.head[0])

    @property
    def rows(self) -> tuple[Row, ...]:
        return (*self.head, *(row for block in self.blocks for row in block))

    def widths(self) -> list[float]:
        """Inches of each column."""
        found = [0.0 if number < self.labels else self.least[0] for number in range(self.columns)]
        wide: list[tuple[int, int, float]] = []
        for row in self.rows:
            column = 0
            for cell in row:
                need = width_of(cell.drawn, FONT, cell.weight) + PAD if cell.text else 0.0
                if cell.span == 1:
                    found[column] = max(found[column], need)
                else:
                    wide.append((column, cell.span, need))
                column += cell.span
        for first, span, need in wide:
            if (lack := need - sum(found[first : first + span])) > 0:
                found[first : first + span] = [width + lack / span for width in found[first : first + span]]
        return found

    def size(self) -> tuple[float, float]:
        return sum(self.widths()), self.least[1] * len(self.rows) + 0.08 * (len(self.blocks) + 2)

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        return [], []

    def paint(self, figure: Figure, left: float, top: float) -> None:
        widths = self.widths()
        places = [left + sum(widths[:number]) for number in range(self.columns + 1)]
        height, y = self.least[1], top
        _rule(figure, places[0], places[-1], y, 1.2)
        y += 0.04
        for row in self.head:
            self._row(figure, places, y, row)
            column = 0
            for cell in row:
                if cell.span > 1 and cell.text:
                    first, last = places[column] + PAD / 2, places[column + cell.span] - PAD / 2
                    _rule(figure, first, last, y + height - 0.01, 0.5)
                column += cell.span
            y += height
        for block in self.blocks:
            _rule(figure, places[0], places[-1], y + 0.02, 0.7)
            y += 0.06
            for row in block:
                self._row(figure, places, y, row)
                y += height
        _rule(figure, places[0], places[-1], y + 0.04, 1.2)

    def _row(self, figure: Figure, places: list[float], y: float, row: Row) -> None:
        column = 0
        for cell in row:
            first, last = places[column], places[column + cell.span]
            if cell.text:
                named = column < self.labels
                x, side = (first, "left") if named else ((first + last) / 2, "center")
                style = "italic" if cell.pale else "normal"
                look = {"weight": cell.weight, "style": style, "color": FAINT if cell.pale else INK}
                put(figure, x, y + self.least[1] / 2, cell.drawn, fontsize=FONT, ha=side, va="center", **look)
            column += cell.span


def _rule(figure: Figure, first: float, last: float, y: float, thickness: float) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    ends = (first / width, last / width), (1 - y / height, 1 - y / height)
    figure.add_artist(Line2D(*ends, color=INK, linewidth=thickness))
