"""The parent against scripted workers (threads on a pipe): deaths and refusals at the moments that are hard to hit."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, fake_samples
from sweeps import Sweep

from prism_ae.cells import EngineSettings, Result
from prism_ae.devices.slots import Slot
from prism_ae.engines.protocol import Assignment
from prism_ae.errors import DeviceError, StoreError
from prism_ae.execution.run import CellRun, Outcome, ToMeasure
from prism_ae.execution.worker import CellFinished, RunSetup, Worker, WorkerSetup
from prism_ae.processes.pool import AssignmentDone, DeviceFailed, Ready, Stop, StoreFailed
from prism_ae.store import AttemptOutcome

Script = Callable[[Connection, WorkerSetup], None]


class Scripted:
    """A worker that is a thread. Its connection closes when the script ends, as a process's does."""

    def __init__(self, script: Script, how: str = "exit code 0") -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._how = how

        def live() -> None:
            with theirs:
                script(theirs, theirs.recv())

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        pass

    def wait(self, seconds: float) -> str | None:
        self._thread.join(seconds)
        return self._how

    def output(self) -> bytes:
        return b"famous last words\n"

    def close(self) -> None:
        self.connection.close()


class Quiet:
    """A display that remembers its notes, and how many cells were done."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done: list[int] = []

    def show(self, text: str, done: int = 0) -> None:
        self.done.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Never:
    count = 0


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = Sweep(tmp_path)
    made.store().prepare()
    return made


def assignments(sweep: Sweep, timed: bool = False) -> tuple[Assignment, ...]:
    """Three untimed ones, and with ``timed`` the same again at two batch sizes."""
    from prism_ae.experiments.options import Options
    from prism_ae.experiments.request import make_request
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import make_plan, resolve

    options = Options(benches=("qa",), questions=2, engine="fake", targets=("llama-2",))
    request = make_request(["figure1"], str(sweep.suite_file), options)
    batches = (None, 1, 2) if timed else (None,)
    points = [dataclasses.replace(point, batch=batch) for point in request.all_points for batch in batches]
    resolved = resolve(points, LocalLookup(sweep.suite, sweep.models))
    return make_plan(resolved, sweep.store().records()).assignments


def honest(connection: Connection, setup: WorkerSetup) -> None:
    """The real worker's code, in this process."""
    Worker(setup, connection, lambda *arguments: FakeEngine(*arguments[1:]), lambda: b"").serve()


def go(
    sweep: Sweep,
    *workers: Callable[[], Scripted],
    slots: int = 1,
    device: str = "cpu",
    timed: bool = False,
    interrupts: Any = None,
) -> tuple[Outcome, Quiet]:
    """Run with these workers, started in this order; the last one is started again and again."""
    waiting = list(workers)
    progress = Quiet()

    def launch(setup: WorkerSetup) -> Scripted:
        worker = (waiting.pop(0) if len(waiting) > 1 else waiting[0])()
        worker.connection.send(setup)
        return worker

    places = [Slot(f"slot {number}", device, "a device", 1, {}) for number in range(slots)]
    work = assignments(sweep, timed)
    stop = interrupts or Never()
    run = CellRun(setup_of(sweep), ToMeasure(work), places, launch, stop, display=progress)
    return run.execute(), progress


def test_what_is_to_be_measured_besides_follows_once_a_targets_times_are_there(sweep: Sweep) -> None:
    """In the same workers, so that no engine is started for it."""
    (first, *_) = [one for one in assignments(sweep, timed=True) if one.timed]
    (cell,) = first.cells
    again = dataclasses.replace(cell, point=dataclasses.replace(cell.point, repeat=3))
    asked: list[str] = []

    def further(target: str) -> list[Assignment]:
        asked.append(target)
        return [dataclasses.replace(first, cells=(again,))] if len(asked) == 1 else []

    display, workers = Quiet(), []

    def launch(setup: WorkerSetup) -> Scripted:
        workers.append(Scripted(honest))
        workers[-1].connection.send(setup)
        return workers[-1]

    slot = Slot("slot", "cpu", "a device", 1, {})
    work = ToMeasure(assignments(sweep, timed=True), further)
    outcome = CellRun(setup_of(sweep), work, [slot], launch, Never(), display=display).execute()
    assert asked == [cell.point.target] * 2
    assert (outcome.measured, outcome.left, len(workers)) == (sum(len(one.cells) for one in work.assignments) + 1, 0, 1)
    assert sweep.store().records()[again.id].ok


