"""The host's process and the engine around it, with an SGLang that answers at once, dies, hangs and lies to order."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sglang_prism.sglang_models import CAPACITY, Place, make_place

from prism_ae.cells import Cell, Result, TreeShape
from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang import memory
from prism_ae.engines.sglang import process as sglang_process
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.errors import DeviceError
from prism_ae.suites.compat import GREEDY_SECOND_TEMPERATURE, WARM_CACHE

FAKE = Path(__file__).parents[1] / "sglang_prism" / "fake_sglang"
TREE = "3,3,8"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("models"), fit=0)


@dataclasses.dataclass
class Fake:
    """The engine, and the folder where its SGLang takes orders and records events."""

    engine: SGLangEngine
    place: Place
    folder: Path

    def order(self, *orders: str) -> None:
        (self.folder / "orders").write_text("\n".join(orders))

    def events(self) -> list[str]:
        """What happened since the last call."""
        file = self.folder / "events"
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return lines

    def starts(self) -> int:
        return self.events().count("start")

    def measure(self, *cells: Cell) -> Iterator[tuple[Cell, Result]]:
        return self.engine.measure(self.place.assignment(cells), lambda: False)

    def works(self) -> None:
        """An assignment is measured whole."""
        cell = self.place.cell("prism", TREE)
        assert [done for done, _ in self.measure(cell)] == [cell]

    @property
    def pid(self) -> int:
        assert self.engine._host
        return self.engine._host.pid


@pytest.fixture
def fake(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("FAKE_SGLANG", str(tmp_path))
    monkeypatch.setattr(sglang_engine, "stand_in_paths", lambda: [FAKE])
    monkeypatch.setattr(sglang_process, "_TICK", 0.02)
    engine = SGLangEngine(place.suite, place.folder, "cpu", 1)
    yield Fake(engine, place, tmp_path)
    engine.close()
    assert not psutil.Process().children(recursive=True)


def test_it_starts_once_and_serves(fake: Fake) -> None:
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("talk", "one")]
    results = dict(fake.measure(*cells))
    assert list(results) == [cells[1], cells[0]]  # by the benchmarks' names
    talk, one = results[cells[0]], results[cells[1]]
    assert [sample.question_id for sample in one.samples] == [f"one/{n}" for n in range(8)]
    assert {(sample.turns, sample.generated_tokens, sample.histogram) for sample in talk.samples} == {
        (2, 64, (2, 2, 0, 0))
    }
    assert {(sample.turns, sample.generated_tokens, sample.histogram) for sample in one.samples} == {
        (1, 32, (1, 1, 0, 0))
    }
    assert one.settings.to_json()["sglang"] == "0.5.17"
    assert one.settings.to_json()["tree"] == [3, 3, 8]
    assert one.settings.to_json()["concurrency"] == 8
    assert not {"nonce", "pid", "drafter"} & set(one.settings.to_json())
    assert one.wall_seconds >= 0.02
    events = fake.events()
    assert events.count("start") == 1
    assert max(int(event.split()[1]) for event in events if event.startswith("running")) == 8


def test_a_running_engine_is_changed_not_started_again(fake: Fake) -> None:
    fake.works()
    # Nothing may be under way, and nothing of another drafter left in the cache, when something is changed.
    assert fake.events()[:3] == ["start", "flush", "configure tree"]
    pid = fake.pid
    fake.works()
    assert [event for event in fake.events() if event.startswith(("start", "configure"))] == []
    list(fake.measure(fake.place.cell("prism", "6,5,24", drafting="stock")))
    assert fake.events()[:2] == ["flush", "configure drafting tree"]
    assert fake.pid == pid


def test_hosts_take_turns(fake: Fake) -> None:
    """Once started, one of them is used after the other as it is: nothing is changed and nothing started."""
    cells = {
        name: fake.place.cell(name, TREE if name != "vanilla" else None) for name in ("vanilla", "prism", "eagle3")
    }
    pids = {}
    for name, cell in cells.items():
        assert [done for done, _ in fake.measure(cell)] == [cell]
        pids[name] = fake.pid
    assert len(set(pids.values())) == fake.starts() == 3
    for name in ("prism", "eagle3", "vanilla") * 2:
        assert [done for done, _ in fake.measure(cells[name])] == [cells[name]]
        assert fake.pid == pids[name]
    assert not any(event.startswith(("start", "configure")) for event in fake.events())
    fake.engine.close()
    assert not any(map(psutil.pid_exists, pids.values()))


def test_without_memory_for_two_hosts_one_ends_for_the_other(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1)
    fake.works()
    pid = fake.pid
    list(fake.measure(fake.place.cell("vanilla", None)))
    assert not psutil.pid_exists(pid)
    fake.works()
    assert fake.starts() == 3


def test_a_host_that_dies_takes_the_others_along(fake: Fake) -> None:
    """They may have had the memory that it lacked; each starts again when it is asked for."""
    list(fake.measure(fake.place.cell("vanilla", None)))
    other = fake.pid
    fake.order("start:", "answer:kill")
    fake.works()
    assert not psutil.pid_exists(other)
    assert len(psutil.Process().children()) == 1
    list(fake.measure(fake.place.cell("vanilla", None)))
    assert fake.starts() == 4


def test_a_host_that_died_while_another_was_measured_is_started_again(fake: Fake) -> None:
    fake.works()
    pid = fake.pid
    list(fake.measure(fake.place.cell("vanilla", None)))
    os.kill(pid, signal.SIGKILL)
    list(fake.measure(fake.place.cell("vanilla", None)))
    fake.works()
    assert fake.starts() == 3
    assert len(psutil.Process().children()) == 1


def test_an_interrupted_host_is_ready_after_another(fake: Fake) -> None:
    fake.works()
    pid = fake.pid
    list(fake.measure(fake.place.cell("vanilla", None)))
    fake.order("answer:hang")
    began = time.monotonic()
    cells = [fake.place.cell("prism", TREE)]
    assert list(fake.engine.measure(fake.place.assignment(cells), lambda: time.monotonic() > began + 0.3)) == []
    list(fake.measure(fake.place.cell("vanilla", None)))
    fake.works()
    assert fake.pid == pid
    assert fake.starts() == 2


def test_a_timed_cell_is_warmed_up_and_starts_with_an_empty_cache(fake: Fake) -> None:
    fake.works()
    fake.events()
    list(fake.measure(fake.place.cell("prism", TREE, batch=2, max_new_tokens=20)))
    events = [event for event in fake.events() if event.startswith(("flush", "answer"))]
    assert events == ["flush", *["answer 16 0.0"] * 2, "flush", *["answer 20 0.0"] * 8]


def test_the_authors_choices_are_imitated(fake: Fake) -> None:
    cell = fake.place.cell("prism", TREE, batch=2, temperature=1.0, max_new_tokens=20, compat=(WARM_CACHE,))
    list(fake.measure(cell))
    fake.events()
    list(fake.measure(cell))
    events = [event for event in fake.events() if event.startswith(("flush", "answer"))]
    # All prompts pass once, and the cache keeps them.
    warm = ["flush", *["answer 16 1.0"] * 2, "flush", *["answer 1 1.0"] * 8]
    assert events == [*warm, *["answer 20 1.0"] * 8]
    greedy = dataclasses.replace(cell.point, compat=(GREEDY_SECOND_TEMPERATURE,), batch=None)
    list(fake.measure(dataclasses.replace(cell, point=greedy)))
    assert set(fake.events()) >= {"answer 20 0.0"}


def test_an_interrupt_ends_a_run_and_leaves_the_engine_ready(fake: Fake) -> None:
    fake.works()
    pid = fake.pid
    fake.order("answer:hang")
    began = time.monotonic()
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("one", "talk")]
    assignment = fake.place.assignment(cells)
    assert list(fake.engine.measure(assignment, lambda: time.monotonic() > began + 0.3)) == []
    assert "abort" in fake.events()
    fake.works()
    assert fake.pid == pid
    assert fake.starts() == 0


def test_an_interrupt_between_cells_keeps_what_was_measured(fake: Fake) -> None:
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("one", "talk")]
    measured: list[Cell] = []
    for cell, _ in fake.engine.measure(fake.place.assignment(cells), lambda: bool(measured)):
        measured.append(cell)
    assert measured == cells[:1]


def test_an_interrupt_while_it_starts(fake: Fake) -> None:
    cell = fake.place.cell("prism", TREE)
    assert list(fake.engine.measure(fake.place.assignment([cell]), lambda: True)) == []
    fake.works()


def test_a_death_between_cells_is_survived(fake: Fake) -> None:
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("one", "talk")]
    run = fake.measure(*cells)
    assert next(run)[0] == cells[0]
    pid = fake.pid
    os.kill(pid, signal.SIGKILL)
    assert [cell for cell, _ in run] == cells[1:]
    assert fake.pid != pid
    assert fake.starts() == 2


def test_a_death_within_a_cell_is_survived(fake: Fake) -> None:
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("one", "talk")]
    alone = {cell: [sample.output_sha256 for sample in result.samples] for cell, result in fake.measure(*cells)}
    fake.order("answer:kill")
    results = dict(fake.measure(*cells))
    assert {cell: [sample.output_sha256 for sample in result.samples] for cell, result in results.items()} == alone
    assert fake.starts() == 2


def test_each_cell_may_cost_one_engine(fake: Fake) -> None:
    """A death that the next start survives does not count against the cells after it."""
    cells = [fake.place.cell("prism", TREE, benchmark=name) for name in ("one", "talk")]
    measured = []
    fake.order("answer:kill")
    for cell, _ in fake.measure(*cells):
        measured.append(cell)
        fake.order("answer:kill")
    assert measured == cells
    assert fake.starts() == 3


def test_two_deaths_over_one_cell_are_an_error(fake: Fake) -> None:
    fake.order("answer:kill", "answer:kill")
    with pytest.raises(DeviceError, match=r"ended 2 times \(signal SIGKILL\)"):
        list(fake.measure(fake.place.cell("prism", TREE)))
    assert fake.starts() == 2
    fake.works()


def test_memory_that_ran_out_is_said(fake: Fake) -> None:
    fake.order("answer:memory", "answer:memory")
    with pytest.raises(DeviceError, match="out of memory") as caught:
        list(fake.measure(fake.place.cell("prism", TREE)))
    assert isinstance(caught.value.__cause__, MemoryError)


def test_a_hung_engine_is_replaced(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.works()
    monkeypatch.setattr(sglang_process, "PATIENCE", 0.5)
    pid = fake.pid
    fake.order("answer:hang")
    fake.works()
    assert not psutil.pid_exists(pid)
    fake.order("answer:hang", "start:", "answer:hang")
    with pytest.raises(DeviceError, match=r"\(no response for 0 s\)"):
        fake.works()


def test_a_host_that_dies_at_start(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.order("start:die")
    fake.works()
    assert fake.starts() == 2
    fake.engine.close()
    fake.order("start:die", "start:die")
    with pytest.raises(DeviceError, match=r"\(exit code 3\): ValueError: cannot be started"):
        fake.works()
    assert "the engine's process died (exit code 3)" in capsys.readouterr().out
    fake.works()


def test_what_sglang_printed_is_relayed(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    fake.order("answer:memory")
    fake.works()
    assert capsys.readouterr().out.count("torch.OutOfMemoryError: CUDA out of memory") == 1


def test_another_engine_than_the_one_started_is_refused(fake: Fake) -> None:
    fake.order("start:nonce")
    with pytest.raises(DeviceError, match="not the one that was started"):
        fake.works()
    fake.works()


def test_an_engine_that_runs_with_another_tree_is_refused(fake: Fake) -> None:
    fake.order("configure:ignore")
    with pytest.raises(DeviceError, match="tree 6,5,24 instead of 3,3,8"):
        fake.works()
    fake.works()


def test_what_cannot_be_configured_is_said(fake: Fake) -> None:
    fake.order("configure:refuse")
    with pytest.raises(DeviceError, match="SGLang refused: the engine is busy"):
        fake.works()
    fake.works()
    assert fake.starts() == 1


@pytest.mark.parametrize(("deed", "says"), [("refuse", "The input is too long"), ("abort", "it was too much")])
def test_a_request_that_is_refused(deed: str, says: str, fake: Fake) -> None:
    fake.works()
    fake.order(f"answer:{deed}")
    with pytest.raises(DeviceError, match=f"SGLang could not answer: .*{says}"):
        fake.works()
    fake.works()
    assert fake.starts() == 1


def test_hosts_end_with_their_worker(place: Place, tmp_path: Path) -> None:
    code = """
