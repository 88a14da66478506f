"""Texts are compared exactly where they must be equal."""

from __future__ import annotations

import dataclasses

import pytest
from measurements import make_point, measured, sample

from prism_ae.analysis.results import Measured
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import TreeShape

POINT = make_point(drafter="hass", engine="torch", temperature=1.0)


def result(*texts: str) -> Measured:
    return measured(sample(f"qa/{number}", [1], output_sha256=text) for number, text in enumerate(texts))


@pytest.mark.parametrize(
    "change",
    [
        {"drafter": "vanilla", "scale": None, "tree": None},
        {"scale": "1x"},
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
