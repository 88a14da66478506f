"""Ctrl-C and SIGTERM, counted: once asks a run to stop in order, twice to stop at once."""

from __future__ import annotations

import faulthandler
import signal
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

_ORDERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts(Protocol):
    @property
    def count(self) -> int: ...


class Signals:
    """Counts the signals while the block lasts; the handlers that were there before come back after it.

    A signal that the process was started to ignore stays ignored: ``nohup`` must outlive its terminal.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _ORDERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def leave_to_parent() -> None:
    """In a worker: whoever signals it means its parent, which stops it by a message. A crash says where it was."""
    faulthandler.enable()
    for number in _ORDERS:
        signal.signal(number, signal.SIG_IGN)
