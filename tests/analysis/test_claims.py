"""Verdicts from lines made by hand, and of whole experiments: a missing value never counts for a claim, noise is not
confidence, the paper's values are counted apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from prism_ae.analysis.bootstrap import REPLICATES, resamples
from prism_ae.analysis.claims import (
    HOLDS,
    MOSTLY,
    NOT_MEASURED,
    NOT_SHOWN,
    Claim,
    Layers,
    TreeClaim,
    Verdict,
    judge,
)
from prism_ae.analysis.estimates import Estimate, Place, Summary
from prism_ae.analysis.results import results_of
from prism_ae.cells import TreeShape
from prism_ae.drawing.material import Material
from prism_ae.experiments.expand import expand
from prism_ae.experiments.kinds.base import Kind, paper_values
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")
QUESTIONS = tuple(f"q{number}" for number in range(20))
NOISE = np.random.default_rng(3).normal(0, 1.0, 20)
"""Difficulty of the questions: the same for every drafter, and large beside the differences below."""

Values = Mapping[float, float | Estimate | None]


def over_questions(mean: float, own: float = 0.0) -> Estimate:
    """AL of 20 questions; ``own`` is noise of this drafter alone."""
    extra = np.random.default_rng(8).normal(0, own, 20)
    values = mean + NOISE - NOISE.mean() + extra - extra.mean()
    return Estimate(float(values.mean()), resamples(20, "qa") @ values / 20, (QUESTIONS,), 20)


def narrow(value: float) -> Estimate:
    """With an interval of about 0.01 to both sides, the same way for every drafter."""
    return Estimate(value, value + 0.01 * np.linspace(-1, 1, REPLICATES), (QUESTIONS,), 20)


def line(values: Values) -> dict[float, Estimate | None]:
    return {x: over_questions(value) if isinstance(value, float) else value for x, value in values.items()}


def verdict(claim: Claim, **lines: Values) -> Verdict:
    """On the lines of drafters."""
    found = judge(claim, Layers({"": {drafter: line(values) for drafter, values in lines.items()}}, {}, {}))
    assert found is not None
    return found


ABOVE = Claim("above", ("prism", "eagle3"))


def test_paired_differences_are_seen_through_the_noise_of_questions() -> None:
    """The two intervals overlap widely; the paired difference is still certain."""
    high, low = over_questions(4.1), over_questions(4.0)
    assert high.bounds is not None
    assert low.bounds is not None
    assert high.bounds[0] < low.bounds[1]
    found = verdict(ABOVE, prism={1: high}, eagle3={1: low})
    assert (found.points, found.holds, found.confident, found.against, found.word) == (1, 1, 1, 0, HOLDS)


def test_a_difference_within_the_noise_holds_without_confidence() -> None:
    found = verdict(ABOVE, prism={1: over_questions(4.05, own=1.0)}, eagle3={1: 4.0})
    assert (found.holds, found.confident, found.against) == (1, 0, 0)


def test_a_reversed_order_is_said() -> None:
    found = verdict(ABOVE, prism={1: 4.0, 2: 4.0}, eagle3={1: 4.5, 2: 4.5})
    assert (found.holds, found.against, found.word) == (0, 2, NOT_SHOWN)
    assert "does not show" in found.sentence()
    assert "wrong with 95 % confidence at 2" in found.sentence()


def test_equal_is_not_above() -> None:
    found = verdict(ABOVE, prism={1: 4.0}, eagle3={1: 4.0})
    assert (found.holds, found.confident, found.against) == (0, 0, 0)


def test_a_chain_needs_every_link() -> None:
    chain = Claim("chain", ("prism", "hass", "eagle3"))
    found = verdict(chain, prism={1: 5.0, 2: 5.0}, hass={1: 4.5, 2: 3.9}, eagle3={1: 4.0, 2: 4.0})
    assert (found.points, found.holds, found.confident, found.against, found.word) == (2, 1, 1, 1, NOT_SHOWN)
    assert found.order == chain.order


def test_a_missing_value_never_counts_in_favour() -> None:
    found = verdict(ABOVE, prism={1: 5.0, 2: None, 4: 5.0}, eagle3={1: 4.0, 2: 4.0, 4: 4.0})
    assert (found.points, found.measured, found.holds, found.word) == (3, 2, 2, MOSTLY)
    assert "1 not measured" in found.sentence()
    half = verdict(ABOVE, prism={1: 5.0, 2: None}, eagle3={1: 4.0, 2: 4.0})
    assert (half.points, half.measured, half.holds, half.word) == (2, 1, 1, NOT_SHOWN)
    nothing = verdict(ABOVE, prism={1: None}, eagle3={1: 4.0})
    assert (nothing.holds, nothing.word) == (0, NOT_MEASURED)


def test_a_gain_is_the_rise_to_the_largest_x() -> None:
    """PRISM falls from 1 to 2 and lies below throughout; it still rises more from 2 on."""
    claim = Claim("gains", ("prism", "eagle3"), of="gain", since=2)
    low, high = {1: 3.9, 2: 3.0, 8: 3.6}, {1: 3.0, 2: 4.0, 8: 4.2}
    found = verdict(claim, prism=low, eagle3=high)
    assert (found.points, found.holds, found.confident) == (1, 1, 1)
    for x in (2, 8):
        assert verdict(claim, prism=low | {x: None}, eagle3=high).word == NOT_MEASURED
    for pair in (({1: 3.9, 8: 3.6}, high), ({1: 3.9, 2: 3.0}, high)):  # no start, or no rise
        lines = {drafter: line(values) for drafter, values in zip(claim.order, pair, strict=True)}
        assert judge(claim, Layers({"": lines}, {}, {})) is None


def test_between_limits_where_a_claim_is_judged() -> None:
    claim = Claim("above", ("prism", "eagle3"), between=(1, 2))
    found = verdict(claim, prism={1: 5.0, 2: 5.0, 4: 3.0}, eagle3={1: 4.0, 2: 4.0, 4: 4.0})
    assert (found.points, found.holds) == (2, 2)


def test_a_threshold_is_a_multiple_of_the_next() -> None:
    """Above 1.5 times vanilla decoding, at the largest batch only, and with the interval's lower end."""
    claim = Claim("1.5", ("prism", "vanilla"), times=1.5, between=(32, 32))
    plain = {2: narrow(1.0), 32: narrow(1.0)}
    for value, holds, confident, against in ((1.6, 1, 1, 0), (1.501, 1, 0, 0), (1.499, 0, 0, 0), (1.4, 0, 0, 1)):
        found = verdict(claim, prism={2: narrow(1.0), 32: narrow(value)}, vanilla=plain)
        assert (found.points, found.holds, found.confident, found.against) == (1, holds, confident, against)


