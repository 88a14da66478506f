"""The parent of a run: a pool of workers that measure cells until all of them have an outcome."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

from prism_ae.cells import Cell
from prism_ae.devices.slots import Slot
from prism_ae.engines.protocol import Assignment
from prism_ae.execution.worker import CellFinished, RunSetup, WorkerSetup
from prism_ae.io.words import duration
from prism_ae.planning.queue import Queue
from prism_ae.processes import DEATHS
from prism_ae.processes.interrupts import Interrupts
from prism_ae.processes.pool import Pool, Process
from prism_ae.processes.progress import Display
from prism_ae.store import AttemptOutcome
from prism_ae.store.records import KILLED, OK


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        measured: cells measured in this run; failed: cell id -> message; left: cells without an outcome.
        interrupted: it was asked to stop.
        seconds: it took.
    """

    measured: int
    failed: Mapping[str, str]
    left: int
    interrupted: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class ToMeasure:
    """What a run measures.

    Attributes:
        assignments: in order of preference.
        further: of a target whose timed cells all have an outcome, what is to be measured of it besides.
    """

    assignments: Sequence[Assignment]
    further: Callable[[str], Sequence[Assignment]] = lambda target: ()


class CellRun:
    """One run over a store whose lock is held by the caller.

    Args:
        slots: at least one; more than there are assignments are not used.
        launch: starts a worker in a slot; interrupts: counts what the user asked for.
    """

    def __init__(
        self,
        setup: RunSetup,
        work: ToMeasure,
        slots: Sequence[Slot],
        launch: Callable[[WorkerSetup], Process],
        interrupts: Interrupts,
        *,
        display: Display,
    ) -> None:
        # All slots are of one kind; those of the CPU share it.
        self._queue = Queue(work.assignments, alone=slots[0].device == "cpu")
        self._total = self._queue.unfinished
        self._setup, self._store = setup, setup.open_store()
        slots = slots[: max(1, len(work.assignments))]
        self._devices = {slot.label: slot.name for slot in slots}
        starts = {slot.label: functools.partial(launch, WorkerSetup(setup, slot)) for slot in slots}
        self._pool = Pool(self._queue, starts, self._heard, self._died, interrupts=interrupts, note=display.note)
        self._interrupts, self._display, self._further = interrupts, display, work.further
        self._measured = 0
        self._failed: dict[str, str] = {}
        self._begin = 0.0

    def execute(self) -> Outcome:
        """Until every cell has an outcome, or the user stops it.

        Raises:
            StoreError: the store cannot be written.
            DeviceError: no worker can be started.
        """
        self._begin = time.monotonic()
        self._pool.run()
        return Outcome(
            measured=self._measured,
            failed=self._failed,
            left=self._queue.unfinished,
            interrupted=self._interrupts.count > 0,
            seconds=time.monotonic() - self._begin,
        )

    def _heard(self, assignment: Assignment, message: CellFinished) -> None:
        self._queue.finished(message.cell_id)
        self._count(message.cell_id, message.status, message.message)
        point = assignment.cells[0].point
        if point.batch is not None and not self._queue.waits_for_times(point.target):
            self._total += self._queue.add(self._further(point.target))

    def _died(self, assignment: Assignment, label: str, how: str, words: bytes) -> None:
        self._display.note(f"the worker of {label} died ({how}); its unfinished cells are tried again")
        records = self._store.records()
        for cell in assignment.cells:  # what it wrote to the store and could not report any more
            if cell.id in records and records[cell.id].ok and self._queue.finished(cell.id):
                self._count(cell.id, OK, "")
        for cell in self._queue.died(assignment):
            self._give_up(cell, self._devices[label], how, words)

    def _give_up(self, cell: Cell, device: str, how: str, words: bytes) -> None:
        message = f"its worker died {DEATHS} times ({how})"
        (attempt,) = self._store.begin([cell], {**self._setup.provenance, "device": device})
        self._store.commit(attempt, AttemptOutcome(KILLED, message), 0.0, device, words)
        self._count(cell.id, KILLED, message)

    def _count(self, cell_id: str, status: str, message: str) -> None:
        if status == OK:
            self._measured += 1
        else:
            self._failed[cell_id] = message
            self._display.note(f"cell {cell_id}: {status}: {message}")
        done = self._measured + len(self._failed)
        seconds = time.monotonic() - self._begin
        self._display.show(cells_state(done, self._total, len(self._failed), seconds), done)


def cells_state(done: int, total: int, failed: int, seconds: float) -> str:
    """ "12 of 300 cells, 3.1 per second, 1:33 left": ``done`` of ``total`` cells after ``seconds``."""
    parts = [f"{done} of {total} cells"]
    if failed:
        parts.append(f"{failed} failed")
    if done and seconds > 0:
        rate = done / seconds
        parts.append(f"{rate:.1f} per second" if rate >= 1 else f"{1 / rate:.1f} s each")
        parts.append(f"{duration((total - done) / rate)} left")
    return ", ".join(parts)
