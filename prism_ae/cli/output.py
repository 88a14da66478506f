"""Standard output is the result: text, or one JSON object; standard error is progress and notes. A reader who stops
reading (``| head``) is no error.

A terminal or a pipe that cannot show a letter gets a question mark for it; a closed stream gets nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from prism_ae.errors import StoreError

_EVERY = 10.0
"""Seconds between states where the stream is no terminal."""


def replace_unencodable() -> None:
    """Print a question mark for what the streams cannot encode (an ASCII locale, a file name in another encoding)."""
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


def note(lines: Iterable[str]) -> None:
    """Print lines on standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_line(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """A function to call with every new state, as often as one likes: a line rewritten in place on a terminal, and one
    every ten seconds elsewhere."""
    if stream.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(file=stream, highlight=False).status("starting") as status:
            yield lambda text: status.update(Text(text))
        return
    last = -math.inf

    def show(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            print(text, file=stream, flush=True)

    yield show


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
