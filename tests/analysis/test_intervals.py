"""Intervals against closed forms, leaving questions out one by one, and the share of studies whose interval holds the
truth."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from measurements import cell, make_point, measured, sample

from prism_ae.analysis.estimates import Estimate, combine, over_seeds, summarise
from prism_ae.analysis.intervals import Factor, combined, error_of, question_freedom, simultaneous_level
from prism_ae.analysis.quantities import QUANTITIES, SPEED, Floats, Quantity, acceptance_rate
from prism_ae.analysis.results import CellResult, results_of
from prism_ae.cells import Sample

T_975 = {3: 3.182446, 4: 2.776445, 6: 2.446912, 18: 2.100922}
"""Student's t as tables have it, by degrees of freedom."""


def names(count: int) -> tuple[str, ...]:
    return tuple(f"q{number}" for number in range(count))


def mean_of(values: Sequence[float] | Floats, name: str = "questions of qa", freedom: int | None = None) -> Estimate:
    """The mean of independent values, each a unit."""
    listed = np.asarray(values, dtype=np.float64)
    freedom = len(listed) - 1 if freedom is None else freedom
    return Estimate(float(listed.mean()), {name: Factor.of(names(len(listed)), listed - listed.mean(), freedom)})


# --- Closed forms.


def test_of_a_mean_it_is_the_textbook_interval() -> None:
    values = [4.1, 3.2, 5.0, 4.4, 2.9]
    bounds = mean_of(values).bounds
    assert bounds is not None
    reach = T_975[4] * statistics.stdev(values) / math.sqrt(5)
    assert bounds == pytest.approx((statistics.fmean(values) - reach, statistics.fmean(values) + reach), rel=1e-6)


def test_of_a_mean_of_two_benchmarks_it_is_welchs() -> None:
    """Against Welch's and Satterthwaite's formulas."""
    one, other = [4.1, 3.2, 5.0, 4.4, 2.9, 3.3], [2.0, 2.2, 1.9, 2.4, 2.1, 2.6, 1.7]
    both = combine(lambda values: float(np.mean(values)), [mean_of(one, "a"), mean_of(other, "b")])
    parts = [statistics.variance(values) / len(values) / 4 for values in (one, other)]
    assert both.error is not None
    assert both.error.error == pytest.approx(math.sqrt(sum(parts)))
    assert both.error.freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 6))


def test_a_difference_over_the_same_questions_is_paired() -> None:
    """Against the interval of the questions' own differences."""
    draw = np.random.default_rng(2)
    one, other = draw.normal(4, 1, 16), draw.normal(3, 1, 16)
    apart = mean_of(one).minus(mean_of(other)).error
    plain = mean_of(one - other).error
    assert apart is not None
    assert plain is not None
    assert apart.error == pytest.approx(plain.error)
    shifted = mean_of(one + 0.2).minus(mean_of(one))
    assert shifted.bounds == pytest.approx((0.2, 0.2))


def test_over_other_questions_it_is_unpaired() -> None:
    """Against the sum of both variances; over some of the same questions those are paired."""
    draw = np.random.default_rng(12)
    one, other = draw.normal(4, 1, 12), draw.normal(3, 1, 12)
    elsewhere = Factor.of(tuple(f"r{number}" for number in range(12)), other - other.mean(), 11)
    apart = mean_of(one).minus(Estimate(float(other.mean()), {"questions of qa": elsewhere})).error
    assert apart is not None
    assert apart.error == pytest.approx(math.sqrt((np.var(one, ddof=1) + np.var(other, ddof=1)) / 12))
    more = np.concatenate([one, draw.normal(4, 1, 12)])
    nested = mean_of(one).minus(mean_of(more)).error
    alone = mean_of(one).error
    assert nested is not None
    assert alone is not None
    assert nested.error < alone.error
    assert mean_of(one).minus(Estimate(1.0)).bounds is None  # one of the paper's


