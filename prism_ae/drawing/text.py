"""Paragraphs, and the room that letters take, in inches. Nothing is left to an automatic layout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from prism_ae.drawing.canvas import load_matplotlib
from prism_ae.drawing.style import FAMILY

EDGE = 0.15
"""Inches of white around a page."""
NARROWEST = 6.2
"""Inches: a page is never narrower, so that caption and legend have room."""
NAME = 2.0
"""Inches: the room for a name where a page grows with its names."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph of the small print; a warning is drawn in red."""

    text: str
    warning: bool = False


@functools.lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes at a font size in points."""
    load_matplotlib()
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    # Everything is said: what is not would come from the settings of whoever imported matplotlib first.
    plain: dict[str, Any] = {"style": "normal", "variant": "normal", "stretch": "normal"}
    font = FontProperties(family=list(FAMILY), size=size, weight=weight, **plain)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def one_line(text: str) -> str:
    """A text without line breaks, tabs and repeated spaces."""
    return " ".join(text.split())


def shortened(text: str, width: float, size: float, weight: str = "normal") -> str:
    """One line that fits the width: where it is too long, "…" stands for the middle. Labels differ at either end."""
    text = one_line(text)
    if width_of(text, size, weight) <= width:
        return text

    def keeping(letters: int) -> str:
        tail = letters // 3
        return f"{text[: letters - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"

    return keeping(_most(len(text) - 1, lambda letters: width_of(keeping(letters), size, weight) <= width))


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines that fit the width: whole words, but that a word too long for a line goes on in the next."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size, weight) <= width:
            lines[-1] += f" {word}"
        else:
            lines += _pieces(word, width, size, weight)
    return lines


def _pieces(word: str, width: float, size: float, weight: str) -> list[str]:
    """A word in parts that fit the width, a letter at least."""
    parts: list[str] = []

    def fits(letters: int) -> bool:
        return width_of(rest[:letters], size, weight) <= width

    rest = word
    while rest:
        length = max(1, _most(len(rest), fits))
        parts.append(rest[:length])
        rest = rest[length:]
    return parts


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to ``limit`` that fits, 0 if none does; a smaller one fits if a larger does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
