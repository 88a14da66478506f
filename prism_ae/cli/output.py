"""Standard output is the result: text, or one JSON object. A reader who stops reading (``| head``) is no error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any


def say(lines: Iterable[str]) -> None:
    """Print lines."""
    try:
        for line in lines:
            print(line)
    except BrokenPipeError:
        _nobody_reads()


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    say([json.dumps(value, indent=1, ensure_ascii=False)])


def flush() -> None:
    """What was printed goes out now."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _nobody_reads()


def _nobody_reads() -> None:
    """Everything printed from here on goes nowhere, the interpreter's last flush included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def table(rows: Iterable[Iterable[str]], indent: str = "") -> list[str]:
    """Rows as lines with aligned columns."""
    cells = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    return [
        indent + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def number_of(count: int, thing: str) -> str:
    """ "1 cell", "1,020 cells"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
