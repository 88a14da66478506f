"""Texts are compared exactly where they must be equal."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from measurements import make_point, measured, sample

from prism_ae.analysis.results import Measured
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import NearTie, Point, TreeShape

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


# --- Half precision: which texts parted at ties.

HALF = dataclasses.replace(POINT, dtype="bfloat16")
A, B = ((0, 3, "aaaaaaaa", 7),), ((0, 3, "aaaaaaaa", 8),)
"""Near ties of two texts at one place, behind the same tokens."""


def runs(*written: tuple[str, tuple[NearTie, ...], int | None]) -> dict[Point, Measured]:
    """One question, written by a drafter each: text, near ties, faults."""
    return {
        dataclasses.replace(HALF, drafter=f"d{number}"): measured(
            [sample("qa/0", [1], output_sha256=text, near_ties=ties, faults=faults)]
        )
        for number, (text, ties, faults) in enumerate(written)
    }


LATER = ((1, 0, "bbbbbbbb", 1), (1, 2, "cccccccc", 2))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([("x", A, 0), ("x", B, 0)], Texts(1, 0)),
        ([("x", A, 0), ("y", B, 0)], Texts(1, 1, ties=1)),
        ([("x", (*A, *LATER), 0), ("y", (*B, (1, 0, "dddddddd", 4)), 0)], Texts(1, 1, ties=1)),
        # Before the place where they part, both texts have the same ties.
        ([("x", ((0, 1, "99999999", 5), *A), 0), ("y", ((0, 1, "99999999", 5), *B), 0)], Texts(1, 1, ties=1)),
        ([("x", A, 0), ("y", A, 0)], Texts(1, 1, faults=1)),
        ([("x", A, 0), ("y", (), 0)], Texts(1, 1, faults=1)),
        ([("x", (), 0), ("y", (), 0)], Texts(1, 1, faults=1)),
        # The same place behind other tokens is another place.
        ([("x", A, 0), ("y", ((0, 3, "ffffffff", 8),), 0)], Texts(1, 1, faults=1)),
        ([("x", A, 0), ("y", (), None)], Texts(1, 1, unexamined=1)),
        ([("x", (), None), ("y", (), None)], Texts(1, 1, unexamined=1)),
        # One run of a text that was examined speaks for all of that text.
        ([("x", A, 0), ("y", (), None), ("y", B, 0)], Texts(1, 1, ties=1)),
        # A tie that one run of a text saw and another, just, did not.
        ([("x", (), 0), ("x", A, 0), ("y", B, 0)], Texts(1, 1, ties=1)),
        # Three versions: all pairs must have parted at ties.
        ([("x", A, 0), ("y", B, 0), ("z", ((0, 3, "aaaaaaaa", 9),), 0)], Texts(1, 1, ties=1)),
        ([("x", A, 0), ("y", B, 0), ("z", A, 0)], Texts(1, 1, faults=1)),
        ([("x", A, 0), ("y", A, 0), ("z", (), None)], Texts(1, 1, faults=1)),
        ([("x", A, 0), ("y", B, 0), ("z", (), None)], Texts(1, 1, unexamined=1)),
        # A text with a wrong token has not parted by rounding, wherever it parted.
        ([("x", A, 0), ("y", B, 2)], Texts(1, 1, faults=1, wrong_tokens=2)),
        ([("x", A, 1), ("x", A, 1)], Texts(1, 0, wrong_tokens=2)),
        ([("x", A, 3)], Texts(0, 0, wrong_tokens=3)),
    ],
)
def test_texts_that_part_at_a_near_tie_of_both_have_parted_by_rounding(
    written: list[tuple[str, tuple[NearTie, ...], int | None]], expected: Texts
) -> None:
    for order in itertools.permutations(written):
        assert compare(runs(*order)) == expected


def test_float32_knows_no_ties() -> None:
    half = runs(("x", A, 0), ("y", B, 0))
    exact = {dataclasses.replace(point, dtype="float32"): result for point, result in half.items()}
    assert compare(exact) == Texts(1, 1)
    assert compare(exact).differing_exactly == 1
    both = compare(exact | half)
    assert (both, both.differing_exactly) == (Texts(2, 2, ties=1), 1)