def test_different_questions_are_not_paired() -> None:
    other = dataclasses.replace(over_questions(5.0), question_ids=(tuple(reversed(QUESTIONS)),))
    found = verdict(ABOVE, prism={1: other}, eagle3={1: 4.0})
    assert (found.holds, found.confident) == (1, 0)


def test_only_what_is_alike_is_compared() -> None:
    """PRISM of one target and EAGLE-3 of another are no place, nor is an x that one of them has."""
    alone = {"one": {"prism": line({1: 5.0})}, "other": {"eagle3": line({1: 4.0})}}
    assert judge(ABOVE, Layers(alone, {}, {})) is None
    found = verdict(ABOVE, prism={1: 5.0, 2: 5.0}, eagle3={1: 4.0, 4: 4.0})
    assert (found.points, found.holds) == (1, 1)


def test_the_papers_values_are_counted_apart() -> None:
    """By the order alone: they have no intervals. What is not known is no point."""

    def layer(*values: float | None) -> dict[str, dict[str, dict[float, Estimate | None]]]:
        known: dict[float, Estimate | None] = {x: value and Estimate(value) for x, value in enumerate(values)}
        return {"": {"prism": known, "eagle3": {x: Estimate(4.0) for x in (0, 1, 2)}}}

    measured = {"": {"prism": line({0: None}), "eagle3": line({0: 4.0})}}
    found = judge(ABOVE, Layers(measured, layer(5.0, None, 3.0), layer(5.0, 5.0, 3.0)))
    assert found is not None
    assert (found.points, found.measured, found.confident, found.against) == (1, 0, 0, 0)
    assert (found.paper_points, found.paper_holds, found.rerun_points, found.rerun_holds) == (2, 1, 3, 2)
    said = dataclasses.replace(found, measured=1).sentence()
    assert "in the paper right at 1 of 2; in the artifact's re-run at 2 of 3" in said


