"""Writes files in the formats that the original artifact's scripts leave, with numbers that the test chooses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FIRST = {"mt_bench": 81, "humaneval": 0, "gsm8k": 0, "alpaca": 0, "sum": 241, "qa": 321}


def lists_with_mean(length: float, questions: int = 80) -> list[list[int]]:
    """Accepted drafts per round and question, so that the mean over questions of their means, plus 1, is ``length``."""
    units = round((length - 1) * questions * 10_000)
    each = round(units / questions / 100)
    lists = [spread(100, each) for _ in range(questions - 1)]
    return [*lists, spread(10_000, units - 100 * each * (questions - 1))]


def spread(rounds: int, total: int) -> list[int]:
    low, more = divmod(total, rounds)
    assert 0 <= low < 6
    return [low + (number < more) for number in range(rounds)]


def answer(question: int, accepted: list[int], model: str, of: int, stamp: float, **changes: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "turns": [f"text {question}"] * of,
        "idxs": [len(accepted)] * of,
        "new_tokens": [sum(accepted) + len(accepted), *[0] * (of - 1)],
        "wall_time": [1.5] * of,
        "accept_length": accepted,
    }
    choice |= {key: changes.pop(key) for key in list(changes) if key in choice}
    line = {"question_id": question, "answer_id": "x", "model_id": model, "choices": [choice], "tstamp": stamp}
    return line | changes


def answers(name: str, temperature: str, benchmark: str, lists: Sequence[list[int]]) -> list[dict[str, Any]]:
    turns = 2 if benchmark == "mt_bench" else 1
    model = f"{name}-temperature-{temperature}"
    return [
        answer(FIRST[benchmark] + number, accepted, model, turns, 1000.0 + number)
        for number, accepted in enumerate(lists)
    ]


def rates(lists: Sequence[list[int]]) -> list[float]:
    """Conditional acceptance, counted round by round."""
    rounds = [accepted for one in lists for accepted in one]
    reached = [sum(accepted >= depth for accepted in rounds) for depth in range(7)]
    return [deep / before for before, deep in itertools.pairwise(reached) if before]


def log(name: str, temperature: str, benchmark: str, length: str, table: Sequence[float] = (), gpu: int = 0) -> str:
    lines = [
        "-" * 50,
        "start: Thu Jan  1 00:00:00 UTC 2026",
        f"gpu={gpu}, name={name}, bench={benchmark}, temp={temperature}",
        "total_token=60",
        "depth=5",
        "top_k=10",
        "  0%|          | 0/80 [00:00<?, ?it/s]\r100%|####| 80/80",
        f"average acceptance length = {length}",
    ]
    if table:
        lines += ["Position  Acceptance Rate", *(f"  {place}       {rate:.5f}" for place, rate in enumerate(table, 1))]
    return "\n".join([*lines, "done: Thu Jan  1 01:00:00 UTC 2026", ""])


class Artifact:
    """An ``outputs`` folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def tag(self, project: str, model: str, tag: str = "20260101_000000") -> Path:
        return self.root / project / model / tag

    def answers_path(self, project: str, name: str, benchmark: str, temperature: str, **tag: str) -> Path:
        folder = self.tag(project, name.rpartition("-")[0], **tag) / benchmark
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}-temperature-{temperature}.jsonl"

    def write_answers(self, project: str, name: str, benchmark: str, temperature: str, lines: Any, **tag: str) -> Path:
        path = self.answers_path(project, name, benchmark, temperature, **tag)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def write_log(
        self, project: str, name: str, benchmark: str, temperature: str, text: str, gpu: int = 0, **tag: str
    ) -> Path:
        folder = self.tag(project, name.rpartition("-")[0], **tag) / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}__{benchmark}__temp-{temperature}__gpu-{gpu}.log"
        path.write_text(text)
        return path