import sys, time
from prism_ae.engines.sglang.process import Host
options = {"dtype": "float32", "max_running_requests": 1}
hosts = [Host(options, {"PYTHONPATH": sys.argv[1], "PRISM_AE_DRAFTING": "exact"}, lambda: False) for _ in range(2)]
print(*(host.pid for host in hosts), flush=True)
time.sleep(3600)
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(FAKE)],
        env={**os.environ, "FAKE_SGLANG": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout
    with worker.stdout:
        hosts = [psutil.Process(int(pid)) for pid in worker.stdout.readline().split()]
        assert [host.is_running() for host in hosts] == [True, True]
        worker.kill()
        worker.wait()
        for host in hosts:
            host.wait(60)  # raises TimeoutExpired


def test_nothing_is_left_behind(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:  # a short one
        monkeypatch.setattr(tempfile, "tempdir", name)
        fake.works()
        assert list(Path(name).iterdir())
        fake.engine.close()
        assert list(Path(name).iterdir()) == []


def test_a_temporary_folder_with_a_long_path_is_no_trouble(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    fake.works()
    assert fake.engine._host
    folder = Path(fake.engine._host._folder)
    assert folder.is_dir()
    assert len(os.fsencode(folder)) < 60
    fake.engine.close()
    assert not folder.exists()


def test_a_tree_larger_than_the_capacity_still_fits_the_assignment(fake: Fake) -> None:
    """An engine is started for the capacity; the fake one, unlike SGLang, would draft any tree."""
    assignment = fake.place.assignment([fake.place.cell("prism", TREE)])
    list(fake.engine.measure(assignment, lambda: False))
    (setup,) = fake.engine._hosts.setups
    assert setup.tree == TreeShape(6, 5, 24)
    assert (setup.batch, setup.max_seq_len) == (64, 200)


def test_it_keeps_the_largest_batch_that_is_asked_for(fake: Fake) -> None:
    cells: Any = [fake.place.cell("prism", TREE)]
    small = fake.place.assignment(cells, capacity=dataclasses.replace(CAPACITY, max_batch=1))
    list(fake.engine.measure(small, lambda: False))
    assert [setup.batch for setup in fake.engine._hosts.setups] == [8]  # what is not timed is asked eight at a time
    fake.works()
    assert [setup.batch for setup in fake.engine._hosts.setups] == [64]
