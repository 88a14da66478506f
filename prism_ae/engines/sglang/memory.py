"""Whether one more host has room on a device: measured, as nobody knows beforehand what a host will take."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_CGROUP = Path("/sys/fs/cgroup")


def room_for_one(pids: Sequence[int]) -> bool:
    """On a GPU: a host takes what it finds there, so there is one at a time."""
    return not pids


def room_by_memory(pids: Sequence[int]) -> bool:
    """On a CPU: where a host as large as the largest of these leaves free as much again."""
    return available() >= 2 * max(map(taken, pids), default=0)


def taken(pid: int) -> int:
    """Bytes of memory that would be free without a process and all that it started: what they share with nobody."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().uss
    return total


def available(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory that processes here can still take: of the machine's, and of what a container may use."""
    machine = psutil.virtual_memory().available
    try:
        limit, used = ((cgroup / name).read_text() for name in ("memory.max", "memory.current"))
        # Files that were read stay in memory until something else needs it.
        cached = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())["inactive_file"]
        return min(machine, int(limit) - int(used) + int(cached))
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return machine
