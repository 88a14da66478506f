"""Texts are compared exactly where they must be equal."""

from __future__ import annotations

import dataclasses

import pytest

from prism_ae.analysis.results import Measured
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import Point, Sample, TreeShape

POINT = Point(
    suite="mini", target="t", drafter="hass", scale="1x", benchmark="qa", temperature=1.0, tree=TreeShape(6, 10, 60),
    engine="torch", batch=None, questions=2, max_new_tokens=9, max_length=99, seed=1, dtype="float32",
)  # fmt: skip


def result(*texts: str) -> Measured:
    samples = tuple(
        Sample(f"qa/{number}", 1, 5, 3, (0, 1), ("end",), 0.0, 0.0, text) for number, text in enumerate(texts)
    )
    return Measured("id", samples, 1.0, {}, "2026-01-01", "cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"drafter": "vanilla", "scale": None, "tree": None},
        {"scale": "8x"},
        {"tree": TreeShape(4, 4, 16)},
        {"batch": 4},
        {"questions": 1},
        {"compat": ("eagle3-config-rope",)},
    ],
)
def test_what_must_not_change_a_text_is_compared(change: dict[str, object]) -> None:
    other = dataclasses.replace(POINT, **change)  # type: ignore[arg-type]
    theirs = ("a", "b")[: other.questions]
    assert compare({POINT: result("a", "b"), other: result(*theirs)}) == Texts(len(theirs), 0)
    assert compare({POINT: result("a", "b"), other: result("x", *theirs[1:])}) == Texts(len(theirs), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "u"},
        {"temperature": 0.0},
        {"seed": 2},
        {"max_new_tokens": 8},
        {"max_length": 98},
        {"dtype": "bfloat16"},
        {"suite": "paper"},
        {"benchmark": "sum"},
        {"compat": ("greedy-second-temperature",)},
    ],
)
def test_what_may_change_a_text_is_not(change: dict[str, object]) -> None:
    other = dataclasses.replace(POINT, **change)  # type: ignore[arg-type]
    assert compare({POINT: result("a", "b"), other: result("x", "y")}) == Texts(0, 0)


def test_an_engine_whose_randomness_is_its_own_is_left_out() -> None:
    ours, other = (dataclasses.replace(POINT, engine="fake", drafter=drafter) for drafter in ("hass", "prism"))
    assert compare({ours: result("a"), other: result("x")}) == Texts(0, 0)


def test_greedy_texts_are_compared_for_every_engine_and_way_of_drafting() -> None:
    greedy = dataclasses.replace(POINT, engine="fake", temperature=0.0)
    for change in ({"drafter": "prism"}, {"drafting": "stock"}, {"tree": None}):
        other = dataclasses.replace(greedy, **change)  # type: ignore[arg-type]
        assert compare({greedy: result("a", "b"), other: result("a", "x")}) == Texts(2, 1)
