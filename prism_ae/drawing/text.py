"""Paragraphs, and the room that letters take, in inches. Nothing is left to an automatic layout."""

from __future__ import annotations

import dataclasses
import functools

from prism_ae.drawing.style import FAMILY

EDGE = 0.15
"""Inches of white around a page."""
NARROWEST = 6.2
"""Inches: a page is never narrower, so that caption and legend have room."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph of the small print; a warning is drawn in red."""

    text: str
    warning: bool = False


@functools.lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes at a font size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(FAMILY), size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines of whole words that fit the width."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size, weight) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