# --- Draft trees.


def tree_verdict(claim: TreeClaim, values: Mapping[str, float | None]) -> Verdict | None:
    lines = {TreeShape.parse(tree): {0.0: None if value is None else narrow(value)} for tree, value in values.items()}
    return judge(claim, Layers({"": lines}, {}, {}))


def test_every_pair_of_a_larger_and_a_smaller_tree() -> None:
    """3,8,16 and 6,4,16 are not comparable: each is larger in one number. So is 9,9,12 to all but the smallest."""
    values = {"3,2,6": 3.0, "3,8,16": 3.6, "6,4,16": 4.7, "8,8,64": 4.5, "9,9,12": 3.1}
    found = tree_verdict(TreeClaim("larger"), values)
    assert found is not None
    # Six pairs: each of four above 3,2,6, and 8,8,64 above both of 16 tokens (wrong for 6,4,16).
    assert (found.points, found.holds, found.against, found.word) == (6, 5, 1, MOSTLY)


def test_trees_in_an_order() -> None:
    claim = TreeClaim("deep", (TreeShape(6, 4, 16), TreeShape(3, 8, 16)), "tps")
    found = tree_verdict(claim, {"3,8,16": 190.0, "6,4,16": 200.0, "3,2,6": 300.0})
    assert found is not None
    assert (found.points, found.holds, found.word, found.order) == (1, 1, HOLDS, ("6,4,16", "3,8,16"))
    missing = tree_verdict(claim, {"6,4,16": 200.0, "3,8,16": None})
    assert missing is not None
    assert missing.word == NOT_MEASURED
    assert tree_verdict(claim, {"6,4,16": 200.0}) is None


# --- Whole experiments.


def summary(drafter: str, **changes: object) -> Summary:
    """Of LLaMA-2 at temperature 0 and batch 1; what is no field of `Place` is a value."""
    fields = {field.name for field in dataclasses.fields(Place)}
    own = {key: value for key, value in changes.items() if key in fields}
    place = dataclasses.replace(
        Place("mini-llama-2", drafter, 0.0, tree=None if drafter == "vanilla" else TreeShape(6, 4, 16), batch=1),
        **own,  # type: ignore[arg-type]
    )
    values = {key: narrow(value) for key, value in changes.items() if isinstance(value, float) and key not in fields}
    return Summary(place, values, 1, ("id",) if values else (), (), 20, 0)


def verdicts(experiment: Kind, summaries: Iterable[Summary], *, al: str = "al_macro") -> tuple[Verdict, ...]:
    """With the paper's values at the places of the summaries, of all their drafters."""
    listed = tuple(summaries)
    known = paper_values(experiment, MINI, listed, [each.place.drafter for each in listed])
    return experiment.verdicts(Material(listed, (), al, {}, MINI), known)


def claimed(name: str, claim: Claim | TreeClaim, *summaries: Summary, al: str = "al_macro") -> Verdict:
    """On one claim in place of the experiment's own."""
    experiment = load_experiment(name)
    key = "tree_claims" if isinstance(claim, TreeClaim) else "claims"
    (found,) = verdicts(dataclasses.replace(experiment, **{key: (claim,)}), summaries, al=al)  # type: ignore[arg-type]
    return found


