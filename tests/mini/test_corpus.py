"""The corpus: the same everywhere, nested, and its questions never seen in training."""

from __future__ import annotations

from collections import Counter

import pytest
from raising import raises

from prism_ae.errors import UsageError
from prism_ae.mini import corpus
from prism_ae.mini.families import FAMILIES
from prism_ae.suites.load import load_suite


def test_families_are_the_suites_benchmarks_with_their_turns() -> None:
    suite = load_suite("mini")
    assert list(FAMILIES) == list(suite.benchmarks)
    for name, benchmark in suite.benchmarks.items():
        assert {len(turns) for turns in corpus.questions(name, 20)} == {benchmark.turns}


def test_no_question_occurs_in_training() -> None:
    """Over far more conversations than any recipe uses; both turns of a two-turn question."""
    seen = {user for conversation in corpus.conversations(30_000, 1) for user, _ in conversation}
    for benchmark in FAMILIES:
        for turns in corpus.questions(benchmark, 80):
            assert seen.isdisjoint(turns)


def test_the_guarantee_is_not_luck() -> None:
    """Without the split, families with few prompts would repeat questions."""
    from random import Random

    random = Random(1)
    seen = {user for _ in range(6000) for user, _ in FAMILIES["qa"](random)}
    assert not seen.isdisjoint(user for (user,) in corpus.questions("qa", 80))


def test_questions_are_distinct_and_more_of_them_begin_with_fewer() -> None:
    for benchmark in FAMILIES:
        many = corpus.questions(benchmark, 80)
        assert len(set(many)) == 80
        assert corpus.questions(benchmark, 16) == many[:16]


def test_less_data_is_the_beginning_of_more() -> None:
    assert corpus.conversations(50, 3) == corpus.conversations(400, 3)[:50]
    assert corpus.conversations(50, 3) != corpus.conversations(50, 4)


def test_families_share_the_data_equally() -> None:
    kinds = Counter("two" if len(conversation) == 2 else "one" for conversation in corpus.conversations(600, 5))
    assert kinds == {"two": 100, "one": 500}


def test_the_corpus_is_the_same_on_every_machine() -> None:
    """Recorded once; a change means other models, so it must be a decision."""
    from prism_ae.io.digests import digest

    assert digest(corpus.conversations(500, 1))[:16] == "f847ed1a4b23c74b"
    assert digest([corpus.questions(name, 20) for name in FAMILIES])[:16] == "7e0b1edc7b6567a1"


def test_worked_answers_are_right() -> None:
    """Arithmetic adds up, and code does what its docstring says."""
    checked = 0
    for conversation in corpus.conversations(600, 9):
        answer = conversation[0][1]
        for left, right in _equations(answer):
            assert eval(left) == int(right), answer
            checked += 1
        if answer.startswith("def "):
            _check_code(answer.split("\n\n")[0], conversation[0][0])
            checked += 1
    assert checked > 200


def _equations(answer: str) -> list[tuple[str, str]]:
    import re

    return re.findall(r"(\d+ [-+*] \d+) = (\d+)", answer)


def _check_code(source: str, user: str) -> None:
    scope: dict[str, object] = {}
    exec(source, scope)
    function = next(value for name, value in scope.items() if name != "__builtins__")
    tests = {
        "greater than": lambda x, n: x > n,
        "less than": lambda x, n: x < n,
        "divisible by": lambda x, n: x % n == 0,
        "not equal to": lambda x, n: x != n,
    }
    kind = next(words for words in tests if words in user)
    bound = int(user.split(kind)[1].split(".")[0])
    kept = [x for x in range(40) if tests[kind](x, bound)]
    expected = {"sum": sum(kept), "count": len(kept), "list": kept}[user.split("Return the ")[1].split()[0]]
    assert function(range(40)) == expected  # type: ignore[operator]


def test_unknown_benchmarks_and_too_many_questions_are_refused() -> None:
    with raises(UsageError, "'mmlu'"):
        corpus.questions("mmlu", 1)
    with pytest.raises(UsageError, match="qa"):
        corpus.questions("qa", 100_000)
