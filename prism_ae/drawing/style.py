"""How things look: fonts, line styles, and a drafter's colour and marker. Colours are the experiments' data.

The fonts come with matplotlib, so that a figure has the same letters, and the same bytes, on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from prism_ae.io.schema import record
from prism_ae.suites.records import Suite

FONTS = {
    "prism-ae STIXGeneral": ("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf"),
    "prism-ae DejaVu Sans": (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSans-Oblique.ttf",
        "DejaVuSans-BoldOblique.ttf",
    ),
}
"""Families and their files among matplotlib's: plain, bold, italic, both. The second family has letters that the first
has not. The names are ours alone: a font that a user has installed as "STIXGeneral" is another one."""
FAMILY = tuple(FONTS)
INK = "#222222"
FAINT = "#8a8a8a"
WARNING = "#a01010"
ADDED = "†"
"""Behind the label of a drafter that the paper's own drawing has not."""

RC: dict[str, Any] = {
    "font.family": list(FAMILY),
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.9,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d0d0d0",
    "grid.linestyle": "--",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "pdf.fonttype": 42,  # TrueType, embedded: what publishers ask for
}

SOLID, DASHED, DOTTED, DASH_DOTTED = "-", (0, (4, 2)), (0, (1.2, 1.6)), (0, (4, 1.5, 1.2, 1.5))

# For a drafter that the user adds to a figure (--drafters) and the experiment says nothing about.
_SPARE = (
    ("#17becf", "X"),
    ("#bcbd22", "*"),
    ("#9467bd", "d"),
    ("#393b79", ">"),
    ("#637939", "<"),
    ("#8c564b", "p"),
    ("#b5651d", "v"),
    ("#7f7f7f", "+"),
    ("#c49c94", "P"),
    ("#000000", "x"),
)


Marker = Literal["o", "s", "^", "v", "D", "d", "P", "X", "p", "*", "x", "+", "<", ">"]


@record
class Series:
    """Colour (#rrggbb) and marker of a drafter in an experiment's file; ``label`` "" takes the suite's."""

    drafter: str
    color: str
    marker: Marker
    label: str = ""


@dataclasses.dataclass(frozen=True)
class SeriesStyle:
    """How a drafter looks; ``control`` marks an equal-budget control."""

    label: str
    color: str
    marker: str
    control: bool


def series_style(series: Iterable[Series], suite: Suite, drafter: str) -> SeriesStyle:
    """Label, colour and marker of a drafter, as ``series`` say or, of one that they leave out, a spare style."""
    record = suite.drafters[drafter]
    listed = {each.drafter: each for each in series}
    if (own := listed.get(drafter)) is not None:
        return SeriesStyle(" ".join(own.label.split()) or record.label, own.color, own.marker, record.control)
    unlisted = [name for name in suite.drafters if name not in listed]
    color, marker = _SPARE[unlisted.index(drafter) % len(_SPARE)]
    return SeriesStyle(record.label, color, marker, record.control)


def line_style(temperature: float, *, control: bool, mixed: bool) -> Any:
    """Solid for T = 0, dotted for T = 1, dash-dotted for any other; a control is dashed instead of solid.

    Args:
        mixed: False where each panel shows one temperature and says so in its title.
    """
    if not mixed or temperature == 0:
        return DASHED if control else SOLID
    return DOTTED if temperature == 1 else DASH_DOTTED
