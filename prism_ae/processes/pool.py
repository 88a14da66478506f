"""Workers that take assignments from their parent until nothing is left to do, whatever happens to one of them.

What can go wrong, and what then happens:
- a worker dies (killed, crashed, out of memory): what it did not finish waits again, and it is started anew; what two
  workers died over is given up;
- a worker cannot start, or cannot use its device: its slot is given up; the last one's error is raised;
- the store cannot be written: everything stops, and the error is raised;
- Ctrl-C or SIGTERM, where they are counted: workers finish writing what is measured and leave; a second one kills them.

What the assignments are, and in which order they are given out, is the `WorkQueue`'s to say; where the workers are, is
`Launch`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from prism_ae.errors import DeviceError, PrismError
from prism_ae.processes.interrupts import Interrupts
from prism_ae.processes.shadowing import shadowing_error

_TICK = 0.1
_STARTS = 3
_PATIENCE = 20.0
"""Seconds between looks at the signals; starts in a row that may fail; seconds for a worker to leave when told."""

Affinity = tuple[str, ...]
"""What a worker holds in memory for an assignment, the most expensive to change first."""


class Process(Protocol):
    """A worker, seen from its parent: a `Child`, or what a cluster has instead.

    It gets an assignment whenever it is free, and `Stop` at any time. It says `Ready` once, `AssignmentDone` per
    assignment, and whatever else its run understands; `DeviceFailed` or `StoreFailed` when it cannot go on.
    ``connection`` is closed on its side when it ends.
    """

    connection: Connection[Any, Any]

    def kill(self) -> None: ...

    def wait(self, seconds: float) -> str | None:
        """How it ended, in words; None if it has not within ``seconds``."""
        ...

    def output(self) -> bytes:
        """The end of what it printed."""
        ...

    def close(self) -> None: ...


Launch = Callable[[], Process]
"""Starts a worker; raises PrismError."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """Finish writing what is measured, then leave."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """The worker waits for its first assignment."""


@dataclasses.dataclass(frozen=True)
class AssignmentDone:
    """The assignment is over. ``leaving``: the worker ends now, because its device may be in a bad state."""

    leaving: bool = False


@dataclasses.dataclass(frozen=True)
class DeviceFailed:
    """This worker's device cannot be used: the assignment was not begun. The worker ends."""

    error: PrismError


@dataclasses.dataclass(frozen=True)
class StoreFailed:
    """The store cannot be written: nobody can go on. The worker ends."""

    error: PrismError


class Assigned(Protocol):
    """An assignment: what a worker has at a time."""

    @property
    def affinity(self) -> Affinity: ...


A = TypeVar("A", bound=Assigned)


class WorkQueue(Protocol[A]):
    """Assignments that wait, or are under way."""

    @property
    def unfinished(self) -> int:
        """0 once there is nothing left that a worker could do, or is doing."""
        ...

    def wants_worker(self, workers: int) -> bool:
        """Whether one more worker than these would have something to do."""
        ...

    def take(self, held: Affinity, elsewhere: Sequence[Affinity], *, quiet: bool) -> A | None:
        """The next assignment for a worker; None if there is none for it now.

        Args:
            held: the affinity of the assignment that it had before; () if it had none.
            elsewhere: those of the workers beside it.
            quiet: whether no worker starts or leaves just now.
        """
        ...

    def over(self, assignment: A) -> None: ...

    def put_back(self, assignment: A) -> None:
        """It was not begun."""
        ...


@dataclasses.dataclass
class _WorkerSlot(Generic[A]):
    """Room for a worker, and who works there.

    ``ready``: it takes assignments; ``affinity``: of the last one; ``exit_deadline``: when a worker that said it would
    leave is killed.
    """

    label: str
    launch: Launch
    process: Process | None = None
    ready: bool = False
    assignment: A | None = None
    affinity: Affinity = ()
    exit_deadline: float | None = None
    failed_starts: int = 0


