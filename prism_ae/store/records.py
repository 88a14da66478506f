"""What the log says about a finished cell, and the two texts of it: a log line and ``samples.jsonl``."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from prism_ae.cells import Cell, Sample
from prism_ae.io.digests import canonical_json, plain

OK = "ok"
FAILED = "failed"
OUT_OF_MEMORY = "out-of-memory"
KILLED = "killed"
STATUSES = (OK, FAILED, OUT_OF_MEMORY, KILLED)
"""Every outcome of a cell: measured; an error, said in the message; no memory; it took its worker down."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished attempt at a cell.

    Attributes:
        cell: what was measured.
        status: one of `STATUSES`; message: why not "ok", or "".
        attempt: folder below ``cells/`` with the provenance, samples and log of this attempt.
        started, finished: UTC, ISO 8601 with seconds.
        worker_seconds: time of a worker that this cell took: since its assignment began, or since the cell before it
            in the same assignment was finished. Sums to the working time of a run.
        wall_seconds: `cells.Result.wall_seconds`; None when there is no result.
        settings: `cells.EngineSettings` as JSON, {} when there is no result.
        samples_sha256: of ``samples.jsonl``; None when there is no result.
        device: the device's name, in words.
    """

    cell: Cell
    status: str
    message: str
    attempt: str
    started: str
    finished: str
    worker_seconds: float
    wall_seconds: float | None
    settings: Mapping[str, Any]
    samples_sha256: str | None
    device: str

    @property
    def ok(self) -> bool:
        return self.status == OK

    def to_json(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"cell": self.cell.to_json(), "cell_id": self.cell.id}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Inverse of `to_json`; raises KeyError, TypeError or ValueError for other data."""
        fields = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        record = cls(**fields | {"cell": Cell.from_json(data["cell"])})
        if record.status not in STATUSES:
            raise ValueError(f"unknown status {record.status!r}")
        if record.cell.id != data["cell_id"]:
            raise ValueError("the cell id is not that of the cell")
        record._check()
        return record

    def _check(self) -> None:
        """Raises ValueError for what is written for no attempt; the attempt's name becomes a path."""
        if not isinstance(self.attempt, str) or not re.fullmatch(r"[0-9A-Za-z-]+", self.attempt):
            raise ValueError("the attempt is no name of a folder")
        for name in ("message", "started", "finished", "device"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is no text")
        if not isinstance(self.settings, Mapping):
            raise ValueError("settings is no object")
        for name, there in (("worker_seconds", True), ("wall_seconds", self.ok)):
            value = getattr(self, name)
            if type(value) not in ((int, float) if there else (type(None),)):
                raise ValueError(f"{name} is {value!r}")
        if not isinstance(self.samples_sha256, str if self.ok else type(None)):
            raise ValueError("samples_sha256 belongs to a result, and to nothing else")


def samples_text(samples: Iterable[Sample]) -> bytes:
    """``samples.jsonl``: one sample per line, in the order of the questions; what was not recorded is left out."""
    return "".join(f"{canonical_json(_line(sample))}\n" for sample in samples).encode()


def _line(sample: Sample) -> dict[str, Any]:
    data: dict[str, Any] = plain(sample)
    kept = {name: value for name, value in data.items() if name not in _OPTIONAL or value != _OPTIONAL[name]}
    return kept | {"rounds": sample.rounds}


_OPTIONAL: dict[str, Any] = {"accepted": [], "turn_tokens": [], "near_ties": [], "faults": None, "stage_seconds": []}
"""Fields that are left out where they have this value."""


def parse_samples(text: bytes) -> tuple[Sample, ...]:
    """Inverse of `samples_text`; raises ValueError, TypeError or KeyError for other text."""
    samples = []
    for line in text.splitlines():
        data = json.loads(line)
        data["histogram"] = tuple(data["histogram"])
        data["stops"] = tuple(data["stops"])
        data["accepted"] = tuple(tuple(turn) for turn in data.get("accepted", ()))
        data["turn_tokens"] = tuple(data.get("turn_tokens", ()))
        data["near_ties"] = tuple(tuple(tie) for tie in data.get("near_ties", ()))
        data["stage_seconds"] = tuple(data.get("stage_seconds", ()))
        rounds = data.pop("rounds")
        sample = Sample(**data)
        counts = (sample.turns, sample.prompt_tokens, sample.generated_tokens, rounds, *sample.histogram)
        counts = (*counts, *sample.turn_tokens, *(drafts for turn in sample.accepted for drafts in turn))
        counts = (*counts, *(number for turn, place, _, token in sample.near_ties for number in (turn, place, token)))
        counts += () if sample.faults is None else (sample.faults,)
        if any(type(count) is not int or not 0 <= count < 2**53 for count in counts):
            raise ValueError("a count is none")
        if rounds != sample.rounds:
            raise ValueError(f"the histogram of {sample.question_id} does not sum to its {rounds} rounds")
        seconds = (sample.prefill_seconds, sample.decode_seconds, *sample.stage_seconds)
        if any(type(one) not in (int, float) or not 0 <= one < 2**53 for one in seconds):
            raise ValueError("seconds are none")
        texts = (sample.question_id, sample.output_sha256, *sample.stops, *(tie[2] for tie in sample.near_ties))
        if not all(isinstance(one, str) for one in texts):
            raise ValueError("a text is none")
        samples.append(sample)
    return tuple(samples)
