"""The parent of a run: keeps every slot's worker busy until all cells have an outcome, whatever happens to a worker.

What can go wrong, and what then happens:
- a worker dies (killed, crashed, out of memory): its unfinished cells wait again, alone, and it is started anew; a cell
  that was there at two deaths is recorded as "killed";
- a worker cannot start, or its engine cannot use the device: its slot is given up; the last one's error is raised;
- the store cannot be written: everything stops, and the error is raised;
- Ctrl-C or SIGTERM: workers finish writing what is measured and leave; a second one kills them, by their own pids.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from prism_ae.cells import Cell
from prism_ae.devices.slots import Slot
from prism_ae.engines.protocol import Assignment
from prism_ae.errors import DeviceError, PrismError
from prism_ae.execution.interrupts import Interrupts
from prism_ae.execution.messages import Broken, Finished, Over, Ready, Setup, Stop, Unusable
from prism_ae.execution.progress import Progress
from prism_ae.planning.queue import Affinity, Queue
from prism_ae.processes import DEATHS
from prism_ae.processes.local import Launch, Process
from prism_ae.processes.shadowing import shadowing_error
from prism_ae.store import AttemptOutcome, Store
from prism_ae.store.records import KILLED, OK
from prism_ae.suites.records import Suite

_TICK = 0.1
_STARTS = 3
_PATIENCE = 20.0
"""Seconds between looks at the signals; starts in a row that may fail; seconds for a worker to leave when told."""


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


@dataclasses.dataclass
class _Seat:
    """A slot and who works there.

    ``ready``: it takes assignments; ``affinity``: of the last one; ``leave_by``: when a worker that said it would leave
    is killed.
    """

    slot: Slot
    process: Process | None = None
    ready: bool = False
    assignment: Assignment | None = None
    affinity: Affinity = ()
    leave_by: float | None = None
    failed_starts: int = 0


class Run:
    """One run over a store whose lock is held by the caller.

    Args:
        assignments: what to measure, in order of preference.
        slots: at least one; more than there are assignments are not used.
        launch: starts a worker; interrupts: counts what the user asked for.
    """

    def __init__(
        self,
        assignments: Sequence[Assignment],
        store: Store,
        suite: Suite,
        models_dir: Path,
        provenance: Mapping[str, Any],
        slots: Sequence[Slot],
        launch: Launch,
        interrupts: Interrupts,
        progress: Progress,
    ) -> None:
        # All slots are of one kind; those of the CPU share it.
        self._queue = Queue(assignments, alone=slots[0].device == "cpu")
        self._store = store
        self._suite = suite
        self._models_dir = models_dir
        self._provenance = provenance
        self._seats = [_Seat(slot) for slot in slots[: max(1, len(assignments))]]
        self._launch = launch
        self._interrupts = interrupts
        self._progress = progress
        self._measured = 0
        self._failed: dict[str, str] = {}
        self._broken: PrismError | None = None

    def execute(self) -> Outcome:
        """Until every cell has an outcome, or the user stops it.

        Raises:
            StoreError: the store cannot be written.
            DeviceError: no worker can be started.
        """
        begin = time.monotonic()
        try:
            while self._queue.unfinished and self._broken is None and not self._interrupts.count:
                self._fill_seats()
                self._listen()
            self._leave()
        finally:
            for seat in self._seats:
                if seat.process is not None:
                    seat.process.kill()
                    seat.process.wait(_PATIENCE)
                    seat.process.close()
        if self._broken is not None:
            raise self._broken
        return Outcome(
            measured=self._measured,
            failed=self._failed,
            left=self._queue.unfinished,
            interrupted=self._interrupts.count > 0,
            seconds=time.monotonic() - begin,
        )

    def _fill_seats(self) -> None:
        """Start a worker for an empty seat, and give idle ones work, as long as there is some."""
        for seat in self._seats:
            if not self._queue.waiting:
                return
            others = [other for other in self._seats if other is not seat and other.process is not None]
            if seat.process is None and seat.failed_starts < _STARTS and self._queue.wants_worker(len(others)):
                seat.process = self._launch(seat.slot)
                seat.ready, seat.assignment, seat.affinity, seat.leave_by = False, None, (), None
                self._tell(seat, self._setup(seat.slot))
            if seat.process is not None and seat.ready and seat.assignment is None:
                elsewhere = [other.affinity for other in others if other.ready]
                quiet = all(other.ready for other in others)
                seat.assignment = self._queue.take(seat.affinity, elsewhere, quiet=quiet)
                if seat.assignment is not None:
                    seat.affinity = seat.assignment.affinity
                    self._tell(seat, seat.assignment)

    def _setup(self, slot: Slot) -> Setup:
        return Setup(
            suite=self._suite,
            root=self._store.root,
            models_dir=self._models_dir,
            device=slot.device,
            device_name=slot.name,
            threads=slot.threads,
            provenance=self._provenance,
        )

    def _tell(self, seat: _Seat, message: object) -> None:
        """Send; a worker that is gone is noticed when its end of the connection is read."""
        if seat.process is not None:
            with contextlib.suppress(OSError):
                seat.process.connection.send(message)

    def _listen(self) -> None:
        """Handle what workers say within a tick."""
        seats = {seat.process.connection: seat for seat in self._seats if seat.process is not None}
        for connection in wait(list(seats), _TICK):
            assert isinstance(connection, Connection)
            seat = seats[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                self._ended(seat)
                continue
            self._handle(seat, message)
        for seat in self._seats:
            if seat.process is not None and seat.leave_by is not None and time.monotonic() > seat.leave_by:
                seat.process.kill()

    def _handle(self, seat: _Seat, message: object) -> None:
        match message:
            case Ready():
                seat.ready, seat.failed_starts = True, 0
            case Finished(cell_id, status, text):
                self._queue.finished(cell_id)
                self._count(cell_id, status, text)
            case Over(leaving):
                if seat.assignment is not None:
                    self._queue.over(seat.assignment)
                seat.assignment = None
                seat.ready = not leaving
                seat.leave_by = time.monotonic() + _PATIENCE if leaving else None
            case Unusable(error):
                if seat.assignment is not None:
                    self._queue.put_back(seat.assignment)
                seat.assignment, seat.ready = None, False
                seat.leave_by = time.monotonic() + _PATIENCE
                self._give_up_seat(seat, error)
            case Broken(error):
                seat.assignment = None
                self._broken = self._broken or error

    def _count(self, cell_id: str, status: str, message: str) -> None:
        if status == OK:
            self._measured += 1
        else:
            self._failed[cell_id] = message
            self._progress.note(f"cell {cell_id}: {status}: {message}")
        self._progress.cell(status == OK)

    def _ended(self, seat: _Seat) -> None:
        """A worker's process is gone: expected after it left, otherwise a death."""
        process, assignment, was_ready = seat.process, seat.assignment, seat.ready
        assert process is not None
        how = process.wait(_PATIENCE)
        if how is None:
            process.kill()
            how = process.wait(_PATIENCE) or "no answer"
        words = process.output()
        process.close()
        left = seat.leave_by is not None
        seat.process, seat.assignment, seat.affinity, seat.ready = None, None, (), False
        if assignment is not None:
            self._progress.note(f"the worker of {seat.slot.label} died ({how}); its unfinished cells are tried again")
            self._told_too_late(assignment)
            for cell in self._queue.died(assignment):
                self._give_up(cell, seat.slot, how, words)
        elif (
            not was_ready and not left and self._broken is None and not self._interrupts.count and how != "exit code 0"
        ):
            seat.failed_starts += 1
            if seat.failed_starts >= _STARTS:
                self._give_up_seat(seat, _not_started(seat.slot, how, words.decode(errors="replace").strip()))

    def _told_too_late(self, assignment: Assignment) -> None:
        """Cells that the dead worker wrote to the store and could not report any more."""
        records = self._store.records()
        for cell in assignment.cells:
            if cell.id in records and records[cell.id].ok and self._queue.finished(cell.id):
                self._count(cell.id, OK, "")

    def _give_up_seat(self, seat: _Seat, error: PrismError) -> None:
        """Go on without this slot; the last one's error ends the run."""
        seat.failed_starts = _STARTS
        self._progress.note(f"{seat.slot.label} is not used: {error}")
        if all(other.failed_starts >= _STARTS for other in self._seats):
            self._broken = self._broken or error

    def _give_up(self, cell: Cell, slot: Slot, how: str, words: bytes) -> None:
        message = f"its worker died {DEATHS} times ({how})"
        try:
            (attempt,) = self._store.begin([cell], {**self._provenance, "device": slot.name})
            self._store.commit(attempt, AttemptOutcome(KILLED, message), 0.0, slot.name, words)
        except PrismError as error:
            self._broken = self._broken or error
            return
        self._count(cell.id, KILLED, message)

    def _leave(self) -> None:
        """Tell everyone to stop and wait for them; a second interrupt does not wait."""
        if self._interrupts.count:
            self._progress.note("stopping: writing what is measured; once more to stop at once")
        for seat in self._seats:
            self._tell(seat, Stop())
        deadline = None if self._interrupts.count else time.monotonic() + _PATIENCE
        while any(seat.process for seat in self._seats) and self._interrupts.count < 2:
            if deadline is not None and time.monotonic() > deadline:
                return
            self._listen()


def _not_started(slot: Slot, how: str, words: str) -> PrismError:
    """Why a worker does not start: a foreign module, or what it said itself."""
    hint = "its last words are above"
    if "ImportError" in words or "ModuleNotFoundError" in words:
        hint += "; 'make setup' repairs an environment in which something is missing"
    error = DeviceError(f"a worker on {slot.label} does not start ({how}):\n{words[-2000:]}", hint)
    return shadowing_error(words) or error
