"""An engine that measures nothing: for testing plans, workers and the store without models.

It is found by its entry point, as anybody's engine is: this folder is on every test's path (`conftest`). Its samples
follow from the cell's id alone, so two stores can be compared byte by byte. What it should do besides is read from the
environment variable ``PRISM_AE_FAKE``, a JSON object:

    seconds   how long a cell takes (default 0)
    trace     a file that gets the id of every cell it measures, one line each
    crash     ids of cells that kill the process
    fail      ids of cells that raise a CheckpointError
    bug       ids of cells that raise a ValueError
    memory    ids of cells that run out of memory
    silent    ids of cells that get no result
    deaf      true: it never asks whether it should stop
    unusable  true: it cannot use its device
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prism_ae.cells import Cell, EngineSettings, Result, Sample
from prism_ae.engines.protocol import Assignment
from prism_ae.engines.registry import EngineRecord
from prism_ae.errors import CheckpointError, DeviceError
from prism_ae.suites.records import Suite

VARIABLE = "PRISM_AE_FAKE"

RECORD = EngineRecord(name="fake", version="fake-1", verifier="none", runs_models=False, load=lambda: FakeEngine)


class FakeEngine:
    def __init__(self, suite: Suite, models_dir: Path, device: str, threads: int) -> None:
        self._behaviour: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
        self._device = device
        if self._behaviour.get("unusable"):
            raise DeviceError(f"{device} was told to be unusable", "tell it otherwise")

    def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Iterator[tuple[Cell, Result]]:
        for cell in assignment.cells:
            if not self._wait(should_stop):
                return
            self._misbehave(cell.id)
            if cell.id in self._behaviour.get("silent", ()):
                continue
            if trace := self._behaviour.get("trace"):
                with open(trace, "a") as file:
                    file.write(f"{cell.id}\n")
            yield cell, Result(fake_samples(cell), 1.0, EngineSettings(others={"device": self._device}))

    def close(self) -> None:
        pass

    def _wait(self, should_stop: Callable[[], bool]) -> bool:
        """Let a cell's time pass; False when asked to stop meanwhile."""
        if self._behaviour.get("deaf"):
            time.sleep(self._behaviour.get("seconds", 0))
            return True
        end = time.monotonic() + self._behaviour.get("seconds", 0)
        while not should_stop():
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, 0.01))
        return False

    def _misbehave(self, cell_id: str) -> None:
        if cell_id in self._behaviour.get("crash", ()):
            os.kill(os.getpid(), signal.SIGKILL)
        if cell_id in self._behaviour.get("fail", ()):
            raise CheckpointError(f"cell {cell_id} was told to fail", "tell it otherwise")
        if cell_id in self._behaviour.get("bug", ()):
            raise ValueError(f"cell {cell_id} has a bug")
        if cell_id in self._behaviour.get("memory", ()):
            raise MemoryError


def fake_samples(cell: Cell) -> tuple[Sample, ...]:
    """Samples that keep every promise of `Sample` and depend on nothing but the cell's id."""
    point, choice = cell.point, random.Random(cell.id)
    depth = point.tree.steps if point.tree else 0
    samples = []
    for number in range(point.questions):
        histogram = tuple(choice.randrange(4) for _ in range(depth + 1)) if point.tree else ()
        rounds = sum(histogram)
        accepted = sum(count * drafts for drafts, count in enumerate(histogram))
        samples.append(
            Sample(
                question_id=f"{point.benchmark}/{number}",
                turns=1,
                prompt_tokens=20,
                generated_tokens=1 + (rounds + accepted if point.tree else choice.randrange(1, 9)),
                histogram=histogram,
                stops=("end",),
                prefill_seconds=0.1,
                decode_seconds=0.9,
                output_sha256=hashlib.sha256(f"{point.target} {point.benchmark} {number}".encode()).hexdigest(),
            )
        )
    return tuple(samples)
