"""The contract between a worker and an engine.

A worker hands over an `Assignment` (cells that share target, drafter and tree) and writes each result to the store the
moment the engine yields it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from prism_ae.cells import Cell, Result, TreeShape


@dataclasses.dataclass(frozen=True)
class Room:
    """The most that an engine is asked for while it holds one target: what it has to be started for.

    Attributes:
        batch: the largest batch; 1 where none is timed.
        tree: the largest steps, branch and verified tokens, not necessarily of one tree; None without drafters.
        max_seq_len: the longest prompt and answer together, tokens.
    """

    batch: int
    tree: TreeShape | None
    max_seq_len: int


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Cells that one engine measures in one go: same target, drafter, scale, tree, engine, dtype and batch.

    Attributes:
        cells: at least one.
        target_path, drafter_path: checkpoint folders; drafter_path is None for vanilla.
        tree: None for vanilla.
        affinity: what an engine holds in memory for it, the most expensive to change first (engine, target, …): a
            worker prefers an assignment that shares the longest beginning with the one before.
        room: of everything in the plan that shares engine, target, dtype and compat flags.
    """

    cells: tuple[Cell, ...]
    target_path: Path
    drafter_path: Path | None
    tree: TreeShape | None
    affinity: tuple[str, ...] = ()
    room: Room = Room(1, None, 0)

    @property
    def timed(self) -> bool:
        """Whether its seconds are measured: on a CPU nothing else may run beside it."""
        return self.cells[0].point.batch is not None


class Engine(Protocol):
    """A measuring device. Keeps the target loaded between assignments and swaps the drafter."""

    def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Iterator[tuple[Cell, Result]]:
        """Yield each cell once, as it is finished; stop early, between rounds, when ``should_stop()``.

        Raises:
            PrismError: a message for the user; the worker records the cells that are left as failed with it, and goes
                on with the next assignment.
        """
        ...

    def close(self) -> None: ...
