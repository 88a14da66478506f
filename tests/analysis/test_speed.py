"""Speeds against brute force: every token and every round of a made-up run is written out with its own seconds."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_ae.analysis.acceptance import al_micro, counts_of
from prism_ae.analysis.bootstrap import REPLICATES, interval, micro_replicates, resamples, total_replicates
from prism_ae.analysis.speed import (
    Times,
    decode_speed_up,
    decode_tps,
    round_cost,
    round_seconds,
    step_seconds,
    times_of,
    tokens_per_round,
    totals,
    tps,
)
from prism_ae.cells import Sample

Turn = tuple[float, list[tuple[int, float]]]
"""Seconds of the prefill, then of each round the drafts it accepted and its seconds."""

seconds = st.floats(0.001, 9.0)
turn = st.tuples(seconds, st.lists(st.tuples(st.integers(0, 6), seconds), max_size=6))
runs = st.lists(st.lists(turn, min_size=1, max_size=2), min_size=1, max_size=6)


def sample(number: int, turns: list[Turn], vanilla: bool = False) -> Sample:
    rounds = [each for _, listed in turns for each in listed]
    histogram = [0] * 7
    for accepted, _ in rounds:
        histogram[accepted] += 1
    return Sample(
        question_id=f"q{number}",
        turns=len(turns),
        prompt_tokens=9,
        generated_tokens=len(turns) + sum(1 if vanilla else accepted + 1 for accepted, _ in rounds),
        rounds=0 if vanilla else len(rounds),
        histogram=() if vanilla else tuple(histogram),
        stops=("end",) * len(turns),
        prefill_seconds=sum(prefill for prefill, _ in turns),
        decode_seconds=sum(each for _, each in rounds),
        output_sha256="0",
    )


def timed(run: list[list[Turn]], wall: float, batch: int, vanilla: bool = False) -> Times:
    return times_of([sample(number, turns, vanilla) for number, turns in enumerate(run)], wall, batch)


def same(value: object, expected: float) -> bool:
    return float(value) == pytest.approx(expected, rel=1e-9, nan_ok=True)  # type: ignore[arg-type]


@given(runs, seconds, st.integers(1, 32))
def test_every_speed_is_what_counting_gives(run: list[list[Turn]], wall: float, batch: int) -> None:
    rounds = [each for turns in run for _, listed in turns for each in listed]
    decoded = sum(accepted + 1 for accepted, _ in rounds)
    spent = sum(each for _, each in rounds)
    of = totals(timed(run, wall, batch))
    assert same(tps(of), (decoded + sum(len(turns) for turns in run)) / wall)
    assert same(tokens_per_round(of), decoded / len(rounds) if rounds else math.nan)
    assert same(round_seconds(of), statistics.fmean(each for _, each in rounds) if rounds else math.nan)
    assert same(decode_tps(of), batch * decoded / spent if rounds else math.nan)


@given(runs, runs, seconds, seconds, st.integers(1, 32))
def test_decode_speed_up_is_tokens_per_round_over_round_cost(
    run: list[list[Turn]], plain: list[list[Turn]], wall: float, other: float, batch: int
) -> None:
    """Exactly, and it is also the ratio of the two decode TPS."""
    of, vanilla = totals(timed(run, wall, batch)), totals(timed(plain, other, batch, vanilla=True))
    steps = [each for turns in plain for _, listed in turns for _, each in listed]
    assert same(step_seconds(vanilla), statistics.fmean(steps) if steps else math.nan)
    quotient = float(tokens_per_round(of)) / float(round_cost(of, vanilla))
    assert float(decode_speed_up(of, vanilla)) == quotient or math.isnan(quotient)
    assert same(decode_speed_up(of, vanilla), float(decode_tps(of)) / float(decode_tps(vanilla)))


def test_a_run_by_hand() -> None:
    """Batch 2: each request makes 3 tokens in 2 rounds of 0.5 s, or in 3 steps of 0.4 s."""
    fast = totals(timed([[(0.25, [(0, 0.5), (1, 0.5)])]] * 2, 1.25, 2))
    slow = totals(timed([[(0.25, [(0, 0.4)] * 3)]] * 2, 1.45, 2, vanilla=True))
    assert float(tps(fast)) == 8 / 1.25
    assert float(decode_tps(fast)) == 6.0
    assert float(decode_tps(slow)) == pytest.approx(5.0)
    assert float(tokens_per_round(fast)) == 1.5
    assert float(round_cost(fast, slow)) == pytest.approx(1.25)
    assert float(decode_speed_up(fast, slow)) == pytest.approx(1.2)


def test_nothing_decoded_is_undefined_and_no_exception() -> None:
    none = totals(timed([[(0.1, [])]], 0.0, 1))
    assert all(math.isnan(value) for value in (tps(none), decode_tps(none), tokens_per_round(none)))
    assert math.isnan(round_cost(none, none))
    assert np.isnan(tps(total_replicates(timed([[(0.0, [])]], 1.0, 1), "qa"))).all()


def test_a_resample_counts_its_questions_tokens_and_shares_the_wall_seconds() -> None:
    """Against drawing the questions one by one."""
    draw = random.Random(4)
    run = [[(draw.random(), [(draw.randrange(5), draw.random()) for _ in range(5)])] for _ in range(4)]
    whole, listed = timed(run, 7.0, 2), [sample(number, turns) for number, turns in enumerate(run)]
    served = [item.prefill_seconds + item.decode_seconds for item in listed]
    replicates = total_replicates(whole, "qa")
    for number, row in enumerate(resamples(4, "qa")[:40]):
        drawn = [question for question, times in enumerate(row) for _ in range(int(times))]
        wall = 7.0 * sum(served[q] for q in drawn) / sum(served)
        assert tps(replicates)[number] == pytest.approx(sum(listed[q].generated_tokens for q in drawn) / wall)
        later = sum(listed[q].generated_tokens - 1 for q in drawn)
        assert decode_tps(replicates)[number] == pytest.approx(2 * later / sum(listed[q].decode_seconds for q in drawn))
        micro = sum(listed[q].generated_tokens for q in drawn) / sum(listed[q].rounds for q in drawn)
        assert micro_replicates(counts_of(listed), "qa")[number] == pytest.approx(micro)


def test_twice_as_fast_on_every_question_is_certain() -> None:
    """The same questions are drawn for both, so questions of any length leave no doubt about the ratio."""
    draw = random.Random(9)
    lengths = [draw.randrange(5, 60) for _ in range(12)]
    one = timed([[(0.1, [(1, 0.1)] * length)] for length in lengths], 9.0, 1)
    half = dataclasses.replace(one, prefill=one.prefill / 2, decode=one.decode / 2, wall=4.5)
    ratios = tps(total_replicates(half, "qa")) / tps(total_replicates(one, "qa"))
    assert ratios == pytest.approx(np.full(REPLICATES, 2.0))
    alone = interval(tps(total_replicates(one, "qa")), 12)
    assert alone is not None
    assert alone[0] < float(tps(totals(one))) < alone[1]


def test_micro_leaves_out_questions_without_rounds() -> None:
    listed = [sample(0, [(0.1, [])]), sample(1, [(0.1, [(2, 0.1)])])]
    counts = counts_of(listed)
    replicates = micro_replicates(counts, "qa")
    assert np.isnan(replicates).any()
    assert set(replicates[~np.isnan(replicates)]) == {al_micro(counts)} == {4.0}


def test_other_batches_do_not_add_up() -> None:
    run: list[list[Turn]] = [[(0.1, [(1, 0.1)])]]
    both = totals(timed(run, 1.0, 2)) + totals(timed(run, 2.0, 2))
    assert (float(both.wall), float(both.generated)) == (3.0, 6.0)
    with pytest.raises(ValueError, match="batch 2 and at batch 4"):
        totals(timed(run, 1.0, 2)) + totals(timed(run, 1.0, 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_impossible_seconds_are_refused(bad: float) -> None:
    good = sample(0, [(0.1, [(1, 0.1)])])
    times_of([good], 1.0, 1)
    for change in ({"prefill_seconds": bad}, {"decode_seconds": bad}):
        with pytest.raises(ValueError, match="question q0: its"):
            times_of([dataclasses.replace(good, **change)], 1.0, 1)
    with pytest.raises(ValueError, match="the run took"):
        times_of([good], bad, 1)
