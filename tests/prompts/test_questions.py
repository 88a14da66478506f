"""Question files as they are published, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from prism_ae.errors import ConfigError, MissingError
from prism_ae.prompts.questions import Question, load_questions, read_questions
from prism_ae.suites.load import load_suite

PAPER, MINI = load_suite("paper"), load_suite("mini")


def line(number: int | str, *turns: str, **more: Any) -> str:
    return json.dumps({"question_id": number, "category": "", "turns": list(turns), **more}, ensure_ascii=False)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_published_layout_is_read(tmp_path: Path, newline: str, end: str) -> None:
    odd = 'a line separator \u2028 and a quote "'
    text = newline.join([line(5, "one"), line(3, odd, reference=["r"]), line("x", "two\n")]) + end
    assert read_questions(write(tmp_path / "q.jsonl", text), 1) == (
        Question("5", ("one",)),
        Question("3", (odd,)),
        Question("x", ("two\n",)),
    )


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ('{"question_id": 2, "turns": ["x"', "line 2: not valid JSON"),
        ("", "line 2: not valid JSON"),
        ("[1]", "line 2: expected an object"),
        (json.dumps({"turns": ["x"]}), "line 2: 'question_id' must be"),
        (json.dumps({"question_id": True, "turns": ["x"]}), "line 2: 'question_id' must be"),
        (json.dumps({"question_id": 2}), "line 2: 'turns' must be"),
        (json.dumps({"question_id": 2, "turns": "x"}), "line 2: 'turns' must be"),
        (json.dumps({"question_id": 2, "turns": [" "]}), "line 2: 'turns' must be"),
        (json.dumps({"question_id": 2, "turns": ["x", "y"]}), "line 2: question 2 has 2 turns"),
        (line(1, "again"), "line 2: question_id 1 occurs a second time"),
        (line("1", "again"), "line 2: question_id 1 occurs a second time"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, says: str) -> None:
    path = write(tmp_path / "q.jsonl", "\n".join([line(1, "one"), bad, line(3, "three")]))
    with pytest.raises(ConfigError) as caught:
        read_questions(path, 1)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"q\.jsonl does not exist"):
        read_questions(tmp_path / "q.jsonl", 1)
    (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_questions(tmp_path / "q.jsonl", 1)


def test_the_first_questions_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "benchmarks/gsm8k/question.jsonl", "\n".join(line(n, f"question {n}") for n in range(4)))
    assert [q.question_id for q in load_questions(PAPER, "gsm8k", 3, tmp_path)] == ["0", "1", "2"]
    assert len(load_questions(PAPER, "gsm8k", 4, tmp_path)) == 4
    with pytest.raises(ConfigError, match="has 4 questions, 5 are asked for") as caught:
        load_questions(PAPER, "gsm8k", 5, tmp_path)
    assert "--questions 4" in caught.value.hint
    with pytest.raises(ConfigError, match="at least 1"):
        load_questions(PAPER, "gsm8k", 0, tmp_path)


@pytest.mark.parametrize("benchmark", MINI.benchmarks)
def test_the_corpus_makes_the_mini_suites_questions(tmp_path: Path, benchmark: str) -> None:
    count = MINI.limits.questions
    questions = load_questions(MINI, benchmark, count, tmp_path)
    assert len({question.question_id for question in questions}) == count
    assert len({question.turns for question in questions}) == count
    assert {len(question.turns) for question in questions} == {MINI.benchmarks[benchmark].turns}
    assert load_questions(MINI, benchmark, 5, tmp_path) == questions[:5]
    assert load_questions(MINI, benchmark, count, tmp_path) == questions


def test_an_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        load_questions(MINI, "mmlu", 1, tmp_path)


def test_turns_follow_the_suite(tmp_path: Path) -> None:
    """The number of turns is the suite's word, not the file's."""
    write(tmp_path / "benchmarks/mt_bench/question.jsonl", line(81, "one", "two"))
    assert load_questions(PAPER, "mt_bench", 1, tmp_path)[0].turns == ("one", "two")
    record = dataclasses.replace(PAPER.benchmarks["mt_bench"], turns=1)
    changed = dataclasses.replace(PAPER, benchmarks={"mt_bench": record})
    with pytest.raises(ConfigError, match="has 2 turns, this benchmark's questions have 1"):
        load_questions(changed, "mt_bench", 1, tmp_path)
