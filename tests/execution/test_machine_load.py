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
    children_user: float = 0.0
    children_system: float = 0.0


class Process:
    """This process, and one child that ends at some time."""

    own = Times(1.0)
    child: Times | None = Times(2.0)

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid

    def children(self, *, recursive: bool) -> list[Process]:
        assert recursive
        return [Child()]

    def cpu_times(self) -> Times:
        return Process.own


class Child(Process):
    def cpu_times(self) -> Times:
        if Process.child is None:
            raise psutil.NoSuchProcess(1)
        return Process.child


def test_own_work_is_left_out_also_a_childs_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
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
    # The child ended after 1 s more, and is this process's past; nobody else did anything.
    clock, busy = 114.0, 25.0
    monkeypatch.setattr(Process, "own", Times(2.0, 0.0, 9.5, 1.5))
    monkeypatch.setattr(Process, "child", None)
    assert seen.other_cores() == pytest.approx(0.0)
    assert seen.other_cores() == 0.0  # no time has passed