def test_a_ratio_is_the_delta_methods() -> None:
    """Against the formula for a ratio of paired means (Cochran)."""
    draw = np.random.default_rng(3)
    one, other = draw.normal(4, 1, 40), draw.normal(3, 0.5, 40)
    found = combine(lambda values: float(values[0] / values[1]), [mean_of(one), mean_of(other)])
    ratio = one.mean() / other.mean()
    expected = np.std(one - ratio * other, ddof=1) / math.sqrt(40) / other.mean()
    assert found.error is not None
    assert found.error.error == pytest.approx(expected, rel=1e-6)


def test_several_seeds_are_a_factor_of_their_own() -> None:
    """The questions' part is that of the seeds' mean, the seeds' that of a mean of three."""
    draw = np.random.default_rng(4)
    seeds = {seed: draw.normal(4, 0.5, 10) for seed in (0, 1, 2)}
    found = over_seeds({seed: mean_of(values) for seed, values in seeds.items()}, "mini-llama-2")
    every = np.stack(list(seeds.values()))
    by_question = float(np.var(every.mean(axis=0), ddof=1)) / 10
    by_seed = float(np.var(every.mean(axis=1), ddof=1)) / 3
    assert found.seeds == 3
    assert found.error is not None
    assert found.value == pytest.approx(every.mean())
    assert found.error.error == pytest.approx(math.sqrt(by_question + by_seed))
    assert over_seeds({0: mean_of(seeds[0])}, "mini-llama-2").seeds == 1


def test_seeds_are_paired_too() -> None:
    draw = np.random.default_rng(5)
    bases = {seed: draw.normal(4, 0.5, 10) + draw.normal(0, 1) for seed in range(5)}
    one, other = (
        over_seeds({seed: mean_of(values + more) for seed, values in bases.items()}, "t") for more in (0.3, 0.0)
    )
    assert one.error is not None
    assert one.error.error > 0.1
    assert one.minus(other).bounds == pytest.approx((0.3, 0.3))


def test_what_needs_no_seeds_keeps_its_questions() -> None:
    """A drafter that was trained several times against one that was trained once."""
    several = over_seeds({seed: mean_of([1.0 + seed, 2.0, 3.0, 4.0, 5.0]) for seed in (0, 1)}, "t")
    apart = several.minus(mean_of([1.0, 2.0, 3.0, 4.0, 4.0]))
    assert apart.factors is not None
    assert set(apart.factors) == {"questions of qa", "training on t"}


def test_too_few_units_have_no_interval() -> None:
    assert [question_freedom(count) for count in (1, 4, 5, 8)] == [0, 0, 3, 6]
    assert mean_of([1.0, 2.0], freedom=0).bounds is None
    assert error_of({}) is None
    assert error_of(None) is None


def test_one_sided_p_is_the_intervals_other_side() -> None:
    """A value whose 95 % interval begins at 0 is above 0 at 2.5 %."""
    error = mean_of([4.1, 3.2, 5.0, 4.4, 2.9]).error
    assert error is not None
    low, _ = error.interval(1.0)
    assert error.p_above(1.0 - low) == pytest.approx(0.025)
    assert error.p_above(0.0) == pytest.approx(0.5)
    assert dataclasses.replace(error, error=0.0).p_above(0.1) == 0
    assert dataclasses.replace(error, error=0.0).p_above(0.0) == 1


def test_together_independent_intervals_are_as_wide_as_sidaks() -> None:
    several = [mean_of(np.arange(8.0) + number, f"benchmark {number}").factors for number in range(10)]
    level = simultaneous_level([each for each in several if each])
    assert level == pytest.approx(1 - 0.95 ** (1 / 10), rel=0.06)
    same = [mean_of(np.arange(8.0) * (number + 1)).factors for number in range(10)]
    assert simultaneous_level([each for each in same if each]) == pytest.approx(0.05, rel=0.05)
    assert simultaneous_level([each for each in same[:1] if each]) == pytest.approx(0.05)


def test_a_sum_needs_all_of_its_parts() -> None:
    assert combined([(1.0, mean_of([1.0, 2.0]).factors), (1.0, None)]) is None


# --- Of cells: leaving a question out is measuring all others.


