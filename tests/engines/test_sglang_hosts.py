"""Which hosts an engine keeps, and when it needs the room of one: with hosts that are names."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from prism_ae.cells import TreeShape
from prism_ae.engines.sglang import memory
from prism_ae.engines.sglang.hosts import Hosts
from prism_ae.engines.sglang.memory import available, room_by_memory, room_for_one, taken
from prism_ae.engines.sglang.options import EngineSetup
from prism_ae.engines.sglang.process import Interrupted

TREE = TreeShape(6, 4, 16)
VANILLA = EngineSetup(Path("target"), None, "", None, 8, 512, "float32", 42, "exact", "cpu", ())
PRISM = dataclasses.replace(VANILLA, drafter=Path("prism"), architecture="two modules", tree=TREE)
EAGLE2 = dataclasses.replace(PRISM, drafter=Path("eagle2"), architecture="one module")
HASS = dataclasses.replace(EAGLE2, drafter=Path("hass"))


class Recorded:
    """A host that only knows whether it was ended."""

    def __init__(self, pid: int) -> None:
        self.pid, self.ended = pid, False

    def discard(self) -> None:
        assert not self.ended
        self.ended = True


class Started:
    """Hosts, and every one that was ever started, by its number."""

    def __init__(self, room: Callable[[Any], bool]) -> None:
        self.hosts = Hosts(room)
        self.all: list[Recorded] = []

    def take(self, setup: EngineSetup) -> int:
        found: Any = self.hosts.take(setup, self._start)
        assert not found.ended
        return found.pid

    def _start(self) -> Any:
        self.all.append(Recorded(len(self.all)))
        return self.all[-1]

    @property
    def alive(self) -> list[int]:
        return [host.pid for host in self.all if not host.ended]


def test_a_targets_hosts_take_turns() -> None:
    started = Started(lambda pids: True)
    for _ in range(3):
        assert [started.take(setup) for setup in (VANILLA, EAGLE2, HASS, PRISM)] == [0, 1, 1, 2]
    assert started.alive == [0, 1, 2]
    started.hosts.close()
    assert started.alive == []
    assert started.take(VANILLA) == 3


def test_the_one_that_was_not_used_for_the_longest_time_makes_room() -> None:
    asked: list[list[int]] = []

    def room(pids: list[int]) -> bool:
        asked.append([*pids])
        return len(pids) < 2

    started = Started(room)
    for setup in (VANILLA, PRISM, VANILLA, EAGLE2):
        started.take(setup)
    assert started.alive == [0, 2]
    assert asked == [[0], [1, 0], [0]]  # the first start needs nobody's room
    assert started.take(PRISM) == 3


def test_one_at_a_time_has_room_on_a_gpu() -> None:
    started = Started(room_for_one)
    assert [started.take(setup) for setup in (VANILLA, PRISM, PRISM, VANILLA)] == [0, 1, 1, 2]
    assert started.alive == [2]


def test_hosts_that_nobody_will_ask_for_end() -> None:
    """Another target's, and a smaller one that the new one serves too."""
    started = Started(lambda pids: True)
    started.take(VANILLA)
    started.take(PRISM)
    started.take(dataclasses.replace(PRISM, batch=16))
    assert started.alive == [0, 2]
    assert started.take(PRISM) == 2
    started.take(dataclasses.replace(VANILLA, target=Path("other")))
    assert started.alive == [3]


def test_a_start_that_fails_holds_nothing() -> None:
    started = Started(lambda pids: True)
    started.take(VANILLA)

    def fail() -> Any:
        raise Interrupted

    with pytest.raises(Interrupted):
        started.hosts.take(PRISM, fail)
    assert started.hosts.setups == (VANILLA,)
    assert started.take(PRISM) == 1


def test_room_is_as_much_again_as_the_largest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "taken", {7: 30, 8: 50}.__getitem__)
    for free, room in ((99, False), (100, True)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        assert room_by_memory([7, 8]) == room
    assert room_by_memory([])


def test_what_a_process_and_its_children_take() -> None:
    """Each holds 64 MiB; an interpreter alone is small."""
    code = """
import subprocess, sys
held = bytearray(64 << 20)
code = "held = bytearray(64 << 20); print(flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert 128 <= taken(process.pid) / 2**20 < 160
    assert taken(process.pid) == 0


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    machine = psutil.virtual_memory().total
    assert 0 < available(tmp_path) <= machine  # no container
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 1500\ninactive_file 400\nactive_file 100\n")
    assert available(tmp_path) == 1400
    (tmp_path / "memory.max").write_text("max\n")
    assert 1400 < available(tmp_path) <= machine
