"""The questions of a benchmark, from the file that was downloaded or from the embedded corpus.

A file is JSON Lines as FastChat, Spec-Bench and EAGLE publish it: one object per line with ``question_id`` and
``turns``. ``category`` is read for analyses alone (`load_categories`), other keys (``reference``) not at all. A suite
whose benchmark names no file makes its questions itself.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError
from prism_ae.prompts.json_lines import Problem, is_broken, listed, read_records
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
    where = origin(suite, benchmark, models_dir)
    if record.file:
        fetched = suite.hub is not None and benchmark in suite.hub.question_sums
        hint = "fetch the file again" if fetched else "correct the file"
        missing = f"run '{suite.download_command}', or put it there" if fetched else "put it there"
        questions = read_questions(Path(where), record.turns, hint, missing)
    else:
        from prism_ae.mini import corpus

        questions = tuple(
            Question(f"{benchmark}-{number}", turns) for number, turns in enumerate(corpus.questions(benchmark, count))
        )
    if count > len(questions):
        raise ConfigError(
            f"{where}: benchmark '{benchmark}' has {len(questions)} questions, {count} are asked for",
            f"ask for 1 to {len(questions)}, as in --questions {len(questions)}",
        )
    return questions[:count]


def load_categories(suite: Suite, benchmark: str, models_dir: Path) -> dict[str, str]:
    """The category of each question that names one, by `cells.Sample.question_id`; {} where no file is there.

    It says what a question is about and decides nothing: a file without categories is as good.

    Raises:
        ConfigError: as `read_records`.
    """
    file = suite.benchmarks[benchmark].file
    path = models_dir / FOLDER / file if file else None
    if path is None or not path.is_file():
        return {}
    records = [data for _, data in read_records(path).found if isinstance(data, dict)]
    found = [(data.get("question_id"), data.get("category")) for data in records]
    return {f"{benchmark}/{name}": category for name, category in found if isinstance(category, str) and category}


def origin(suite: Suite, benchmark: str, models_dir: Path) -> str:
    """Where a benchmark's questions come from: the path of their file, or in words."""
    file = suite.benchmarks[benchmark].file
    return str(models_dir / FOLDER / file) if file else f"the corpus of suite '{suite.name}'"


def read_questions(path: Path, turns: int, hint: str = "", missing: str = "") -> tuple[Question, ...]:
    """All questions of a file, in its order.

    Args:
        path: JSON lines, or one JSON array.
        turns: user turns that every question must have.
        hint: what to do about a file that is wrong; missing: about one that is not there.

    Raises:
        MissingError: no such file.
        ConfigError: records that are no questions, or an id that occurs twice; names the file and each line.
    """
    records = read_records(path, missing)
    problems = list(records.problems)
    questions: dict[str, Question] = {}
    for place, data in records.found:
        question = _question(data, turns)
        if isinstance(question, str):
            problems.append(Problem(place, question))
        elif question.question_id in questions:
            problems.append(Problem(place, f"question_id {question.question_id} occurs a second time"))
        else:
            questions[question.question_id] = question
    if problems:
        raise ConfigError(listed(path, sorted(problems, key=_number)), hint)
    if not questions:
        raise ConfigError(f"{path} holds no question", hint)
    return tuple(questions.values())


def _number(problem: Problem) -> int:
    return int(problem.place.split()[1])


def _question(data: Any, turns: int) -> Question | str:
    """The question that a record says, or what is wrong with it."""
    if not isinstance(data, dict):
        return f"expected an object with question_id and turns, got {str(data)[:60]!r}"
    name, texts = data.get("question_id"), data.get("turns")
    if isinstance(name, bool) or not isinstance(name, (int, str)) or name == "":
        return f"'question_id' must be a number or a text, got {str(name)[:60]!r}"
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        return f"'turns' must be a list of texts that are not empty, got {str(texts)[:60]!r}"
    if broken := [text for text in (str(name), *texts) if is_broken(text)]:
        return f"holds half a surrogate pair, which no text can: {broken[0][:60]!r}"
    if len(texts) != turns:
        return f"question {name} has {len(texts)} turns, this benchmark's questions have {turns}"
    return Question(str(name), tuple(texts))
