"""The speed-up over the batch size, on a page. An error bar reaches from the slowest block to the fastest."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prism_ae.drawing.canvas import own_settings
from prism_ae.drawing.legend import LegendItem
from prism_ae.drawing.page import Page, axes_box, draw, put
from prism_ae.drawing.style import FAINT, INK
from prism_ae.drawing.text import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from prism_ae.tuning.tune import TimedTree

_COLOR = "#c0392b"
_LEFT, _BELOW, _ABOVE, _RIGHT = 0.8, 0.75, 0.1, 0.15
"""Inches around the axes, for labels."""


@dataclasses.dataclass(frozen=True)
class SpeedUps:
    """A painter of `drawing.page`: the curve of one tree.

    Attributes:
        points: of its batch sizes, ascending.
        panel: width and height of the axes, inches.
    """

    points: Sequence[TimedTree]
    panel: tuple[float, float] = (5.2, 3.2)
    font: float = 13.0
    legend_below: bool = False

    def size(self) -> tuple[float, float]:
        return _LEFT + self.panel[0] + _RIGHT, _ABOVE + self.panel[1] + _BELOW

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        return [], []

    def paint(self, figure: Figure, left: float, top: float) -> None:
        width, height = self.panel
        x, y = left + _LEFT, top + _ABOVE
        axes = figure.add_axes(axes_box(figure, x, y, width, height))
        batches = [point.batch for point in self.points]
        values = [point.speed_up for point in self.points]
        reach = [
            [value - point.spread[0] for value, point in zip(values, self.points, strict=True)],
            [point.spread[1] - value for value, point in zip(values, self.points, strict=True)],
        ]
        axes.axhline(1.0, color=FAINT, linewidth=1.2)
        axes.errorbar(batches, values, yerr=reach, color=_COLOR, marker="o", linewidth=1.6, capsize=3)
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=0.86 * self.font)
        how = {"fontsize": self.font, "color": INK, "ha": "center"}
        put(figure, x + width / 2, y + height + 0.35, "Batch size", va="top", **how)
        put(figure, left, y + height / 2, "Speed-up over no drafts", va="center", rotation=90, **how)


def as_pdf(points: Sequence[TimedTree], title: str, small_print: Sequence[str]) -> bytes:
    """The page as a file; the same values give the same bytes."""
    page = Page(Text(title), SpeedUps(points), tuple(Text(line) for line in small_print), {})
    with own_settings():
        buffer = io.BytesIO()
        draw(page).savefig(buffer, format="pdf", metadata={"Creator": "prism-ae", "CreationDate": None})
    return buffer.getvalue()
