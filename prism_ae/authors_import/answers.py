"""The answers of one evaluation: a line per question, with the drafts that each round accepted.

The scripts append to an answer file and sort it when they end, so a file that was written twice may hold two runs. Keys
that are read: ``question_id``, ``model_id``, ``tstamp``, and of the one entry of ``choices``: ``turns`` (texts),
``new_tokens`` and ``wall_time`` (per turn), ``accept_length`` (per round, both turns in one list).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from typing import Any

from prism_ae.authors_import.refused import RefusedError
from prism_ae.cells import Sample

FIRST_QUESTION = {"mt_bench": 81, "humaneval": 0, "gsm8k": 0, "alpaca": 0, "sum": 241, "qa": 321}
"""The first ``question_id`` of each of the artifact's question files; they count up from there."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of one run.

    Attributes:
        samples: in the order of the questions. The artifact records no prompt lengths, ends of turns or seconds of the
            prefill: 0 and () stand there (`cells.NOT_RECORDED`). ``generated_tokens`` are its ``new_tokens``: all that
            rounds committed, behind the end of an answer too, without the token of the prefill. ``output_sha256`` is
            that of the texts.
        written: when the first and the last answer were written, seconds since 1970.
        sha256: of the file.
    """

    samples: tuple[Sample, ...]
    written: tuple[float, float]
    sha256: str


def parse_answers(text: bytes, file: str, model: str, benchmark: str, *, turns: int, steps: int) -> Answers:
    """Read an answer file.

    Args:
        file: as it is shown.
        model: whose answers they are, by the file's name.
        turns: of each question of the benchmark.
        steps: of the draft tree: no round accepts more drafts.

    Raises:
        RefusedError: the file is damaged, holds a question twice, lacks one, or holds more than one run.
    """
    if benchmark not in FIRST_QUESTION:
        raise RefusedError(file, None, f"which questions the artifact asks in '{benchmark}' is not known")
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    if not lines:
        raise RefusedError(file, None, "holds no answer")
    seen: dict[int, int] = {}
    samples: list[Sample] = []
    times: list[float] = []
    for number, line in enumerate(lines, start=1):
        try:
            question, time, sample = _answer(line, model, benchmark, turns, steps)
        except ValueError as error:
            raise RefusedError(file, number, str(error)) from None
        if question in seen:
            why = f"question {question} occurs a second time (first in line {seen[question]}): two runs wrote this file"
            raise RefusedError(file, number, why)
        expected = FIRST_QUESTION[benchmark] + len(samples)
        if question != expected:
            raise RefusedError(file, number, f"question {question} stands where question {expected} belongs")
        if times and time < times[-1]:
            raise RefusedError(
                file, number, "was written before the line above it: the answers are of more than one run"
            )
        seen[question] = number
        samples.append(sample)
        times.append(time)
    return Answers(tuple(samples), (times[0], times[-1]), hashlib.sha256(text).hexdigest())


def _answer(line: bytes, model: str, benchmark: str, turns: int, steps: int) -> tuple[int, float, Sample]:
    """Question, time of writing and counts of a line; raises ValueError."""
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON: the run broke off here, or the file is damaged") from None
    if not isinstance(data, dict) or not _is_count(data.get("question_id")) or not _is_time(data.get("tstamp")):
        raise ValueError("is no answer: it lacks question_id or tstamp")
    if data.get("model_id") != model:
        raise ValueError(f"is an answer of {data.get('model_id')!r}, not of '{model}': two runs are mixed here")
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError("must hold one entry in 'choices'")
    texts, tokens, seconds, accepted = (
        _list(choices[0], key) for key in ("turns", "new_tokens", "wall_time", "accept_length")
    )
    if not len(texts) == len(tokens) == len(seconds) == turns:
        raise ValueError(f"must hold {turns} turns, as the questions of {benchmark} do")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("'turns' must be texts")
    if not all(map(_is_count, tokens)) or not all(map(_is_time, seconds)):
        raise ValueError("'new_tokens' must be counts and 'wall_time' seconds")
    if not all(_is_count(drafts) and drafts <= steps for drafts in accepted):
        raise ValueError(f"'accept_length' must list accepted drafts, 0 to {steps} with this draft tree")
    if sum(tokens) > sum(accepted) + len(accepted) + turns:
        raise ValueError("has more new_tokens than its rounds can commit: they are not of one run")
    rounds = Counter(accepted)
    sample = Sample(
        question_id=f"{benchmark}/{data['question_id']}",
        turns=turns,
        prompt_tokens=0,
        generated_tokens=sum(tokens),
        histogram=tuple(rounds[drafts] for drafts in range(steps + 1)),
        stops=(),
        prefill_seconds=0.0,
        decode_seconds=float(sum(seconds)),
        output_sha256=hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    )
    return data["question_id"], float(data["tstamp"]), sample


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise ValueError(f"lacks the list '{key}'")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _NEVER


_NEVER = 2.0**53
"""Seconds: sums of fewer are finite, and their floats tell milliseconds apart."""
