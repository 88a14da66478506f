"""Verdicts from curves made by hand: holes never count for a claim, noise is not confidence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from prism_ae.analysis.curves import Curve, CurvePoint, Estimate

from prism_ae.analysis.bootstrap import interval, mean_replicates
from prism_ae.analysis.claims import HOLDS, MOSTLY, NOT_MEASURED, NOT_SHOWN, Verdict, judge
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.records import Claim, Experiment
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

QUESTIONS = tuple(f"q{number}" for number in range(20))
NOISE = np.random.default_rng(3).normal(0, 1.0, 20)
"""Difficulty of the questions: the same for every drafter, and large beside the differences below."""


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("mini")


def estimate(mean: float, own: float = 0.0, seed: int = 0) -> Estimate:
    """AL of 20 questions; ``own`` is noise of this drafter alone."""
    values = mean + NOISE - NOISE.mean()
    if own:
        extra = np.random.default_rng(seed).normal(0, own, 20)
        values = values + extra - extra.mean()
    replicates = mean_replicates(values, "qa")
    return Estimate(float(values.mean()), interval(replicates, 20), replicates, (QUESTIONS,), None)


def curve(drafter: str, estimates: dict[float, Estimate | None], temperature: float = 0.0) -> Curve:
    points = tuple(
        CurvePoint(x, f"{x:g}x", value, 1, () if value is None else (f"{drafter}{x}",), 20, 0)
        for x, value in estimates.items()
    )
    return Curve("mini-llama-3", drafter, temperature, "", points)


def line(drafter: str, values: dict[float, float | None]) -> Curve:
    return curve(drafter, {x: None if value is None else estimate(value) for x, value in values.items()})


def claiming(*claims: Claim) -> Experiment:
    return dataclasses.replace(load_experiment("figure5"), claims=claims)


def verdict(suite: Suite, claim: Claim, *curves: Curve) -> Verdict:
    (found,) = judge(claiming(claim), suite, curves)
    return found


def test_paired_differences_are_seen_through_the_noise_of_questions(suite: Suite) -> None:
    """The two intervals overlap widely; the paired difference is still certain."""
    high, low = line("prism", {1: 4.1}), line("eagle3", {1: 4.0})
    bounds = [curve.points[0].estimate.bounds for curve in (high, low) if curve.points[0].estimate]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[0][0] < bounds[1][1]
    found = verdict(suite, Claim("above", ("prism", "eagle3")), high, low)
    assert (found.points, found.holds, found.confident, found.against, found.word) == (1, 1, 1, 0, HOLDS)


def test_a_difference_within_the_noise_holds_without_confidence(suite: Suite) -> None:
    high = curve("prism", {1: estimate(4.05, own=1.0, seed=8)})
    found = verdict(suite, Claim("above", ("prism", "eagle3")), high, line("eagle3", {1: 4.0}))
    assert (found.holds, found.confident, found.against) == (1, 0, 0)


def test_a_reversed_order_is_said(suite: Suite) -> None:
    found = verdict(
        suite, Claim("above", ("prism", "eagle3")), line("prism", {1: 4.0, 2: 4.0}), line("eagle3", {1: 4.5, 2: 4.5})
    )
    assert (found.holds, found.against, found.word) == (0, 2, NOT_SHOWN)
    assert "does not show" in found.sentence()
    assert "wrong with 95 % confidence at 2" in found.sentence()


def test_equal_is_not_above(suite: Suite) -> None:
    found = verdict(suite, Claim("above", ("prism", "eagle3")), line("prism", {1: 4.0}), line("eagle3", {1: 4.0}))
    assert (found.holds, found.confident, found.against) == (0, 0, 0)


def test_a_chain_needs_every_link(suite: Suite) -> None:
    chain = Claim("chain", ("prism", "hass", "eagle3"))
    lines = [line("prism", {1: 5.0, 2: 5.0}), line("hass", {1: 4.5, 2: 3.9}), line("eagle3", {1: 4.0, 2: 4.0})]
    found = verdict(suite, chain, *lines)
    assert (found.points, found.holds, found.against, found.word) == (2, 1, 1, NOT_SHOWN)


def test_a_hole_never_counts_in_favour(suite: Suite) -> None:
    claim = Claim("above", ("prism", "eagle3"))
    high = line("prism", {1: 5.0, 2: None, 4: 5.0})
    found = verdict(suite, claim, high, line("eagle3", {1: 4.0, 2: 4.0, 4: 4.0}))
    assert (found.points, found.measured, found.holds, found.word) == (3, 2, 2, MOSTLY)
    assert "1 not measured" in found.sentence()
    nothing = verdict(suite, claim, line("prism", {1: None}), line("eagle3", {1: 4.0}))
    assert (nothing.holds, nothing.word) == (0, NOT_MEASURED)


def test_a_gain_is_the_rise_to_the_largest_x(suite: Suite) -> None:
    claim = Claim("gains", ("prism", "eagle3"), of="gain", since=2)
    # PRISM falls from 1 to 2 and lies below throughout; it still rises more from 2 on.
    found = verdict(suite, claim, line("prism", {1: 3.9, 2: 3.0, 8: 3.6}), line("eagle3", {1: 3.0, 2: 4.0, 8: 4.2}))
    assert (found.points, found.holds, found.confident) == (1, 1, 1)


def test_between_limits_where_a_claim_is_judged(suite: Suite) -> None:
    claim = Claim("above", ("prism", "eagle3"), between=(1, 2))
    found = verdict(suite, claim, line("prism", {1: 5.0, 2: 5.0, 4: 3.0}), line("eagle3", {1: 4.0, 2: 4.0, 4: 4.0}))
    assert (found.points, found.holds) == (2, 2)


def test_different_questions_are_not_paired(suite: Suite) -> None:
    other = dataclasses.replace(estimate(5.0), question_ids=(tuple(reversed(QUESTIONS)),))
    found = verdict(suite, Claim("above", ("prism", "eagle3")), curve("prism", {1: other}), line("eagle3", {1: 4.0}))
    assert (found.holds, found.confident) == (1, 0)


def test_a_claim_about_a_drafter_that_was_not_asked_for_is_left_out(suite: Suite) -> None:
    assert judge(claiming(Claim("above", ("prism", "hass_cont"))), suite, [line("prism", {1: 5.0})]) == ()


def test_the_papers_own_values_are_judged_beside(suite: Suite) -> None:
    """Figure 5: in the paper PRISM is above EAGLE-3 at all scales for T = 0 and at three of five for T = 1."""
    scales = {1.0: 4.0, 2.0: 4.0, 4.0: 4.0, 6.0: 4.0, 8.0: 4.0}
    curves = [line("prism", dict(scales)), line("eagle3", dict(scales))]
    curves += [dataclasses.replace(each, temperature=1.0) for each in curves]
    found = verdict(suite, Claim("above", ("prism", "eagle3")), *curves)
    assert (found.paper_points, found.paper_holds) == (10, 8)
    fewer = verdict(suite, Claim("above", ("prism", "eagle3")), line("prism", {1: 4.0}), line("eagle3", {1: 4.0}))
    assert (fewer.paper_points, fewer.paper_holds) == (1, 1)
