"""Standard output is the result: text, or one JSON object. A reader who stops reading (``| head``) is no error.

A terminal or a pipe that cannot show a letter gets a question mark for it; a closed stream gets nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from prism_ae.errors import StoreError


def show_any_letter() -> None:
    """What this place cannot encode (an ASCII locale, a file name in another encoding) is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(lines: Iterable[str]) -> None:
    """Print lines; raises StoreError if standard output cannot be written."""
    with _output_errors():
        for line in lines:
            print(line)


def say_json(value: Any) -> None:
    """Print a value as JSON."""
    say([json.dumps(value, indent=1, ensure_ascii=False)])


def flush() -> None:
    """What was printed goes out now; raises StoreError if standard output cannot be written."""
    with _output_errors():
        if sys.stdout is not None:  # closed before the start
            sys.stdout.flush()


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    """A reader who went away is no error; a full disk is one."""
    try:
        yield
    except BrokenPipeError:
        _nobody_reads()
    except OSError as error:
        _nobody_reads()
        raise StoreError(f"cannot write to standard output: {error.strerror}", "free some space") from error


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


def amount(size: float) -> str:
    """Bytes in words: "76.2 GB", "3.1 MB", "12 kB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit / 10:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.0f} kB"


def one_line(message: str) -> str:
    """An error with its hint, "what; hint", for a list of several."""
    return "; ".join(part.strip() for part in message.splitlines() if part.strip())


def number_of(count: int, thing: str) -> str:
    """ "1 cell", "1,020 cells"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