def test_speed_ups_are_compared_at_every_batch() -> None:
    claim = Claim("above", ("prism", "eagle2"))
    listed = [summary("prism", batch=batch, speed_up=2.0, tps=1.0) for batch in (2, 4)]
    listed += [summary("eagle2", batch=2, speed_up=1.5, tps=9.0), summary("eagle2", batch=4, speed_up=2.5, tps=9.0)]
    found = claimed("figure7", claim, *listed)
    assert (found.points, found.holds, found.confident, found.against, found.word) == (2, 1, 1, 1, NOT_SHOWN)
    missing = claimed("figure7", claim, *listed[:2], summary("eagle2", batch=2, tps=9.0), listed[3])
    assert (missing.points, missing.measured) == (2, 1)


def test_tables_are_judged_benchmark_by_benchmark() -> None:
    """Not on the means that they draw beside."""
    listed = [summary("hass", benchmark=name, tps=8.0) for name in ("qa", "sum", "gsm8k")]
    listed += [summary("prism", benchmark=name, tps=9.0) for name in ("qa", "sum")]
    listed += [summary("prism", benchmark="gsm8k", tps=7.0), summary("prism", tps=99.0), summary("hass", tps=1.0)]
    found = claimed("table6", Claim("order", ("prism", "hass")), *listed)
    assert (found.points, found.holds, found.word) == (3, 2, MOSTLY)


def test_acceptance_lengths_are_macro_or_micro_as_drawn() -> None:
    claim = Claim("longer", ("prism", "standard"), quantity="al")
    listed = [summary("prism", benchmark="qa", al_macro=4.0, al_micro=3.0)]
    listed += [summary("standard", benchmark="qa", al_macro=3.5, al_micro=3.5)]
    assert claimed("table6", claim, *listed).holds == 1
    assert claimed("table6", claim, *listed, al="al_micro").holds == 0


def test_targets_temperatures_and_benchmarks_are_places_of_their_own() -> None:
    claim = Claim("above", ("prism", "hass"))
    for change in ({"target": "mini-llama-3"}, {"temperature": 1.0}, {"benchmark": "sum"}):
        places: list[dict[str, object]] = [{"benchmark": "qa"}, {"benchmark": "qa"} | change]
        listed = [summary(drafter, tps=9.0, **place) for drafter in ("prism", "hass") for place in places]
        assert claimed("table6", claim, *listed).points == 2
        apart = [summary("prism", tps=9.0, **places[0]), summary("hass", tps=8.0, **places[1])]
        experiment = dataclasses.replace(load_experiment("table6"), claims=(claim,))
        assert verdicts(experiment, apart) == ()


def test_trees_are_compared_in_the_claims_quantity_beside_the_papers() -> None:
    deep, wide = TreeShape(6, 4, 16), TreeShape(3, 8, 16)
    claim = TreeClaim("deep", (deep, wide), "tps")
    both = [summary("prism", tree=deep, tps=200.0, al_macro=1.0), summary("prism", tree=wide, tps=190.0, al_macro=2.0)]
    found = claimed("figure8", claim, *both)
    assert (found.points, found.holds, found.paper_points, found.paper_holds) == (1, 1, 1, 1)
    assert claimed("figure8", dataclasses.replace(claim, quantity="al"), *both).holds == 0
    assert claimed("figure8", claim, both[0], summary("prism", tree=wide)).word == NOT_MEASURED


def test_a_claim_about_a_drafter_that_was_not_asked_for_is_left_out() -> None:
    experiment = dataclasses.replace(load_experiment("figure5"), claims=(Claim("above", ("prism", "hass_cont")),))
    assert verdicts(experiment, [summary("prism", scale="1x", batch=None, al_macro=5.0)]) == ()