def questions(count: int, seed: int) -> list[Sample]:
    draw = random.Random(seed)
    return [
        sample(
            f"q{number}",
            [draw.randrange(5) for _ in range(draw.randrange(1, 6))],
            prefill_seconds=draw.random(),
            decode_seconds=draw.random(),
        )
        for number in range(count)
    ]


def alone(quantity: Quantity, of: CellResult) -> float:
    assert quantity.formula is not None
    return float(quantity.formula(of.total))


@pytest.mark.parametrize("quantity", [*SPEED[:7], acceptance_rate(2)], ids=lambda each: each.name)
def test_a_questions_deviation_is_of_the_cell_without_it(quantity: Quantity) -> None:
    """The wall seconds are shared by the seconds served. With the value of one benchmark, and of two together."""
    if quantity.of == "vanilla":
        quantity = dataclasses.replace(quantity, of="drafters")
    asked = {"qa": questions(6, 1), "sum": questions(5, 2)}
    points = [make_point(benchmark=name, questions=len(listed), batch=2) for name, listed in asked.items()]
    done = {point: measured(asked[point.benchmark], 7.0) for point in points}
    one, _, both = summarise(results_of(points, done), [quantity], "both")
    for summary, whole in ((one, ["qa"]), (both, ["qa", "sum"])):
        estimate = summary.values[quantity.name]
        assert estimate.factors is not None
        assert set(estimate.factors) == {f"questions of {name}" for name in whole}
        for name in whole:
            count = len(asked[name])
            expected = []
            for left in range(count):
                rest = {**asked, name: [each for number, each in enumerate(asked[name]) if number != left]}
                served = {
                    key: sum(each.prefill_seconds + each.decode_seconds for each in listed)
                    for key, listed in {"whole": asked[name], "rest": rest[name]}.items()
                }
                walls = dict.fromkeys(whole, 7.0) | {name: 7.0 * served["rest"] / served["whole"]}
                cells = [cell(rest[key], walls[key], benchmark=key, batch=2) for key in whole]
                if quantity.pooled:
                    assert quantity.formula is not None
                    total = cells[0].total if len(cells) == 1 else cells[0].total + cells[1].total
                    value = float(quantity.formula(total))
                else:
                    value = statistics.fmean(alone(quantity, each) for each in cells)
                expected.append((count - 1) * (estimate.value - value))
            factor = Factor.of(names(count), np.array(expected), 0)
            found = estimate.factors[f"questions of {name}"].contributions
            assert found == pytest.approx(factor.contributions, abs=1e-9)


def test_a_ratio_to_vanilla_leaves_the_question_out_on_both_sides() -> None:
    """Questions of any length leave no doubt where one is twice as fast on every one of them."""
    draw = random.Random(9)
    lengths = [draw.randrange(5, 60) for _ in range(12)]

    def run(spent: float, rounds: bool) -> list[Sample]:
        return [
            sample(
                f"q{number}", [1] * length if rounds else [], prefill_seconds=spent, decode_seconds=spent * length,
                generated_tokens=1 + 2 * length,
            )
            for number, length in enumerate(lengths)
        ]  # fmt: skip

    own, plain = (make_point(drafter=name, questions=12, batch=1) for name in ("prism", "vanilla"))
    done = {own: measured(run(0.05, True), 4.5), plain: measured(run(0.1, False), 9.0)}
    found = summarise(results_of([plain, own], done), SPEED)[1].values
    assert found["speed_up"].bounds == pytest.approx((2.0, 2.0))
    assert found["tps"].bounds is not None
    assert found["tps"].bounds[0] < found["tps"].value < found["tps"].bounds[1]


def test_a_question_without_rounds_says_nothing_of_acceptance() -> None:
    listed = [*questions(5, 3), sample("q5"), sample("q6")]
    point = make_point(questions=7)
    (found,) = summarise(results_of([point], {point: measured(listed)}), [QUANTITIES["al_macro"]])
    estimate = found.values["al_macro"]
    assert estimate.factors is not None
    factor = estimate.factors["questions of qa"]
    assert factor.contributions[6] == pytest.approx(factor.contributions[5])
    assert factor.freedom == question_freedom(5)


