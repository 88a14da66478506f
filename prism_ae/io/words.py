"""Numbers, sentences and tables as text for people."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable


def table(rows: Iterable[Iterable[str]], indent: str = "") -> list[str]:
    """Rows as lines with aligned columns."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    return [
        indent + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


WIDTH = 100
"""Columns of a text for people."""


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """A sentence as lines of at most `WIDTH` columns, the later ones indented further; paths and names stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def format_bytes(size: float) -> str:
    """Bytes in words: "76.2 GB", "3.1 MB", "12 kB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit / 10:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.0f} kB"


def one_line(message: str) -> str:
    """An error with its hint, "what; hint", for a list of several."""
    return "; ".join(part.strip() for part in message.splitlines() if part.strip())


def pluralise(count: int, thing: str) -> str:
    """ "1 cell", "1,020 cells"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """ "1:05" or "2:03:00": minutes and seconds, hours before them where there are any; rounded up."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
