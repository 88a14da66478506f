"""How far something is, on standard error: a line that changes on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY = 10.0
"""Seconds between plain lines."""


class Display(Protocol):
    def show(self, text: str, done: int = 0) -> None:
        """The new state, as often as one likes; ``done`` of the display's total."""
        ...

    def note(self, text: str) -> None:
        """Something to know, one line that stays."""
        ...


class PlainLines:
    """At the first state, then at most one line per ten seconds, and at the end of the total."""

    def __init__(self, stream: TextIO, total: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._total, self._clock = stream, total, clock
        self._said = -math.inf

    def show(self, text: str, done: int = 0) -> None:
        now = self._clock()
        if now - self._said >= _EVERY or done == self._total:
            self._said = now
            self.note(text)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalLine:
    """Behind a bar, or where no total is known behind something that turns."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def show(self, text: str, done: int = 0) -> None:
        self._progress.update(self._task, completed=done, description=text)

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)


@contextlib.contextmanager
def display_on(stream: TextIO, first: str = "starting", total: int | None = None) -> Iterator[Display]:
    """The kind that fits the stream.

    Args:
        first: shown on a terminal until there is a state.
    """
    if not stream.isatty():
        yield PlainLines(stream, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=total is not None))
    mark = SpinnerColumn() if total is None else BarColumn()
    with Progress(mark, text, console=Console(file=stream, highlight=False), transient=True) as progress:
        yield TerminalLine(progress, progress.add_task(first, total=total))
