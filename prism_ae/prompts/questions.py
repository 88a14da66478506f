"""The questions of a benchmark, from the file that was downloaded or from the embedded corpus.

A file is JSON Lines as FastChat, Spec-Bench and EAGLE publish it: one object per line with ``question_id`` and
``turns``; other keys (``category``, ``reference``) are not read. A suite whose benchmark names no file makes its
questions itself.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, MissingError
from prism_ae.suites.records import Suite

FOLDER = "benchmarks"
"""Below the models folder."""


@dataclasses.dataclass(frozen=True)
class Question:
    """User turns in order; ``question_id`` is unique within a benchmark."""

    question_id: str
    turns: tuple[str, ...]


def load_questions(suite: Suite, benchmark: str, count: int, models_dir: Path) -> tuple[Question, ...]:
    """The first ``count`` questions of a benchmark, always in the same order.

    Raises:
        KeyError: the suite has no such benchmark.
        MissingError: its file is not there.
        ConfigError: the file is damaged, or holds fewer questions than asked for.
    """
    record = suite.benchmarks[benchmark]
    if count < 1:
        raise ConfigError(f"{count} questions are asked for, at least 1 is needed")
    if record.file:
        path = models_dir / FOLDER / record.file
        questions = read_questions(path, record.turns)
        where = str(path)
    else:
        from prism_ae.training import corpus

        questions = tuple(
            Question(f"{benchmark}-{number}", turns) for number, turns in enumerate(corpus.questions(benchmark, count))
        )
        where = f"the corpus of suite '{suite.name}'"
    if count > len(questions):
        raise ConfigError(
            f"{where}: benchmark '{benchmark}' has {len(questions)} questions, {count} are asked for",
            f"ask for 1 to {len(questions)}, as in --questions {len(questions)}",
        )
    return questions[:count]


def read_questions(path: Path, turns: int) -> tuple[Question, ...]:
    """All questions of a file, in its order.

    Args:
        path: JSON Lines; the last line may lack its newline.
        turns: user turns that every question must have.

    Raises:
        MissingError: no such file.
        ConfigError: a line that is no question, naming file and line, or an id that occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(
            f"question file {path} does not exist",
            "run 'prism-ae download', or put the benchmarks' question files there",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    questions: dict[str, Question] = {}
    # Not splitlines(): a question may contain other line separators (U+2028), and JSON leaves those as they are.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        question = _question(line, turns, f"{path}, line {number}")
        if question.question_id in questions:
            raise ConfigError(f"{path}, line {number}: question_id {question.question_id} occurs a second time")
        questions[question.question_id] = question
    return tuple(questions.values())


def _question(line: str, turns: int, where: str) -> Question:
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON: {error}", "fetch the file again") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected an object with question_id and turns, got {line[:60]!r}")
    name, texts = data.get("question_id"), data.get("turns")
    if isinstance(name, bool) or not isinstance(name, (int, str)) or name == "":
        raise ConfigError(f"{where}: 'question_id' must be a number or a text, got {name!r}")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(f"{where}: 'turns' must be a list of texts that are not empty, got {texts!r}"[:300])
    if len(texts) != turns:
        raise ConfigError(f"{where}: question {name} has {len(texts)} turns, this benchmark's questions have {turns}")
    return Question(str(name), tuple(texts))