def setup_of(sweep: Sweep) -> RunSetup:
    return RunSetup(sweep.suite, sweep.root, sweep.models, {"argv": []})


def test_all_cells_are_measured(sweep: Sweep) -> None:
    outcome, progress = go(sweep, lambda: Scripted(honest))
    assert (outcome.measured, outcome.left, outcome.interrupted) == (6, 0, False)
    assert progress.done == [1, 2, 3, 4, 5, 6]
    assert assignments(sweep) == ()


def test_a_cell_written_by_a_worker_that_died_before_it_could_say_so_is_not_measured_again(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def dies(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        assignment = connection.recv()
        store = setup.run.open_store()
        (attempt, _) = store.begin(assignment.cells, {})
        store.commit(
            attempt, AttemptOutcome("ok", "", Result(fake_samples(attempt.cell), 1.0, EngineSettings())), 1.0, "x", b""
        )
        written.append(attempt.cell.id)

    outcome, progress = go(sweep, lambda: Scripted(dies, "signal SIGKILL"), lambda: Scripted(honest))
    assert outcome.measured == 6
    assert progress.done[-1] == len(progress.done) == 6
    log = (sweep.root / "log.jsonl").read_text()
    assert log.count(f'"cell_id":"{written[0]}"') == 1
    assert sorted(path.name for path in (sweep.root / "cells").iterdir()) == sorted(sweep.store().records())
    assert "signal SIGKILL" in progress.notes[0]


def test_workers_that_do_not_start_end_the_run_with_their_last_words(sweep: Sweep) -> None:
    def stillborn(connection: Connection, setup: WorkerSetup) -> None:
        pass

    with pytest.raises(DeviceError, match=r"exit code 1.*\nfamous last words"):
        go(sweep, lambda: Scripted(stillborn, "exit code 1"), slots=2)
    assert sweep.store().records() == {}


def test_a_slot_that_cannot_be_used_leaves_its_work_to_the_others(sweep: Sweep) -> None:
    def refuses(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        connection.recv()
        connection.send(DeviceFailed(DeviceError("this device is broken")))

    outcome, progress = go(sweep, lambda: Scripted(refuses), lambda: Scripted(honest), slots=2)
    assert (outcome.measured, outcome.failed) == (6, {})
    assert len(progress.notes) == 1
    assert "slot 0" in progress.notes[0]
    assert "this device is broken" in progress.notes[0]


def test_a_store_that_cannot_be_written_ends_the_run(sweep: Sweep) -> None:
    def full(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        connection.recv()
        connection.send(StoreFailed(StoreError("the disk is full")))

    with pytest.raises(StoreError, match="the disk is full"):
        go(sweep, lambda: Scripted(full))


def test_a_worker_that_leaves_is_replaced(sweep: Sweep) -> None:
    def leaves(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        for cell in connection.recv().cells:
            connection.send(CellFinished(cell.id, "failed", "a bug"))
        connection.send(AssignmentDone(leaving=True))

    outcome, _ = go(sweep, lambda: Scripted(leaves), lambda: Scripted(honest))
    assert (outcome.measured, set(outcome.failed.values())) == (4, {"a bug"})


class Watched:
    """Workers in this process whose measuring is watched: who measures beside whom.

    The first one that measures something timed (``together`` true) or untimed (false) waits for a second.
    """

    def __init__(self, together: bool | None = None) -> None:
        self.together = together
        self.lock = threading.Lock()
        self.busy: list[bool] = []
        self.beside: list[tuple[bool, ...]] = []
        self.workers: dict[bool, set[int]] = {True: set(), False: set()}
        self.started = 0

    def __call__(self) -> Scripted:
        watched, number = self, self.started
        self.started += 1

        class Engine(FakeEngine):
            def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
                with watched.lock:
                    watched.busy.append(assignment.timed)
                    watched.beside.append(tuple(watched.busy))
                    watched.workers[assignment.timed].add(number)
                while watched.together is assignment.timed and len(watched.workers[assignment.timed]) < 2:
                    time.sleep(0.001)
                yield from super().measure(assignment, should_stop)
                with watched.lock:
                    watched.busy.remove(assignment.timed)

        def live(connection: Connection, setup: WorkerSetup) -> None:
            Worker(setup, connection, lambda *arguments: Engine(*arguments[1:]), lambda: b"").serve()

        return Scripted(live)


def test_on_a_cpu_nothing_runs_beside_what_is_timed_and_one_worker_does_all_of_it(sweep: Sweep) -> None:
    watched = Watched(together=False)
    outcome, progress = go(sweep, watched, slots=3, timed=True)
    assert (outcome.measured, outcome.left, progress.notes) == (18, 0, [])
    assert (False, False) in watched.beside, "the others were shared"
    assert [beside for beside in watched.beside if True in beside] == [(True,)] * 12  # a cell each
    assert len(watched.workers[True]) == 1
    assert watched.started == 3, "waiting is no death"


def test_on_gpus_timed_assignments_run_side_by_side(sweep: Sweep) -> None:
    watched = Watched(together=True)
    outcome, _ = go(sweep, watched, slots=3, timed=True, device="cuda:0")
    assert outcome.measured == 18
    assert any(beside.count(True) > 1 for beside in watched.beside)


def test_for_timed_assignments_alone_one_worker_is_started(sweep: Sweep) -> None:
    assert go(sweep, Watched(), slots=3)[0].measured == 6
    watched = Watched()
    assert go(sweep, watched, slots=3, timed=True)[0].measured == 12
    assert watched.started == 1


def test_a_timed_assignment_whose_worker_dies_is_begun_again_by_a_new_one(sweep: Sweep) -> None:
    go(sweep, Watched(), slots=3)

    def dies(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        connection.recv()

    outcome, progress = go(sweep, lambda: Scripted(dies, "signal SIGKILL"), Watched(), slots=3, timed=True)
    assert (outcome.measured, outcome.left) == (12, 0)
    assert "signal SIGKILL" in progress.notes[0]


def test_workers_that_wait_for_something_timed_are_told_to_stop(sweep: Sweep) -> None:
    class Asked:
        count = 0

    asked, begun = Asked(), threading.Event()

    def slow(connection: Connection, setup: WorkerSetup) -> None:
        class Engine(FakeEngine):
            def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
                if not assignment.timed:
                    yield from super().measure(assignment, should_stop)
                    return
                begun.set()
                while not should_stop():
                    time.sleep(0.001)

        Worker(setup, connection, lambda *arguments: Engine(*arguments[1:]), lambda: b"").serve()

    def interrupt() -> None:
        begun.wait()
        asked.count = 1

    threading.Thread(target=interrupt, daemon=True).start()
    outcome, progress = go(sweep, lambda: Scripted(slow), slots=2, timed=True, interrupts=asked)
    assert (outcome.measured, outcome.left, outcome.interrupted) == (6, 12, True)
    assert progress.notes == ["stopping: writing what is measured; once more to stop at once"]


@pytest.mark.parametrize("last", [AssignmentDone(leaving=True), DeviceFailed(DeviceError("this device is broken"))])
def test_a_worker_that_said_it_leaves_and_does_not_is_killed(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, last: AssignmentDone | DeviceFailed
) -> None:
    """Otherwise what is timed would wait for it for ever."""
    from prism_ae.processes import pool

    monkeypatch.setattr(pool, "_PATIENCE", 0.2)
    killed = threading.Event()

    class Stubborn(Scripted):
        def kill(self) -> None:
            killed.set()

        def wait(self, seconds: float) -> str | None:
            self._thread.join()
            return "signal SIGKILL"

    def stays(connection: Connection, setup: WorkerSetup) -> None:
        connection.send(Ready())
        for cell in connection.recv().cells if isinstance(last, AssignmentDone) else ():
            connection.send(CellFinished(cell.id, "failed", "a bug"))
        connection.send(last)
        killed.wait()

    outcome, progress = go(sweep, lambda: Stubborn(stays), lambda: Scripted(honest), slots=2, timed=True)
    assert killed.is_set()
    failed = 2 if isinstance(last, AssignmentDone) else 0
    assert (outcome.measured, len(outcome.failed)) == (18 - failed, failed)
    assert [note for note in progress.notes if "does not start" in note] == []


class Talk:
    """The parent's end of a real `Worker` in a thread."""

    def __init__(self, sweep: Sweep, make: Any) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        setup = WorkerSetup(setup_of(sweep), Slot("cpu slot 0", "cpu", "a cpu", 1, {}))
        worker = Worker(setup, theirs, make, lambda: b"")
        self._thread = threading.Thread(target=worker.serve, daemon=True)
        self._thread.start()
        assert self.connection.recv() == Ready()

    def ask(self, assignment: Assignment) -> list[Any]:
        self.connection.send(assignment)
        heard = [self.connection.recv()]
        while isinstance(heard[-1], CellFinished):
            heard.append(self.connection.recv())
        return heard

    def end(self) -> None:
        with contextlib.suppress(OSError):  # it may have left before
            self.connection.send(Stop())
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_a_worker_keeps_its_engine_between_assignments_and_closes_it(sweep: Sweep) -> None:
    made, closed = [], []

    class Engine(FakeEngine):
        def close(self) -> None:
            closed.append(self)

    def make(name: str, *arguments: Any) -> Engine:
        made.append((name, *arguments))
        return Engine(*arguments)

    talk = Talk(sweep, make)
    for one in assignments(sweep):
        assert talk.ask(one)[-1] == AssignmentDone()
    talk.end()
    assert made == [("fake", sweep.suite, sweep.models, "cpu", 1)]
    assert len(closed) == 1
    assert assignments(sweep) == ()


def test_a_worker_that_met_a_bug_leaves_and_is_not_used_again(sweep: Sweep) -> None:
    class Buggy(FakeEngine):
        def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
            raise ZeroDivisionError("no such number")
            yield

    talk = Talk(sweep, lambda name, *arguments: Buggy(*arguments))
    heard = talk.ask(assignments(sweep)[0])
    assert heard[-1] == AssignmentDone(leaving=True)
    assert heard[0].message == "ZeroDivisionError: no such number; the trace is in engine.log"
    talk.end()


def test_numbers_that_contradict_themselves_do_not_enter_the_store(sweep: Sweep) -> None:
    class Wrong(FakeEngine):
        def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
            first, second = assignment.cells
            yield first, Result(fake_samples(first)[:1], 1.0, EngineSettings())
            sample = dataclasses.replace(fake_samples(second)[0], generated_tokens=9999)
            yield second, Result((sample, fake_samples(second)[1]), 1.0, EngineSettings())

    talk = Talk(sweep, lambda name, *arguments: Wrong(*arguments))
    one = assignments(sweep)[0]
    few, torn, done = talk.ask(one)
    talk.end()
    assert done == AssignmentDone()
    assert (few.status, torn.status) == ("failed", "failed")
    assert {"1", "2"} <= set(few.message.split())
    assert torn.message
    assert {record.status for record in sweep.store().records().values()} == {"failed"}


def test_running_out_of_memory_on_a_device_has_its_own_status(sweep: Sweep) -> None:
    class OutOfMemoryError(RuntimeError):
        """Named as torch's."""

    class Small(FakeEngine):
        def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
            try:
                raise OutOfMemoryError("CUDA out of memory")
            except OutOfMemoryError as error:
                raise DeviceError("the GPU ran out of memory", "take a smaller batch") from error
            yield

    talk = Talk(sweep, lambda name, *arguments: Small(*arguments))
    heard = talk.ask(assignments(sweep)[0])
    talk.end()
    assert [message.status for message in heard[:-1]] == ["out-of-memory"] * 2
    assert heard[0].message == "the GPU ran out of memory\n  take a smaller batch"


def test_a_worker_stops_within_an_assignment_and_writes_nothing_half(sweep: Sweep) -> None:
    reached = threading.Event()

    class Slow(FakeEngine):
        def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Any:
            first, _ = assignment.cells
            yield first, Result(fake_samples(first), 1.0, EngineSettings())
            reached.set()
            while not should_stop():
                pass

    talk = Talk(sweep, lambda name, *arguments: Slow(*arguments))
    one = assignments(sweep)[0]
    talk.connection.send(one)
    assert reached.wait(10)
    talk.end()
    assert talk.connection.recv() == CellFinished(one.cells[0].id, "ok", "")
    assert talk.connection.recv() == AssignmentDone()
    assert set(sweep.store().records()) == {one.cells[0].id}
