"""Who measures what next. Pure: told of finishes and deaths, asked for the next assignment.

There are no static queues: a worker takes the next assignment when it is free, preferably one with the target it has
loaded. Cells whose worker died go back alone, one assignment each and last, so that a second death names its cause.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from prism_ae.cells import Cell
from prism_ae.engines.protocol import Assignment

DEATHS = 2
"""After so many a cell is given up."""


class Queue:
    """Assignments that wait, longest first."""

    def __init__(self, assignments: Iterable[Assignment]) -> None:
        self._waiting = list(assignments)
        self._unfinished = {cell.id for assignment in self._waiting for cell in assignment.cells}
        self._deaths: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Assignments that nobody has."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Cells without an outcome."""
        return len(self._unfinished)

    def take(self, held: Path | None, elsewhere: Collection[Path]) -> Assignment | None:
        """The next assignment for a worker, None if none waits.

        Args:
            held: the target that it has loaded.
            elsewhere: targets that other workers have loaded; left to them while there are others.
        """
        for wanted in (
            lambda target: target == held,
            lambda target: target not in elsewhere,
            lambda target: True,
        ):
            for number, assignment in enumerate(self._waiting):
                if wanted(assignment.target_path):
                    return self._waiting.pop(number)
        return None

    def finished(self, cell_id: str) -> bool:
        """A cell has an outcome; False if that was known."""
        known = cell_id not in self._unfinished
        self._unfinished.discard(cell_id)
        return not known

    def put_back(self, assignment: Assignment) -> None:
        """An assignment was not begun: it is the next again."""
        self._waiting.insert(0, assignment)

    def died(self, assignment: Assignment) -> tuple[Cell, ...]:
        """A worker died over this assignment: its unfinished cells wait again; returns those that are given up."""
        given_up = []
        for cell in assignment.cells:
            if cell.id not in self._unfinished:
                continue
            self._deaths[cell.id] += 1
            if self._deaths[cell.id] >= DEATHS:
                self._unfinished.discard(cell.id)
                given_up.append(cell)
            else:
                self._waiting.append(dataclasses.replace(assignment, cells=(cell,)))
        return tuple(given_up)
