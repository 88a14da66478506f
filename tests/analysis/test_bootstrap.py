"""The bootstrap against exact enumeration, an independent loop and closed forms."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from measurements import cell, sample

from prism_ae.analysis.bootstrap import REPLICATES, interval, resamples
from prism_ae.analysis.quantities import (
    AL_MACRO,
    AL_MICRO,
    DECODE_TPS,
    ROUND_SECONDS,
    TOKENS_PER_ROUND,
    TPS,
    Floats,
    Quantity,
    acceptance_lengths,
    acceptance_rate,
)
from prism_ae.analysis.results import CellResult
from prism_ae.cells import Sample


def of_lengths(lengths: Sequence[float] | Floats, benchmark: str = "qa") -> CellResult:
    """Questions of these acceptance lengths, to two digits; NaN is a question without rounds."""
    listed = []
    for number, length in enumerate(lengths):
        depth, more = divmod(0 if math.isnan(length) else round(100 * length) - 100, 100)
        rounds = [] if math.isnan(length) else [depth] * (100 - more) + [depth + 1] * more
        listed.append(sample(f"q{number}", rounds))
    return cell(listed, benchmark=benchmark)


def lengths_of(one: CellResult) -> Floats:
    return acceptance_lengths(one.columns.histograms)


def replicates(quantity: Quantity, one: CellResult) -> Floats:
    assert quantity.formula is not None
    return quantity.formula(one.resampled)


def test_resamples_are_drawn_with_replacement() -> None:
    """Against all 27 equally likely resamples of three questions: the replicates' distribution is the exact one."""
    exact = [statistics.fmean(draw) for draw in itertools.product((1.0, 2.0, 4.0), repeat=3)]
    found = replicates(AL_MACRO, of_lengths([1.0, 2.0, 4.0], "gsm8k"))
    assert len(found) == REPLICATES
    for mean in set(exact):
        expected = exact.count(mean) / len(exact)
        error = 4 * math.sqrt(expected * (1 - expected) / REPLICATES)
        assert np.isclose(found, mean).mean() == pytest.approx(expected, abs=error)


def test_interval_agrees_with_an_independent_bootstrap() -> None:
    draw = random.Random(5)
    one = of_lengths([draw.gauss(4, 0.8) for _ in range(40)])
    values = lengths_of(one).tolist()
    means = sorted(statistics.fmean(draw.choices(values, k=40)) for _ in range(20_000))
    bounds = interval(replicates(AL_MACRO, one), one.questions)
    assert bounds is not None
    spread = statistics.stdev(means)
    assert bounds[0] == pytest.approx(means[500], abs=0.2 * spread)
    assert bounds[1] == pytest.approx(means[-500], abs=0.2 * spread)


def test_spread_is_that_of_a_mean() -> None:
    one = of_lengths(np.random.default_rng(1).normal(4, 0.8, 80), "sum")
    assert replicates(AL_MACRO, one).std() == pytest.approx(lengths_of(one).std() / math.sqrt(80), rel=0.06)


def test_the_interval_covers_the_truth() -> None:
    """In 300 made-up studies of 80 questions the 95 % interval holds the true mean about 95 times in 100."""
    draw = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        studied = of_lengths(np.clip(draw.normal(4, 0.8, 80), 1, 7), "mt_bench")
        bounds = interval(replicates(AL_MACRO, studied), 80)
        assert bounds is not None
        covered += bounds[0] <= 4 <= bounds[1]
    assert 0.90 <= covered / 300 <= 0.98


def drawn_questions(one: CellResult, number: int) -> list[Sample]:
    """The questions of a resample, one by one."""
    row = resamples(len(one.measured.samples), one.point.benchmark)[number]
    return [asked for asked, times in zip(one.measured.samples, row, strict=True) for _ in range(int(times))]


def test_a_resample_is_counted_as_its_questions_are() -> None:
    """Against drawing the questions one by one; the wall seconds are shared by the seconds served."""
    draw = random.Random(4)

    def rounds() -> list[int]:
        return [draw.randrange(5) for _ in range(draw.randrange(1, 6))]

    listed = [
        sample(f"q{number}", rounds(), prefill_seconds=draw.random(), decode_seconds=draw.random())
        for number in range(4)
    ]
    one = cell(listed, 7.0, batch=2)
    served = {asked.question_id: asked.prefill_seconds + asked.decode_seconds for asked in listed}
    found = {quantity: replicates(quantity, one) for quantity in (AL_MACRO, AL_MICRO, TPS, DECODE_TPS)}
    found |= {quantity: replicates(quantity, one) for quantity in (TOKENS_PER_ROUND, ROUND_SECONDS)}
    for number in range(40):
        drawn = drawn_questions(one, number)
        lengths = [1 + sum(d * n for d, n in enumerate(asked.histogram)) / asked.rounds for asked in drawn]
        wall = 7.0 * sum(served[asked.question_id] for asked in drawn) / sum(served.values())
        tokens, rounds_drawn = sum(asked.generated_tokens for asked in drawn), sum(asked.rounds for asked in drawn)
        decode = sum(asked.decode_seconds for asked in drawn)
        expected = {
            AL_MACRO: statistics.fmean(lengths),
            AL_MICRO: tokens / rounds_drawn,
            TPS: tokens / wall,
            DECODE_TPS: 2 * (tokens - 4) / decode,
            TOKENS_PER_ROUND: (tokens - 4) / rounds_drawn,
            ROUND_SECONDS: decode / rounds_drawn,
        }
        assert {quantity: values[number] for quantity, values in found.items()} == pytest.approx(expected)


