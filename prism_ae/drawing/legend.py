"""A page's legend: entries in rows that fit its width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prism_ae.drawing.text import shortened, width_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

LegendItem = tuple[str, "Artist"]
ROW = 1.75
"""Height of a row, in letters."""


def in_rows(series: list[LegendItem], others: list[LegendItem], width: float, font: float) -> list[list[LegendItem]]:
    """The legend in rows that fit the width; the two kinds of entries share a row only if all fit on one."""
    together = _flow([*series, *others], width, font)
    return together if len(together) == 1 else _flow(series, width, font) + _flow(others, width, font)


def _flow(entries: Sequence[LegendItem], width: float, font: float) -> list[list[LegendItem]]:
    """Entries, in order, in as few rows as fit the width."""
    rows: list[list[LegendItem]] = []
    used = math.inf
    handle_width = 4.3 * font / 72
    for whole, handle in entries:
        label = shortened(whole, width - handle_width, font)
        need = width_of(label, font) + handle_width
        if used + need > width:
            rows.append([])
            used = 0.0
        rows[-1].append((label, handle))
        used += need
    return rows


def draw_legend(figure: Figure, rows: Sequence[Sequence[LegendItem]], font: float, top: float) -> None:
    """Draw the rows from ``top`` inches below the page's upper edge on."""
    height = figure.get_figheight()
    for number, row in enumerate(rows):
        figure.legend(
            [handle for _, handle in row],
            [label for label, _ in row],
            loc="upper center",
            bbox_to_anchor=(0.5, 1 - (top + ROW * font / 72 * number) / height),
            ncols=len(row),
            frameon=False,
            fontsize=font,
            handlelength=2.2,
            handletextpad=0.5,
            columnspacing=1.5,
            borderpad=0.2,
            borderaxespad=0.0,
        )