# --- The share of made-up studies whose interval holds the truth.


def made_histograms(draw: np.random.Generator, count: int) -> Floats:
    """[count, 7]: questions of unlike difficulty and length, rounds of at most 6 accepted drafts."""
    rates, rounds = draw.beta(8, 3, count), draw.integers(8, 40, count)
    rows = [
        np.bincount(np.minimum(draw.geometric(1 - rate, size=number) - 1, 6), minlength=7)
        for rate, number in zip(rates, rounds, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def al_macro(histograms: Floats, weights: Floats) -> Floats:
    lengths = histograms @ np.arange(1, 8) / histograms.sum(axis=1)
    return np.asarray((weights @ lengths) / weights.sum(-1))


def al_micro(histograms: Floats, weights: Floats) -> Floats:
    return np.asarray((weights @ histograms @ np.arange(1, 8)) / (weights @ histograms.sum(axis=1)))


def study(draw: np.random.Generator, formula: Callable[[Floats, Floats], Floats], count: int) -> Estimate:
    histograms = made_histograms(draw, count)
    value = float(formula(histograms, np.ones(count)))
    deviations = (count - 1) * (value - formula(histograms, np.ones((count, count)) - np.eye(count)))
    return Estimate(value, {"questions of qa": Factor.of(names(count), deviations, question_freedom(count))})


def coverage(studies: int, counts: Sequence[int], formula: Callable[[Floats, Floats], Floats]) -> dict[int, float]:
    draw = np.random.default_rng(7)
    truth = float(formula(made_histograms(draw, 40_000), np.ones(40_000)))
    shares = {}
    for count in counts:
        found = [study(draw, formula, count).bounds for _ in range(studies)]
        shares[count] = sum(each is not None and each[0] <= truth <= each[1] for each in found) / studies
    return shares


def seed_coverage(studies: int, seeds: int) -> float:
    """Seeds and questions vary, and how a seed fares on a question."""
    draw, held = np.random.default_rng(8), 0
    for _ in range(studies):
        effects, base = draw.normal(0, 0.05, seeds), draw.normal(0, 0.15, 16)
        every = {seed: 0.3 + effects[seed] + base + draw.normal(0, 0.2, 16) for seed in range(seeds)}
        found = over_seeds({seed: mean_of(values, freedom=14) for seed, values in every.items()}, "t").bounds
        assert found is not None
        held += found[0] <= 0.3 <= found[1]
    return held / studies


@pytest.mark.parametrize("formula", [al_macro, al_micro])
def test_intervals_hold_the_truth(formula: Callable[[Floats, Floats], Floats]) -> None:
    """At the fewest questions and at eight; 700 studies tell 93 % from 89 %."""
    for share in coverage(700, (5, 8), formula).values():
        assert 0.915 <= share <= 0.985


def test_a_percentile_of_resamples_would_not() -> None:
    """The test above notices: the bootstrap's quantiles hold the truth too rarely at five questions."""
    draw, held = np.random.default_rng(7), 0
    truth = float(al_macro(made_histograms(draw, 40_000), np.ones(40_000)))
    for _ in range(400):
        weights = draw.multinomial(5, np.full(5, 0.2), size=500).astype(np.float64)
        low, high = np.quantile(al_macro(made_histograms(draw, 5), weights), [0.025, 0.975])
        held += low <= truth <= high
    assert held / 400 < 0.9


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_over_seeds_hold_the_truth(seeds: int) -> None:
    assert seed_coverage(700, seeds) >= 0.93


@pytest.mark.heavy
@pytest.mark.parametrize("formula", [al_macro, al_micro])
def test_coverage_is_at_least_93_percent(formula: Callable[[Floats, Floats], Floats]) -> None:
    """8,000 studies each: a standard error of 0.3 %."""
    shares = coverage(8000, (5, 8, 16, 80), formula)
    assert min(shares.values()) >= 0.93, shares


@pytest.mark.heavy
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_over_seeds_is_at_least_93_percent(seeds: int) -> None:
    assert seed_coverage(8000, seeds) >= 0.93
