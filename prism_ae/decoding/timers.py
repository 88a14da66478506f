"""Where the seconds of decoding go: the stages of a round, and what the host does between two rounds.

One clock tiles the whole of a batch's decoding. It is told which stage has just ended, and all that has passed since it
was told before belongs to that stage: nothing is counted twice, nothing is left out, and the stages sum to the seconds
of decoding because those are their sum. The clock stands still while prompts are read and while a caller has an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch

from prism_ae.cells import STAGES

DRAFT, VERIFY, SAMPLE, HOST = STAGES


class StageClock:
    """Seconds by stage, where the host does the work itself, or waits for it.

    Args:
        now: a clock's reading, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._mark = now, now()
        self._spent = dict.fromkeys(STAGES, 0.0)

    @property
    def spent(self) -> tuple[float, ...]:
        """Seconds so far, in the order of `cells.STAGES`, up to what the clock was told last."""
        return tuple(self._spent.values())

    def resume(self) -> None:
        """Go on after `pause`: what lies between belongs to nothing."""
        self._mark = self._now()

    def pause(self) -> None:
        """Stand still until `resume`."""
        self._add(HOST)

    def begin_round(self) -> None:
        """What the host did since the last round has ended."""
        self._add(HOST)

    def lap(self, stage: str) -> None:
        """A piece of the round has ended, which belongs to ``stage``."""
        self._add(stage)

    def end_round(self) -> None:
        """The round has ended, and the host knows its outcome."""
        self._add(SAMPLE)

    def _add(self, stage: str) -> None:
        before, self._mark = self._mark, self._now()
        self._spent[stage] += self._mark - before


class Event(Protocol):
    """What `torch.cuda.Event` has: a moment of the device, once the device has come to it."""

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds until ``end_event``."""


class DeviceClock(StageClock):
    """Seconds by stage, where the host only queues a round's work: stages are told apart by events of the device.

    An event waits for nobody. A round's events are read at its end, when the host has its outcome and so the device has
    passed them all. The seconds of the round that lie outside of them, until the device begins and until the outcome is
    with the host, belong to "sample".

    Args:
        record: an event, queued behind the device's work so far.
        now: a clock's reading, in seconds.
    """

    def __init__(self, record: Callable[[], Event], now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(now)
        self._record = record
        self._events: list[tuple[str, Event]] = []

    def begin_round(self) -> None:
        super().begin_round()
        self._events = [(HOST, self._record())]

    def lap(self, stage: str) -> None:
        self._events.append((stage, self._record()))

    def end_round(self) -> None:
        super().end_round()
        for (_, before), (stage, after) in pairwise(self._events):
            seconds = before.elapsed_time(after) / 1000
            self._spent[stage] += seconds
            self._spent[SAMPLE] -= seconds


def stage_clock(device: torch.device) -> StageClock:
    """The clock that tells a round's stages apart on ``device``."""
    if device.type != "cuda":
        return StageClock()

    def record() -> Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return DeviceClock(record)
