"""The bootstrap against exact enumeration, an independent loop and closed forms."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
from prism_ae.analysis.acceptance import conditional_acceptance

from prism_ae.analysis.bootstrap import REPLICATES, interval, mean_replicates, rate_replicates, resamples


def test_resamples_are_drawn_with_replacement() -> None:
    """Against all 27 equally likely resamples of three questions: the replicates' distribution is the exact one."""
    values = np.array([1.0, 2.0, 4.0])
    exact = [statistics.fmean(draw) for draw in itertools.product(values, repeat=3)]
    replicates = mean_replicates(values, "gsm8k")
    assert len(replicates) == REPLICATES
    for mean in set(exact):
        expected = exact.count(mean) / len(exact)
        error = 4 * math.sqrt(expected * (1 - expected) / REPLICATES)
        assert np.isclose(replicates, mean).mean() == pytest.approx(expected, abs=error)


def test_interval_agrees_with_an_independent_bootstrap() -> None:
    draw = random.Random(5)
    values = [draw.gauss(4, 0.8) for _ in range(40)]
    means = sorted(statistics.fmean(draw.choices(values, k=40)) for _ in range(20_000))
    bounds = interval(mean_replicates(np.array(values), "qa"), len(values))
    assert bounds is not None
    spread = statistics.stdev(means)
    assert bounds[0] == pytest.approx(means[500], abs=0.2 * spread)
    assert bounds[1] == pytest.approx(means[-500], abs=0.2 * spread)


def test_spread_is_that_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5, 1, 80)
    assert mean_replicates(values, "sum").std() == pytest.approx(values.std() / math.sqrt(80), rel=0.06)


def test_the_interval_covers_the_truth() -> None:
    """In 300 made-up studies of 80 questions the 95 % interval holds the true mean about 95 times in 100."""
    draw = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        bounds = interval(mean_replicates(draw.normal(4, 1, 80), "mt_bench"), 80)
        assert bounds is not None
        covered += bounds[0] <= 4 <= bounds[1]
    assert 0.90 <= covered / 300 <= 0.98


def test_rates_are_pooled_over_each_resample() -> None:
    """Against pooling the drawn questions one by one."""
    histograms = np.array([[3, 1, 0], [0, 2, 2], [5, 0, 1], [1, 1, 1]])
    replicates = rate_replicates(histograms, 2, "alpaca")
    for number, row in enumerate(resamples(4, "alpaca")[:50]):
        drawn = [histograms[question] for question, times in enumerate(row) for _ in range(int(times))]
        pooled = np.sum(drawn, axis=0)
        reached = [pooled.sum(), pooled[1:].sum(), pooled[2:].sum()]
        for position in (0, 1):
            expected = reached[position + 1] / reached[position] if reached[position] else math.nan
            assert replicates[number, position] == pytest.approx(expected, nan_ok=True)
    np.testing.assert_allclose(replicates[:5], conditional_acceptance(resamples(4, "alpaca")[:5] @ histograms, 2))


def test_the_same_questions_are_drawn_for_every_drafter() -> None:
    """A drafter that is better by 0.2 on every question is better by exactly 0.2 in every replicate."""
    values = np.random.default_rng(2).normal(4, 1, 16)
    difference = mean_replicates(values + 0.2, "qa") - mean_replicates(values, "qa")
    assert difference == pytest.approx(np.full(REPLICATES, 0.2))


def test_benchmarks_are_drawn_independently() -> None:
    one, other = resamples(16, "qa"), resamples(16, "sum")
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.1


def test_a_question_without_rounds_is_left_out() -> None:
    values = np.array([2.0, math.nan, 4.0])
    replicates = mean_replicates(values, "qa")
    weights = resamples(3, "qa")
    for row, mean in zip(weights[:100], replicates, strict=False):
        drawn = [values[q] for q in (0, 2) for _ in range(int(row[q]))]
        assert mean == pytest.approx(statistics.fmean(drawn) if drawn else math.nan, nan_ok=True)


def test_no_interval_where_it_would_mean_nothing() -> None:
    assert interval(mean_replicates(np.array([4.0]), "qa"), 1) is None
    assert interval(np.array([math.nan, math.nan, 1.0]), 10) is None
    assert interval(np.array([1.0, 2.0, 3.0]), 10) is not None
