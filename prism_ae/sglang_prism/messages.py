"""The messages between an engine's worker and the process that hosts SGLang.

Worker to host: `Start` once, then `Configure`, `Serve` and `Interrupt`. Host to worker: `EngineState` after a start or
a configuration, `Answered` per question, `BatchDone` at the end of a batch run, `Refused` where one of them failed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_ae.suites.records import Template


@dataclasses.dataclass(frozen=True)
class Start:
    """Start an engine with these ``options`` of ``sglang.Engine``; it has to echo ``nonce``."""

    options: Mapping[str, Any]
    nonce: str


@dataclasses.dataclass(frozen=True)
class Configure:
    """See `control.configure`; None changes nothing."""

    drafter: str | None = None
    tree: str | None = None
    drafting: str | None = None


@dataclasses.dataclass(frozen=True)
class Serve:
    """Answer questions, a limited number at a time.

    Attributes:
        target: the target's folder; template, system_prompt: of its prompts.
        questions: user turns of each.
        max_seq_len: most tokens of prompt and answer together.
        concurrency: requests in flight.
        flush: empty the prefix cache first.
    """

    target: Path
    template: Template
    system_prompt: str
    questions: tuple[tuple[str, ...], ...]
    temperature: float
    max_new_tokens: int
    max_seq_len: int
    concurrency: int
    flush: bool


@dataclasses.dataclass(frozen=True)
class Interrupt:
    """Abort the batch run that is under way."""


@dataclasses.dataclass(frozen=True)
class EngineState:
    """The settings in effect: `control.state` and versions."""

    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Answered:
    """A question's outcome, all its turns.

    Attributes:
        index: of the question.
        answers: token ids of each turn, end token included.
        prompt_tokens: summed over turns.
        histogram: rounds by accepted drafts, summed over turns; () without drafts.
        accepted: of each turn, the drafts that each round accepted; nothing without drafts.
        stops: why each turn ended: "end", "length" or "window".
        prefill_seconds: from a request's sending to its first token; decode_seconds: from there to its last.
        stage_seconds: by `cells.STAGES`, of all its rounds, summed over turns; () where there are no timers.
    """

    index: int
    answers: tuple[tuple[int, ...], ...]
    prompt_tokens: int
    histogram: tuple[int, ...]
    accepted: tuple[tuple[int, ...], ...]
    stops: tuple[str, ...]
    prefill_seconds: float
    decode_seconds: float
    stage_seconds: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class BatchDone:
    """A batch run is over: ``wall_seconds`` from its first request to its last answer."""

    wall_seconds: float


@dataclasses.dataclass(frozen=True)
class Refused:
    """A request could not be fulfilled; the engine still runs."""

    message: str
