"""What else the machine did while a cell was measured."""

from __future__ import annotations

import os
import time

import psutil  # type: ignore[import-untyped]


class Load:
    """Cores that programs other than this process and its children kept busy since the last look."""

    def __init__(self) -> None:
        self._at, self._busy, self._own = _seen()

    def other_cores(self) -> float:
        """The mean number since the last call, 0 at the least."""
        before = self._at, self._busy, self._own
        self._at, self._busy, self._own = now = _seen()
        seconds, busy, own = (after - earlier for after, earlier in zip(now, before, strict=True))
        return max(0.0, (busy - own) / seconds) if seconds > 0 else 0.0


def _seen() -> tuple[float, float, float]:
    """The time, and the CPU seconds so far of the whole machine and of this process with its children."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    own = 0.0
    process = psutil.Process(os.getpid())
    for one in (process, *process.children(recursive=True)):
        try:
            used = one.cpu_times()
        except psutil.Error:  # it ended just now
            continue
        own += used.user + used.system + used.children_user + used.children_system
    return time.monotonic(), sum(times) - idle, own
