"""Who measures what next. Pure: told of finishes and deaths, asked for the next assignment.

There are no static queues: a worker takes the next assignment when it is free, preferably one for which it has most
loaded. On a CPU an engine keeps all that it has loaded, and what is timed is measured in its order.

Cells whose worker died go back alone, one assignment each and last, so that a second death names its cause.

On a CPU the workers share what is timed: there a timed assignment is given out only while nobody else is busy, and
nothing else while it is under way. On GPUs each worker has a device of its own, and everything runs side by side.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from prism_ae.cells import Cell
from prism_ae.engines.protocol import Assignment
from prism_ae.processes import DEATHS
from prism_ae.processes.pool import Affinity


class Queue:
    """Assignments that wait, in order of preference.

    Args:
        alone: whether a timed assignment must be the only one under way.
    """

    def __init__(self, assignments: Iterable[Assignment], *, alone: bool) -> None:
        self._waiting = list(assignments)
        self._under_way: list[Assignment] = []
        self._alone = alone
        self._unfinished = {cell.id: cell for assignment in self._waiting for cell in assignment.cells}
        self._deaths: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Assignments that nobody has."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Cells without an outcome."""
        return len(self._unfinished)

    def wants_worker(self, workers: int) -> bool:
        """Whether one more worker than these would have something to do. Starting one disturbs what is timed."""
        if not self._alone:
            return bool(self._waiting)
        return any(not one.timed for one in self._waiting) or (bool(self._waiting) and workers == 0)

    def take(self, held: Affinity, elsewhere: Collection[Affinity], *, quiet: bool = True) -> Assignment | None:
        """The next assignment for a worker; None if there is none for it now. Its end is told by one of the others.

        Args:
            held: the affinity of the assignment that it had before; () if it had none.
            elsewhere: those of the workers beside it; what they hold is left to them.
            quiet: whether no worker starts or leaves just now, which would disturb what is timed.
        """
        ready = self._ready(quiet=quiet)
        if not ready:
            return None
        if self._alone and ready[0].timed:
            wanted = [one.affinity for one in ready]
            if any(_most(one, wanted) > _most(held, wanted) for one in elsewhere):
                return None  # one goes after the other anyway: the worker that has more of it loaded goes on
            chosen = ready[0]
        else:
            chosen = min(ready, key=lambda one: (-_common(held, one.affinity), _most(one.affinity, elsewhere)))
        self._waiting.remove(chosen)
        self._under_way.append(chosen)
        return chosen

    def finished(self, cell_id: str) -> bool:
        """A cell has an outcome; False if that was known."""
        return self._unfinished.pop(cell_id, None) is not None

    def waits_for_times(self, target: str) -> bool:
        """Whether a timed cell of a target has no outcome."""
        points = (cell.point for cell in self._unfinished.values())
        return any(point.target == target and point.batch is not None for point in points)

    def add(self, assignments: Sequence[Assignment]) -> int:
        """Further assignments, which are the next; returns how many cells they have."""
        self._waiting[:0] = assignments
        cells = {cell.id: cell for assignment in assignments for cell in assignment.cells}
        self._unfinished |= cells
        return len(cells)

    def over(self, assignment: Assignment) -> None:
        """A worker is done with an assignment."""
        self._under_way.remove(assignment)

    def put_back(self, assignment: Assignment) -> None:
        """An assignment was not begun: it is the next again."""
        self.over(assignment)
        self._waiting.insert(0, assignment)

    def died(self, assignment: Assignment) -> tuple[Cell, ...]:
        """A worker died over this assignment: its unfinished cells wait again; returns those that are given up."""
        self.over(assignment)
        given_up = []
        for cell in assignment.cells:
            if cell.id not in self._unfinished:
                continue
            self._deaths[cell.id] += 1
            if self._deaths[cell.id] >= DEATHS:
                del self._unfinished[cell.id]
                given_up.append(cell)
            else:
                self._waiting.append(dataclasses.replace(assignment, cells=(cell,)))
        return tuple(given_up)

    def _ready(self, *, quiet: bool) -> list[Assignment]:
        """What may be begun now, in order. What is timed is begun when nothing else is left that could wait again."""
        if not self._alone:
            return self._waiting
        untimed = [one for one in self._waiting if not one.timed]
        return untimed or (self._waiting if quiet and not self._under_way else [])


def _common(first: Affinity, second: Affinity) -> int:
    """How many parts two affinities share before they differ."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in same)


def _most(affinity: Affinity, others: Iterable[Affinity]) -> int:
    """What an affinity shares with the closest of the others."""
    return max((_common(affinity, other) for other in others), default=0)