class Pool(Generic[A]):
    """One worker per slot.

    Args:
        slots: at least one: its label, for messages, and what starts a worker in it.
        heard: called with an assignment and what its worker says of it.
        died: called with an assignment, its slot's label, how its worker died, and what that printed last. It tells the
            queue, and raises PrismError where nobody can go on.
        interrupts: counts what the user asked for.
        note: shows a line.
    """

    def __init__(
        self,
        queue: WorkQueue[A],
        slots: Mapping[str, Launch],
        heard: Callable[[A, Any], None],
        died: Callable[[A, str, str, bytes], None],
        *,
        interrupts: Interrupts,
        note: Callable[[str], None],
    ) -> None:
        self._queue, self._heard, self._died = queue, heard, died
        self._interrupts, self._note = interrupts, note
        self._slots = [_WorkerSlot[A](label, launch) for label, launch in slots.items()]
        self._error: PrismError | None = None

    def run(self) -> None:
        """Until nothing is left to do, or the user stops it. No worker is left behind, whatever is raised.

        Raises:
            PrismError: of a store that cannot be written, or of the last slot in which no worker can be started.
        """
        try:
            while self._queue.unfinished and self._error is None and not self._interrupts.count:
                self._fill_slots()
                self._listen()
            self._leave()
        finally:
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
                    slot.process.wait(_PATIENCE)
                    slot.process.close()
        if self._error is not None:
            raise self._error

    def _fill_slots(self) -> None:
        """Start a worker in an empty slot, and give idle ones work, as long as there is some."""
        for slot in self._slots:
            others = [other for other in self._slots if other is not slot and other.process is not None]
            if slot.process is None and slot.failed_starts < _STARTS and self._queue.wants_worker(len(others)):
                slot.process, slot.exit_deadline = slot.launch(), None
            if slot.ready and slot.assignment is None:
                elsewhere = [other.affinity for other in others if other.ready]
                slot.assignment = self._queue.take(slot.affinity, elsewhere, quiet=all(other.ready for other in others))
                if slot.assignment is not None:
                    slot.affinity = slot.assignment.affinity
                    self._tell(slot, slot.assignment)

    def _tell(self, slot: _WorkerSlot[A], message: object) -> None:
        """Send; a worker that is gone is noticed when its end of the connection is read."""
        if slot.process is not None:
            with contextlib.suppress(OSError):
                slot.process.connection.send(message)

    def _listen(self) -> None:
        """Handle what workers say within a tick."""
        slots = {slot.process.connection: slot for slot in self._slots if slot.process is not None}
        for connection in wait(list(slots), _TICK):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, OSError):
                self._ended(slots[connection])
            else:
                self._handle(slots[connection], message)
        for slot in self._slots:
            if slot.process is not None and slot.exit_deadline is not None and time.monotonic() > slot.exit_deadline:
                slot.process.kill()

    def _handle(self, slot: _WorkerSlot[A], message: object) -> None:
        assignment = slot.assignment
        if isinstance(message, Ready):
            slot.ready, slot.failed_starts = True, 0
        elif isinstance(message, StoreFailed):
            slot.assignment = None
            self._error = self._error or message.error
        elif assignment is not None and isinstance(message, AssignmentDone | DeviceFailed):
            slot.assignment = None
            if leaving := isinstance(message, DeviceFailed) or message.leaving:
                slot.exit_deadline = time.monotonic() + _PATIENCE
            slot.ready = not leaving
            if isinstance(message, DeviceFailed):
                self._queue.put_back(assignment)
                self._give_up(slot, message.error)
            else:
                self._queue.over(assignment)
        elif assignment is not None:
            self._heard(assignment, message)

    def _ended(self, slot: _WorkerSlot[A]) -> None:
        """A worker's process is gone: expected after it left, otherwise a death."""
        process, assignment, was_ready = slot.process, slot.assignment, slot.ready
        assert process is not None
        how = process.wait(_PATIENCE)
        if how is None:
            process.kill()
            how = process.wait(_PATIENCE) or "no answer"
        words = process.output()
        process.close()
        slot.process, slot.ready, slot.assignment, slot.affinity = None, False, None, ()
        if assignment is not None:
            try:
                self._died(assignment, slot.label, how, words)
            except PrismError as error:
                self._error = self._error or error
        elif not (was_ready or slot.exit_deadline or self._error or self._interrupts.count or how == "exit code 0"):
            slot.failed_starts += 1
            if slot.failed_starts >= _STARTS:
                self._give_up(slot, not_started(slot.label, how, words.decode(errors="replace").strip()))

    def _give_up(self, slot: _WorkerSlot[A], error: PrismError) -> None:
        """Go on without this slot; the last one's error ends the run."""
        slot.failed_starts = _STARTS
        self._note(f"{slot.label} is not used: {error}")
        if all(other.failed_starts >= _STARTS for other in self._slots):
            self._error = self._error or error

    def _leave(self) -> None:
        """Tell everyone to stop and wait for them; a second interrupt does not wait."""
        if self._interrupts.count:
            self._note("stopping: writing what is measured; once more to stop at once")
        for slot in self._slots:
            self._tell(slot, Stop())
        deadline = None if self._interrupts.count else time.monotonic() + _PATIENCE
        while any(slot.process for slot in self._slots) and self._interrupts.count < 2:
            if deadline is not None and time.monotonic() > deadline:
                return
            self._listen()


def not_started(label: str, how: str, words: str) -> PrismError:
    """Why a worker does not start: a foreign module, or what it said itself."""
    hint = "its last words are above"
    if "ImportError" in words or "ModuleNotFoundError" in words:
        hint += "; 'make setup' repairs an environment in which something is missing"
    error = DeviceError(f"a worker on {label} does not start ({how}):\n{words[-2000:]}", hint)
    return shadowing_error(words) or error
