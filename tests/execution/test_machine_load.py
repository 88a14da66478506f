"""What else a machine did: cores that others kept busy, this process and its children left out."""

from __future__ import annotations

import dataclasses

import psutil
import pytest

from prism_ae.execution import load


@dataclasses.dataclass
class Times:
    """What psutil says of a process."""

    user: float
    system: float = 0.0


class Process:
    """This process, and one child that ends at some time."""

    own = Times(1.0)
    child: Times | None = Times(2.0)

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid

    def children(self, *, recursive: bool) -> list[Process]:
        assert recursive
        return [Child(1)]

    def create_time(self) -> float:
        return 5.0

    def cpu_times(self) -> Times:
        return Process.own


class Child(Process):
    def cpu_times(self) -> Times:
        if Process.child is None:
            raise psutil.NoSuchProcess(1)
        return Process.child


def test_own_work_is_left_out_and_a_child_that_ends_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = psutil.cpu_times()
    clock, busy = 100.0, 10.0

    def cpu_times() -> tuple[float, ...]:
        zeros = dict.fromkeys(machine._fields, 0.0)
        return type(machine)(**(zeros | {"user": busy, "idle": 1000.0 - busy}))

    monkeypatch.setattr(load.psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(load.psutil, "Process", Process)
    monkeypatch.setattr(load.time, "monotonic", lambda: clock)
    monkeypatch.setattr(Process, "own", Times(1.0))
    monkeypatch.setattr(Process, "child", Times(2.0))
    seen = load.Load()
    # 10 s later the machine worked 14 s, of which 1 s was this process and 8 s its child.
    clock, busy = 110.0, 24.0
    monkeypatch.setattr(Process, "own", Times(2.0))
    monkeypatch.setattr(Process, "child", Times(9.0, 1.0))
    assert seen.other_cores() == pytest.approx(0.5)
    # The child ended; this process worked 0.5 s of the 1 s that the machine did.
    clock, busy = 114.0, 25.0
    monkeypatch.setattr(Process, "own", Times(2.5))
    monkeypatch.setattr(Process, "child", None)
    assert seen.other_cores() == pytest.approx(0.5 / 4)
    assert seen.other_cores() == 0.0  # no time has passed
    # A new child has its number: all that it did was done since.
    clock, busy = 116.0, 27.0
    monkeypatch.setattr(Process, "child", Times(1.5))
    assert seen.other_cores() == pytest.approx(0.5 / 2)
