"""The contract between a worker and an engine.

A worker hands over an `Assignment` (cells that share target, drafter and tree) and writes each result to the store the
moment the engine yields it. Raw counts travel, never averages: every definition of acceptance length is derived
later from the same histograms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from prism_ae.cells import Cell, TreeShape


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question, all its turns. One line of ``samples.jsonl``.

    Attributes:
        question_id: benchmark and the id in its file, as in "gsm8k/12".
        turns: turns answered.
        prompt_tokens: summed over turns.
        generated_tokens: summed over turns, an end token included, nothing after it.
        rounds: draft-verify-commit rounds, the prefill not counted (0 for vanilla).
        histogram: ``histogram[i]`` rounds in which the target accepted i drafts; sums to ``rounds``. What the
            verification accepted counts, also in a round that reached the end token or the length limit.
        stops: why each turn ended: "end", "length" (max_new_tokens) or "window" (max_length).
        prefill_seconds, decode_seconds: wall time while this question was being served, others beside it.
        output_sha256: of the answers' token ids, turns separated: two runs with equal output have equal digests.
    """

    question_id: str
    turns: int
    prompt_tokens: int
    generated_tokens: int
    rounds: int
    histogram: tuple[int, ...]
    stops: tuple[str, ...]
    prefill_seconds: float
    decode_seconds: float
    output_sha256: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What an engine returns for one cell.

    Attributes:
        samples: in the order of the questions.
        wall_seconds: of the whole batch run the cell was part of, prefill included.
        settings: the engine's effective settings, read back (threads, device, batch, dtype, library versions).
    """

    samples: tuple[Sample, ...]
    wall_seconds: float
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Room:
    """The most that an engine is asked for while it holds one target: what it has to be started for.

    Attributes:
        batch: the largest batch; 1 where none is timed.
        tree: the largest steps, branch and verified tokens, not necessarily of one tree; None without drafters.
        length: the longest prompt and answer together, tokens.
    """

    batch: int
    tree: TreeShape | None
    length: int


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
