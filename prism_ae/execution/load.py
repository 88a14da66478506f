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
        """The mean number since the last call, 0 at the least; what a child did that has ended since counts as another
        program's."""
        at, busy, own = self._at, self._busy, self._own
        self._at, self._busy, self._own = _seen()
        seconds = self._at - at
        mine = sum(used - own.get(process, 0.0) for process, used in self._own.items())
        return max(0.0, (self._busy - busy - mine) / seconds) if seconds > 0 else 0.0


def _seen() -> tuple[float, float, dict[tuple[int, float], float]]:
    """The time, the CPU seconds of the whole machine so far, and those of this process and each child that lives, by
    process id and start."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    own = {}
    process = psutil.Process(os.getpid())
    for one in (process, *process.children(recursive=True)):
        try:
            used = one.cpu_times()
            own[one.pid, one.create_time()] = used.user + used.system
        except psutil.Error:  # it ended just now
            continue
    return time.monotonic(), sum(times) - idle, own
