"""Standard output is the result: text, or one JSON object; standard error is progress and notes. A reader who stops
reading (``| head``) is no error.

A terminal or a pipe that cannot show a letter gets a question mark for it; a closed stream gets nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from prism_ae.errors import StoreError


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
