"""Question files as they are published, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from raising import raises

from prism_ae.errors import ConfigError, MissingError
from prism_ae.prompts.questions import Question, load_categories, load_questions, read_questions
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
    ("bad", "subject"),
    [
        ('{"question_id": 2, "turns": ["x"', ""),
        ("[1]", ""),
        (json.dumps({"turns": ["x"]}), "question_id"),
        (json.dumps({"question_id": True, "turns": ["x"]}), "question_id"),
        (json.dumps({"question_id": 2}), "turns"),
        (json.dumps({"question_id": 2, "turns": "x"}), "turns"),
        (json.dumps({"question_id": 2, "turns": [" "]}), "turns"),
        (json.dumps({"question_id": 2, "turns": ["x", "y"]}), "question 2"),
        (line(1, "again"), "question_id 1"),
        (line("1", "again"), "question_id 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, subject: str) -> None:
    path = write(tmp_path / "q.jsonl", "\n".join([line(1, "one"), bad, line(3, "three")]))
    with raises(ConfigError, f"{path}, line 2", subject):
        read_questions(path, 1)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with raises(MissingError, tmp_path / "q.jsonl"):
        read_questions(tmp_path / "q.jsonl", 1)
    (tmp_path / "q.jsonl").write_bytes(line(1, "one").encode() + b'\n{"turns": ["\xff"]}')
    with raises(ConfigError, f"{tmp_path / 'q.jsonl'}, line 2", "UTF-8"):
        read_questions(tmp_path / "q.jsonl", 1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("{}".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"{}", mtime=0), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS"),
        (json.dumps({"question_id": 1, "turns": ["x"]}, indent=1).encode(), "JSON"),
        (b"", ""),
        (b"\n \r\n", ""),
        (b"[]", ""),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "q.jsonl").write_bytes(data)
    with raises(ConfigError, tmp_path / "q.jsonl", kind):
        read_questions(tmp_path / "q.jsonl", 1)


@pytest.mark.parametrize(
    "text", ["\n{0}\n{1}", "{0}\n\n \t\n{1}\n\n", "\ufeff{0}\r\n\r\n{1}", "[{0},\n{1}]", " \n[{0}, {1}]\n"]
)
def test_blank_lines_marks_and_arrays_change_nothing(tmp_path: Path, text: str) -> None:
    one, two = line(1, "one"), line(2, "zwei \u00e4 \u2028")
    path = write(tmp_path / "q.jsonl", text.format(one, two))
    assert read_questions(path, 1) == (Question("1", ("one",)), Question("2", ("zwei \u00e4 \u2028",)))


@pytest.mark.parametrize("escape", [r"\ud800", r"a\udc00b", r"\ude00\ud83d"])
def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path, escape: str) -> None:
    """Valid JSON that no encoder takes. A whole pair is a letter."""
    path = write(tmp_path / "q.jsonl", line(1, "one") + f'\n{{"question_id": 2, "turns": ["{escape}"]}}')
    with raises(ConfigError, f"{path}, line 2", "surrogate"):
        read_questions(path, 1)
    path = write(tmp_path / "q.jsonl", '{"question_id": 2, "turns": ["\\ud83d\\ude00"]}')
    assert read_questions(path, 1)[0].turns == ("\U0001f600",)


def test_all_bad_lines_are_in_one_message(tmp_path: Path) -> None:
    bad = ["x", line(1, "again"), line(9, "two", "turns"), "[1]", '{"question_id": 3, "turns": ["\\ud800"]}']
    path = write(tmp_path / "q.jsonl", "\n".join([line(1, "one"), *bad, line(2, "fine")]))
    with pytest.raises(ConfigError) as caught:
        read_questions(path, 1)
    assert [f"line {number}:" in caught.value.what for number in range(1, 8)] == [False, *[True] * 5, False]
    assert len(caught.value.what.splitlines()) == 5
    write(path, "\n".join(["x"] * 100))
    with pytest.raises(ConfigError) as caught:
        read_questions(path, 1)
    assert len(caught.value.what.splitlines()) == 9
    assert " 92 " in caught.value.what.splitlines()[-1]


def test_only_what_is_fetched_can_be_fetched_again(tmp_path: Path) -> None:
    write(tmp_path / "benchmarks/gsm8k/question.jsonl", "x")
    with pytest.raises(ConfigError) as caught:
        load_questions(PAPER, "gsm8k", 1, tmp_path)
    assert "fetch" in caught.value.hint
    own = dataclasses.replace(PAPER, hub=None)
    with pytest.raises(ConfigError) as caught:
        load_questions(own, "gsm8k", 1, tmp_path)
    assert "fetch" not in caught.value.hint


def test_the_first_questions_of_a_file(tmp_path: Path) -> None:
    write(tmp_path / "benchmarks/gsm8k/question.jsonl", "\n".join(line(n, f"question {n}") for n in range(4)))
    assert [q.question_id for q in load_questions(PAPER, "gsm8k", 3, tmp_path)] == ["0", "1", "2"]
    assert len(load_questions(PAPER, "gsm8k", 4, tmp_path)) == 4
    with raises(ConfigError, "question.jsonl", 4, 5, "--questions 4"):
        load_questions(PAPER, "gsm8k", 5, tmp_path)
    with raises(ConfigError, 0):
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


def test_categories_are_read_where_a_question_has_one(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks" / PAPER.benchmarks["gsm8k"].file
    assert load_categories(PAPER, "gsm8k", tmp_path) == {}
    text = [line(5, "one", category="math"), line(3, "two"), line("x", "three", category=["a"]), "[]"]
    write(file, "\n".join(text))
    assert load_categories(PAPER, "gsm8k", tmp_path) == {"gsm8k/5": "math"}
    assert load_categories(MINI, "gsm8k", tmp_path) == {}


def test_an_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        load_questions(MINI, "mmlu", 1, tmp_path)


def test_turns_follow_the_suite(tmp_path: Path) -> None:
    """The number of turns is the suite's word, not the file's."""
    write(tmp_path / "benchmarks/mt_bench/question.jsonl", line(81, "one", "two"))
    assert load_questions(PAPER, "mt_bench", 1, tmp_path)[0].turns == ("one", "two")
    record = dataclasses.replace(PAPER.benchmarks["mt_bench"], turns=1)
    changed = dataclasses.replace(PAPER, benchmarks={"mt_bench": record})
    with raises(ConfigError, "question.jsonl", 81, 2, 1):
        load_questions(changed, "mt_bench", 1, tmp_path)