def test_rates_are_pooled_over_each_resample() -> None:
    """Against pooling the drawn questions one by one."""
    histograms = [(3, 1, 0), (0, 2, 2), (5, 0, 1), (1, 1, 1)]
    listed = [[depth for depth, times in enumerate(each) for _ in range(times)] for each in histograms]
    one = cell((sample(f"q{number}", rounds) for number, rounds in enumerate(listed)), benchmark="alpaca")
    for position in (1, 2, 3):
        found = replicates(acceptance_rate(position), one)
        for number in range(50):
            pooled = [
                d for asked in drawn_questions(one, number) for d, n in enumerate(asked.histogram) for _ in range(n)
            ]
            before = [accepted for accepted in pooled if accepted >= position - 1]
            expected = sum(accepted >= position for accepted in before) / len(before) if before else math.nan
            assert found[number] == pytest.approx(expected, nan_ok=True)


def test_the_same_questions_are_drawn_for_every_drafter() -> None:
    """A drafter that is better by 0.2 on every question is better by exactly 0.2 in every replicate."""
    values = np.clip(np.random.default_rng(2).normal(4, 1, 16), 1, 6.5)
    difference = replicates(AL_MACRO, of_lengths(values + 0.2)) - replicates(AL_MACRO, of_lengths(values))
    assert difference == pytest.approx(np.full(REPLICATES, 0.2))


def test_twice_as_fast_on_every_question_is_certain() -> None:
    """The same questions are drawn for both, so questions of any length leave no doubt about the ratio."""
    draw = random.Random(9)
    lengths = [draw.randrange(5, 60) for _ in range(12)]

    def run(spent: float, wall: float) -> CellResult:
        listed = (
            sample(f"q{number}", [1] * length, prefill_seconds=spent, decode_seconds=spent * length)
            for number, length in enumerate(lengths)
        )
        return cell(listed, wall, batch=1)

    one, half = run(0.1, 9.0), run(0.05, 4.5)
    assert replicates(TPS, half) / replicates(TPS, one) == pytest.approx(np.full(REPLICATES, 2.0))
    alone = interval(replicates(TPS, one), 12)
    assert alone is not None
    assert alone[0] < one.total.generated / one.total.wall < alone[1]


def test_the_same_resamples_are_drawn_again() -> None:
    """In another process, too: a figure drawn twice shows the same bars."""
    once = resamples(5, "qa").copy()
    resamples.cache_clear()
    assert (resamples(5, "qa") == once).all()


def test_benchmarks_are_drawn_independently() -> None:
    one, other = resamples(16, "qa"), resamples(16, "sum")
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.1


def test_a_question_without_rounds_is_left_out() -> None:
    """And a resample of nothing else is undefined."""
    one = of_lengths([2.0, math.nan, 4.0])
    assert one.questions == 2
    found = replicates(AL_MACRO, one)
    for number in range(100):
        drawn = [asked for asked in drawn_questions(one, number) if asked.rounds]
        expected = statistics.fmean(2.0 if asked.question_id == "q0" else 4.0 for asked in drawn) if drawn else math.nan
        assert found[number] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found).any()


def test_micro_leaves_out_tokens_of_questions_without_rounds() -> None:
    one = cell([sample("q0"), sample("q1", [2])])
    found = replicates(AL_MICRO, one)
    assert np.isnan(found).any()
    assert set(found[~np.isnan(found)]) == {one.columns.value(AL_MICRO)} == {4.0}


def test_nothing_served_has_no_speed() -> None:
    one = cell([sample("q0", prefill_seconds=0.0, decode_seconds=0.0)], 1.0, batch=1)
    assert np.isnan(replicates(TPS, one)).all()


def test_no_interval_where_it_would_mean_nothing() -> None:
    assert interval(replicates(AL_MACRO, of_lengths([4.0])), 1) is None
    assert interval(np.array([math.nan, math.nan, 1.0]), 10) is None
    assert interval(np.array([1.0, 2.0, 3.0]), 10) is not None