def unmeasured(name: str, *drafters: str, **options: tuple[str, ...]) -> dict[str, Verdict]:
    """Verdicts on an experiment's own claims where nothing was measured: only the paper's values count."""
    experiment = load_experiment(name)
    results = results_of(expand(experiment, MINI, Options(drafters=drafters, **options)), {})  # type: ignore[arg-type]
    found = verdicts(experiment, experiment.summarise(results))
    assert all((each.word, each.holds) == (NOT_MEASURED, 0) for each in found)
    return {each.text: each for each in found}


SIX = ("vanilla", "standard", "eagle2", "hass", "prism", "prism_star")
ORDER = "PRISM above HASS above EAGLE-2 above Standard in tokens per second"


@pytest.mark.parametrize(
    ("name", "drafters", "text", "holds", "points"),
    [
        # Counted independently, cell by cell, in the paper's tables.
        ("table6", SIX, ORDER, 12, 12),
        ("table7", SIX, ORDER, 8, 12),
        ("table6", SIX, "PRISM above Standard in acceptance length", 12, 12),
        ("table7", SIX, "PRISM above Standard in acceptance length", 0, 12),
        ("table7", SIX, "PRISM above vanilla decoding in tokens per second", 12, 12),
        ("table7", SIX, "PRISM above HASS above EAGLE-2 in acceptance length", 11, 11),
        ("figure7", (), "PRISM's speed-up above EAGLE-2's", 5, 5),
        # Vanilla decoding is 1 there, by definition.
        ("figure7", (), "PRISM above 1.5 × vanilla decoding at batch 32", 1, 1),
        ("figure7", (), "EAGLE-2 above vanilla decoding", 5, 5),
    ],
)
def test_the_papers_own_values_are_judged(
    name: str, drafters: tuple[str, ...], text: str, holds: int, points: int
) -> None:
    found = unmeasured(name, *drafters)[text]
    assert (found.paper_holds, found.paper_points, found.rerun_points) == (holds, points, 0)


def test_the_papers_curves_are_judged_where_they_were_asked_for() -> None:
    """Figure 5: in the paper PRISM is above EAGLE-3 at all scales for T = 0 and at three of five for T = 1."""
    experiment = dataclasses.replace(load_experiment("figure5"), claims=(ABOVE,))
    whole = experiment.summarise(results_of(expand(experiment, MINI, Options()), {}))
    (found,) = verdicts(experiment, whole)
    assert (found.points, found.paper_points, found.paper_holds) == (10, 10, 8)
    some = [each for each in whole if (each.place.scale, each.place.temperature) == ("1x", 0)]
    (fewer,) = verdicts(experiment, some)
    assert (fewer.points, fewer.paper_points, fewer.paper_holds) == (1, 1, 1)


def test_the_artifacts_rerun_is_counted_apart() -> None:
    """Table 4: two printed rows are known, in one cell; the rest is the re-run, whose LLaMA-3 row is PRISM*."""
    found = unmeasured("table4", *SIX)
    assert (found[ORDER].paper_points, found[ORDER].rerun_points, found[ORDER].rerun_holds) == (0, 12, 12)
    star = found["PRISM* above HASS above EAGLE-2 above Standard in tokens per second"]
    assert (star.paper_points, star.rerun_points, star.rerun_holds) == (0, 12, 12)
    longer = found["PRISM* above Standard in acceptance length"]
    assert (longer.rerun_points, longer.rerun_holds) == (12, 0)
    said = dataclasses.replace(star, measured=1).sentence()
    assert "in the artifact's re-run at 12 of 12" in said
    assert "in the paper" not in said


def test_figure_8_in_the_paper() -> None:
    """8,10,64 is larger than 8,8,64 and accepts less; all other pairs rise."""
    found = unmeasured("figure8")["A larger tree has the larger acceptance length, in every pair"]
    assert found.paper_points - found.paper_holds == 1
    assert found.paper_points == found.points
    assert found.points > 40
