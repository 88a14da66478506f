"""A worker process: takes assignments from its parent and writes each cell to the store the moment it is measured.

It keeps its engine, and so the target, between assignments. It never outlives its parent, and leaves signals to it: a
stop is a message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prism_ae.analysis.results import checked_columns
from prism_ae.cells import Cell, Result
from prism_ae.devices.slots import Slot
from prism_ae.engines.protocol import Assignment, Engine
from prism_ae.errors import DeviceError, PrismError, StoreError
from prism_ae.execution.limit import Limit
from prism_ae.execution.load import Load
from prism_ae.execution.unchanged import Unchanged
from prism_ae.processes.child import printed_to
from prism_ae.processes.interrupts import leave_to_parent
from prism_ae.processes.pool import AssignmentDone, DeviceFailed, Ready, Stop, StoreFailed
from prism_ae.processes.shadowing import explained
from prism_ae.store import Attempt, AttemptOutcome, Store
from prism_ae.store.records import FAILED, OK, OUT_OF_MEMORY
from prism_ae.suites.records import Suite

MakeEngine = Callable[[str, Suite, Path, str, int], Engine]
_LOG_LIMIT = 1_000_000


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """What a run is about: its suite, store and models. ``provenance`` goes into every cell's folder."""

    suite: Suite
    root: Path
    models_dir: Path
    provenance: Mapping[str, Any]

    def open_store(self) -> Store:
        """Raises StoreError."""
        return Store(self.root, self.suite.name, self.suite.version)


@dataclasses.dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know: a run, and its own slot."""

    run: RunSetup
    slot: Slot


@dataclasses.dataclass(frozen=True)
class CellFinished:
    """A cell is in the store, as measured or as failed."""

    cell_id: str
    status: str
    message: str


class Worker:
    """One worker's life, between two ends of a connection.

    Args:
        make: starts an engine: name, suite, models folder, device, threads.
        output: everything that was printed in this process so far.
    """

    def __init__(
        self, setup: WorkerSetup, connection: Connection[Any, Any], make: MakeEngine, output: Callable[[], bytes]
    ) -> None:
        self._run, self._slot = setup.run, setup.slot
        self._connection = connection
        self._make = make
        self._output = output
        self._store = setup.run.open_store()
        self._unchanged = Unchanged(setup.run.suite, setup.run.models_dir)
        self._limit = Limit(setup.run.suite, setup.slot)
        self._engine: tuple[str, Engine] | None = None
        self._stopped = False

    def serve(self) -> None:
        """Until told to stop, or until the parent is gone."""
        self._connection.send(Ready())
        while not self._stopped:
            message = self._connection.recv()
            if isinstance(message, Stop):
                break
            try:
                engine = self._engine_for(message.cells[0].point.engine)
            except PrismError as error:
                self._connection.send(DeviceFailed(error))
                return
            try:
                done = self._measure(message, engine)
            except StoreError as error:
                self._connection.send(StoreFailed(error))
                return
            self._connection.send(done)
            if done.leaving:
                return
        if self._engine is not None:
            self._engine[1].close()

    def _should_stop(self) -> bool:
        """Whether the parent said so, or is gone. While an assignment is under way it says nothing else."""
        if not self._stopped and self._connection.poll():
            with contextlib.suppress(EOFError, OSError):
                self._connection.recv()
            self._stopped = True
        return self._stopped

    def _measure(self, assignment: Assignment, engine: Engine) -> AssignmentDone:
        """Measure and write the cells of an assignment; raises StoreError."""
        printed = len(self._output())
        point = assignment.cells[0].point
        print(f"{len(assignment.cells)} cells: {point.target} {point.drafter} {point.trained or '-'} {point.tree}")
        together = [cell.id for cell in assignment.cells]
        provenance = {**self._run.provenance, "device": self._slot.name, "measured_with": together}
        attempts = {attempt.cell.id: attempt for attempt in self._store.begin(assignment.cells, provenance)}
        self._limit.prepare(assignment)
        clock = time.monotonic()

        def finish(attempt: Attempt, status: str, message: str, result: Result | None) -> None:
            nonlocal clock
            clock, before = time.monotonic(), clock
            log = self._output()[printed:][-_LOG_LIMIT:]
            outcome = AttemptOutcome(status, message, result)
            self._store.commit(attempt, outcome, clock - before, self._slot.name, log)
            self._connection.send(CellFinished(attempt.cell.id, status, message))

        failure, leaving = None, False
        load = Load()
        try:
            for cell, result in engine.measure(assignment, self._should_stop):
                if cell.point.batch is not None:
                    result = result.with_others({"other_cores": round(load.other_cores(), 2)})
                if changed := self._unchanged.problem(cell):
                    finish(attempts.pop(cell.id), FAILED, f"{changed} after this run was planned; run again", None)
                elif problem := contradiction(cell, result):
                    finish(attempts.pop(cell.id), FAILED, f"the engine's counts cannot be right: {problem}", None)
                else:
                    finish(attempts.pop(cell.id), OK, "", self._limit.recorded(cell, assignment, result))
        except StoreError:
            raise
        except PrismError as error:
            failure = _memory(error) or FAILED, str(error)
        except Exception as error:  # an engine's bug: recorded with its trace, and nobody trusts this process again
            traceback.print_exc()
            failure = _memory(error) or FAILED, f"{type(error).__name__}: {error}; the trace is in engine.log"
            leaving = True
        if failure is None and not self._stopped:
            failure = FAILED, "the engine gave no result"
        if failure is not None:
            for attempt in attempts.values():
                finish(attempt, *failure, None)
        return AssignmentDone(leaving)

    def _engine_for(self, name: str) -> Engine:
        """The engine, started if it is another than before; raises PrismError."""
        if self._engine is None or self._engine[0] != name:
            if self._engine is not None:
                self._engine[1].close()
                self._engine = None
            run, slot = self._run, self._slot
            try:
                engine = self._make(name, run.suite, run.models_dir, slot.device, slot.threads)
            except PrismError:
                raise
            except Exception as error:
                traceback.print_exc()
                raise explained(error) or DeviceError(
                    f"engine {name} does not start on {slot.name}: {type(error).__name__}: {error}"
                ) from error
            self._engine = name, engine
        return self._engine[1]


def contradiction(cell: Cell, result: Result) -> str:
    """Why a result cannot be an answer to its cell, or "": such numbers must not enter the store."""
    try:
        checked_columns(cell.point, result.samples, result.wall_seconds)
    except ValueError as error:
        return str(error)
    return ""


def _memory(error: BaseException) -> str | None:
    """The status of a cell that ran out of memory, or None: torch's own error, or ours raised from it."""
    while error.__cause__ is not None and not isinstance(error, MemoryError):
        error = error.__cause__
    exhausted = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return OUT_OF_MEMORY if exhausted else None


def _printed() -> bytes:
    """What was written to standard output and error: the parent made them one file."""
    sys.stdout.flush()
    sys.stderr.flush()
    return printed_to(1, 0)


def main(connection: Connection[Any, Any]) -> None:
    from prism_ae.engines import registry

    leave_to_parent()
    Worker(connection.recv(), connection, registry.make, _printed).serve()
