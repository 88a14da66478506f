"""Formulas against brute force: every round of a made-up run is written out and counted by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measurements import cell, sample

from prism_ae.analysis.quantities import (
    AL_MACRO,
    AL_MICRO,
    DECODE_SPEED_UP,
    DECODE_TPS,
    ROUND_COST,
    ROUND_SECONDS,
    SPEED_UP,
    STEP_SECONDS,
    TOKENS_PER_ROUND,
    TPS,
    Quantity,
    Sums,
    acceptance_lengths,
    acceptance_rate,
    conditional_acceptance,
)
from prism_ae.analysis.results import Columns, columns_of
from prism_ae.cells import Sample

Questions = list[tuple[list[int], int]]
"""Per question: the drafts that each round accepted, and the accepted tokens behind the end token."""

questions = st.lists(st.tuples(st.lists(st.integers(0, 6), max_size=12), st.integers(0, 3)), min_size=1, max_size=8)


def samples(data: Questions) -> list[Sample]:
    return [sample(f"q{number}", rounds, cut=cut) for number, (rounds, cut) in enumerate(data)]


def columns(data: Questions) -> Columns:
    return columns_of(samples(data))


def same(value: object, expected: float) -> bool:
    return float(value) == pytest.approx(expected, rel=1e-9, nan_ok=True)  # type: ignore[arg-type]


# --- Acceptance.


@given(questions)
def test_al_macro_is_the_mean_over_questions_of_mean_accepted_plus_one(data: Questions) -> None:
    lengths = [statistics.fmean(rounds) + 1 for rounds, _ in data if rounds]
    assert same(columns(data).value(AL_MACRO), statistics.fmean(lengths) if lengths else math.nan)


@given(questions)
def test_al_micro_is_generated_tokens_over_rounds(data: Questions) -> None:
    used = [item for item in samples(data) if item.rounds]
    rounds = sum(item.rounds for item in used)
    expected = sum(item.generated_tokens for item in used) / rounds if used else math.nan
    assert same(columns(data).value(AL_MICRO), expected)


@given(questions, st.integers(1, 8))
def test_conditional_acceptance_counts_rounds(data: Questions, positions: int) -> None:
    rounds = [accepted for question, _ in data for accepted in question]
    rates = conditional_acceptance(columns(data).histograms.sum(axis=0), positions)
    assert rates.shape == (positions,)
    for position, rate in enumerate(rates, start=1):
        before = [accepted for accepted in rounds if accepted >= position - 1]
        expected = sum(accepted >= position for accepted in before) / len(before) if before else math.nan
        assert same(rate, expected)
        assert same(columns(data).value(acceptance_rate(position)), expected)


@given(questions)
def test_rounds_of_each_question(data: Questions) -> None:
    counted = columns(data)
    assert counted.rounds.tolist() == [len(rounds) for rounds, _ in data]
    assert counted.without_rounds == sum(not rounds for rounds, _ in data)
    lengths = [statistics.fmean(rounds) + 1 if rounds else math.nan for rounds, _ in data]
    assert acceptance_lengths(counted.histograms) == pytest.approx(lengths, nan_ok=True)


def test_macro_and_micro_are_not_the_same_number() -> None:
    """One long poor answer and one short good one: macro weighs questions, micro weighs rounds."""
    counted = columns([([0] * 9, 0), ([5], 0)])
    assert counted.value(AL_MACRO) == (1 + 6) / 2
    assert counted.value(AL_MICRO) == (10 + 7) / 10


def test_rates_multiply_to_the_acceptance_length() -> None:
    """AL of one pooled histogram = 1 + sum of products of its conditional rates: the two definitions agree."""
    rates = conditional_acceptance(np.array([4, 3, 2, 0, 1]), 4)
    assert 1 + np.cumprod(rates).sum() == pytest.approx(1 + (3 + 4 + 4) / 10)


def test_vanilla_decoding_has_no_acceptance() -> None:
    counted = columns_of([sample("q", generated_tokens=90)])
    for quantity in (AL_MACRO, AL_MICRO, *map(acceptance_rate, (1, 2, 3))):
        assert math.isnan(counted.value(quantity))
        assert not quantity.applies(vanilla=True)


# --- Speeds.

Turn = tuple[float, list[tuple[int, float]]]
"""Seconds of the prefill, then of each round the drafts it accepted and its seconds."""
Run = list[list[Turn]]
"""The turns of each question."""

seconds = st.floats(0.001, 9.0)
turn = st.tuples(seconds, st.lists(st.tuples(st.integers(0, 6), seconds), max_size=6))
runs = st.lists(st.lists(turn, min_size=1, max_size=2), min_size=1, max_size=6)


def timed(run: Run, wall: float, batch: int, *, vanilla: bool = False) -> Sums:
    """Sums of a run; a step of vanilla decoding makes one token, whatever was accepted."""
    listed = []
    for number, turns in enumerate(run):
        rounds = [each for _, decoded in turns for each in decoded]
        listed.append(
            sample(
                f"q{number}",
                [] if vanilla else [accepted for accepted, _ in rounds],
                turns=len(turns),
                generated_tokens=len(turns) + sum(1 if vanilla else accepted + 1 for accepted, _ in rounds),
                prefill_seconds=sum(prefill for prefill, _ in turns),
                decode_seconds=sum(spent for _, spent in rounds),
            )
        )
    return cell(listed, wall, batch=batch, **({"drafter": "vanilla"} if vanilla else {})).total


def of(quantity: Quantity, sums: Sums) -> float:
    assert quantity.formula is not None
    return float(quantity.formula(sums))


def over(quantity: Quantity, sums: Sums, vanilla: Sums) -> float:
    assert quantity.over_vanilla is not None
    return float(quantity.over_vanilla(lambda own: of(own, sums), lambda plain: of(plain, vanilla)))  # type: ignore[arg-type,return-value]


@given(runs, seconds, st.integers(1, 32))
def test_every_speed_is_what_counting_gives(run: Run, wall: float, batch: int) -> None:
    rounds = [each for turns in run for _, listed in turns for each in listed]
    decoded = sum(accepted + 1 for accepted, _ in rounds)
    spent = sum(each for _, each in rounds)
    sums = timed(run, wall, batch)
    assert same(of(TPS, sums), (decoded + sum(len(turns) for turns in run)) / wall)
    assert same(of(TOKENS_PER_ROUND, sums), decoded / len(rounds) if rounds else math.nan)
    assert same(of(ROUND_SECONDS, sums), statistics.fmean(each for _, each in rounds) if rounds else math.nan)
    assert same(of(DECODE_TPS, sums), batch * decoded / spent if rounds else math.nan)


@given(runs, runs, st.integers(1, 32))
def test_decode_speed_up_is_tokens_per_round_over_round_cost(run: Run, plain: Run, batch: int) -> None:
    """Exactly, and it is also the ratio of the two decode TPS."""
    sums, vanilla = timed(run, 2.0, batch), timed(plain, 3.0, batch, vanilla=True)
    steps = [each for turns in plain for _, listed in turns for _, each in listed]
    assert same(of(STEP_SECONDS, vanilla), statistics.fmean(steps) if steps else math.nan)
    quotient = of(TOKENS_PER_ROUND, sums) / over(ROUND_COST, sums, vanilla)
    assert over(DECODE_SPEED_UP, sums, vanilla) == quotient or math.isnan(quotient)
    assert same(quotient, of(DECODE_TPS, sums) / of(DECODE_TPS, vanilla))


def test_a_run_by_hand() -> None:
    """Batch 2: each request makes 3 tokens in 2 rounds of 0.5 s, or in 3 steps of 0.4 s."""
    fast = timed([[(0.25, [(0, 0.5), (1, 0.5)])]] * 2, 1.25, 2)
    slow = timed([[(0.25, [(0, 0.4)] * 3)]] * 2, 1.45, 2, vanilla=True)
    assert of(TPS, fast) == 8 / 1.25
    assert of(DECODE_TPS, fast) == 6.0
    assert of(DECODE_TPS, slow) == pytest.approx(5.0)
    assert of(TOKENS_PER_ROUND, fast) == 1.5
    assert over(ROUND_COST, fast, slow) == pytest.approx(1.25)
    assert over(DECODE_SPEED_UP, fast, slow) == pytest.approx(1.2)
    assert over(SPEED_UP, fast, slow) == pytest.approx(1.45 / 1.25)


def test_nothing_decoded_is_undefined_and_no_exception() -> None:
    none = timed([[(0.1, [])]], 0.0, 1)
    for quantity in (TPS, DECODE_TPS, TOKENS_PER_ROUND, ROUND_SECONDS, STEP_SECONDS):
        assert math.isnan(of(quantity, none))
    for quantity in (ROUND_COST, DECODE_SPEED_UP, SPEED_UP):
        assert math.isnan(over(quantity, none, none))


def test_other_batches_do_not_add_up() -> None:
    run: Run = [[(0.1, [(1, 0.1)])]]
    both = timed(run, 1.0, 2) + timed(run, 2.0, 2)
    assert (float(both.wall), float(both.generated)) == (3.0, 6.0)
    with pytest.raises(ValueError, match="batch 2 and at batch 4"):
        timed(run, 1.0, 2) + timed(run, 1.0, 4)
