"""Formulas against brute force: histograms are written out as lists of rounds and counted by hand."""

from __future__ import annotations

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_ae.analysis.acceptance import (
    acceptance_lengths,
    al_macro,
    al_micro,
    conditional_acceptance,
    counts_of,
    without_rounds,
)
from prism_ae.cells import Sample


def sample(name: str, rounds: list[int], cut: int = 0) -> Sample:
    """A question whose rounds accepted these numbers of drafts; ``cut`` accepted tokens lay behind the end token."""
    histogram = tuple(rounds.count(depth) for depth in range(max(rounds, default=-1) + 1))
    generated = max(1, 1 + sum(rounds) + len(rounds) - cut)
    return Sample(name, 1, 9, generated, len(rounds), histogram, ("end",), 0.0, 0.0, "0")


questions = st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=12), st.integers(0, 3)), min_size=1, max_size=8)


def samples(data: list[tuple[list[int], int]]) -> list[Sample]:
    return [sample(f"q{number}", rounds, cut) for number, (rounds, cut) in enumerate(data)]


@given(questions)
def test_al_macro_is_the_mean_over_questions_of_mean_accepted_plus_one(data: list[tuple[list[int], int]]) -> None:
    lengths = [statistics.fmean(rounds) + 1 for rounds, _ in data if rounds]
    value = al_macro(counts_of(samples(data)))
    if lengths:
        assert value == pytest.approx(statistics.fmean(lengths), rel=1e-12)
    else:
        assert math.isnan(value)


@given(questions)
def test_al_micro_is_generated_tokens_over_rounds(data: list[tuple[list[int], int]]) -> None:
    used = [item for item in samples(data) if item.rounds]
    value = al_micro(counts_of(samples(data)))
    if used:
        expected = sum(item.generated_tokens for item in used) / sum(item.rounds for item in used)
        assert value == pytest.approx(expected, rel=1e-12)
    else:
        assert math.isnan(value)


@given(questions, st.integers(1, 8))
def test_conditional_acceptance_counts_rounds(data: list[tuple[list[int], int]], positions: int) -> None:
    rounds = [accepted for question, _ in data for accepted in question]
    rates = conditional_acceptance(counts_of(samples(data)).histograms.sum(axis=0), positions)
    assert rates.shape == (positions,)
    for position in range(1, positions + 1):
        before = [accepted for accepted in rounds if accepted >= position - 1]
        if before:
            expected = sum(accepted >= position for accepted in before) / len(before)
            assert rates[position - 1] == pytest.approx(expected, rel=1e-12)
        else:
            assert math.isnan(rates[position - 1])


@given(questions)
def test_totals_and_questions_without_rounds(data: list[tuple[list[int], int]]) -> None:
    counts = counts_of(samples(data))
    assert counts.rounds.tolist() == [len(rounds) for rounds, _ in data]
    assert counts.accepted.tolist() == [sum(rounds) for rounds, _ in data]
    assert without_rounds(counts) == sum(not rounds for rounds, _ in data)
    assert np.isnan(acceptance_lengths(counts)).tolist() == [not rounds for rounds, _ in data]


def test_macro_and_micro_are_not_the_same_number() -> None:
    """One long poor answer and one short good one: macro weighs questions, micro weighs rounds."""
    counts = counts_of([sample("long", [0] * 9), sample("short", [5])])
    assert al_macro(counts) == (1 + 6) / 2
    assert al_micro(counts) == (10 + 7) / 10


def test_rates_multiply_to_the_acceptance_length() -> None:
    """AL of one pooled histogram = 1 + sum of products of its conditional rates: the two definitions agree."""
    histogram = np.array([4, 3, 2, 0, 1])
    rates = conditional_acceptance(histogram, 4)
    assert 1 + np.cumprod(rates).sum() == pytest.approx(1 + (3 + 4 + 4) / 10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": 4}, "sums to 3, not to the 4 rounds"),
        ({"generated_tokens": 9}, "committed 8 at most"),
        ({"histogram": (3, 1, -1), "rounds": 3}, "negative"),
        ({"generated_tokens": -1}, "negative"),
    ],
)
def test_contradictory_samples_are_refused(change: dict[str, object], said: str) -> None:
    good = sample("q", [0, 2, 2])
    counts_of([good])
    with pytest.raises(ValueError, match=said):
        counts_of([dataclasses.replace(good, **change)])


def test_a_question_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        counts_of([sample("q", [1]), sample("q", [2])])


def test_vanilla_decoding_has_no_acceptance_length() -> None:
    counts = counts_of([Sample("q", 1, 9, 90, 0, (), ("length",), 0.0, 0.0, "0")])
    assert math.isnan(al_macro(counts))
    assert math.isnan(al_micro(counts))
    assert np.isnan(conditional_acceptance(counts.histograms, 3)).all()
