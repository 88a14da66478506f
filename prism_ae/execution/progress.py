"""How far a run is, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_EVERY = 10.0
"""Seconds between plain lines."""


class Progress(Protocol):
    def cell(self, ok: bool) -> None:
        """A cell has an outcome."""
        ...

    def note(self, text: str) -> None:
        """Something to know, one line."""
        ...

    def close(self) -> None: ...


def state(done: int, total: int, failed: int, seconds: float) -> str:
    """ "12 of 300 cells, 3.1 per second, 1:33 left": ``done`` of ``total`` cells after ``seconds``."""
    parts = [f"{done} of {total} cells"]
    if failed:
        parts.append(f"{failed} failed")
    if done and seconds > 0:
        rate = done / seconds
        parts.append(f"{rate:.1f} per second" if rate >= 1 else f"{1 / rate:.1f} s each")
        parts.append(f"{duration((total - done) / rate)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """ "1:05" or "2:03:00": minutes and seconds, hours before them where there are any; rounded up."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Lines:
    """Plain lines: at the first cell, then at most one per ten seconds, and at the end."""

    def __init__(self, total: int, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._stream, self._clock = total, stream, clock
        self._begin = clock()
        self._said = -math.inf
        self._done = self._failed = 0

    def cell(self, ok: bool) -> None:
        self._done += 1
        self._failed += not ok
        now = self._clock()
        if now - self._said >= _EVERY or self._done == self._total:
            self._said = now
            self.note(state(self._done, self._total, self._failed, now - self._begin))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class TerminalBar:
    """A bar with rate and time left."""

    def __init__(self, total: int, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._total = total
        self._begin = time.monotonic()
        self._done = self._failed = 0
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        self._bar: Bar = Progress(*columns, console=Console(file=stream, highlight=False), transient=True)
        self._task = self._bar.add_task(state(0, total, 0, 0.0), total=total)
        self._bar.start()

    def cell(self, ok: bool) -> None:
        self._done += 1
        self._failed += not ok
        text = state(self._done, self._total, self._failed, time.monotonic() - self._begin)
        self._bar.update(self._task, advance=1, description=text)

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def progress_on(stream: TextIO, total: int) -> Progress:
    """The kind that fits the stream."""
    return TerminalBar(total, stream) if stream.isatty() else Lines(total, stream)
