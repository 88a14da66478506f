"""Verdicts on speeds, from entries made by hand; and the paper's values as its files state them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from prism_ae.analysis.curves import Estimate
from prism_ae.analysis.entries import Entry
from prism_ae.analysis.timed_claims import judge_times

from prism_ae.analysis.claims import HOLDS, MOSTLY, NOT_MEASURED, NOT_SHOWN, Verdict
from prism_ae.analysis.paper_values import references
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.records import Claim, Experiment, TreeClaim
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")
IDS = (tuple(f"q{number}" for number in range(20)),)


SIX = ("vanilla", "standard", "eagle2", "hass", "prism", "prism_star")


def estimate(value: float, noise: float = 0.01) -> Estimate:
    replicates = value + noise * np.linspace(-1, 1, 2000)
    return Estimate(value, (float(replicates[50]), float(replicates[-50])), replicates, IDS, None)


def entry(drafter: str, batch: int = 1, tree: str | None = "6,4,16", benchmark: str = "", **values: float) -> Entry:
    return Entry(
        target="mini-llama-2",
        drafter=drafter,
        temperature=0.0,
        drafting="exact",
        tree=None if drafter == "vanilla" else tree,
        batch=batch,
        benchmark=benchmark,
        values={name: estimate(value) for name, value in values.items()},
        baseline={},
        asked=1,
        cell_ids=("id",) if values else (),
        baseline_ids=(),
        questions=20,
        without_rounds=0,
    )


def verdict(name: str, claim: Claim | TreeClaim, *entries: Entry, micro: bool = False, paper: bool = False) -> Verdict:
    experiment: Experiment = load_experiment(name)
    trees = (claim,) if isinstance(claim, TreeClaim) else ()
    orders = (claim,) if isinstance(claim, Claim) else ()
    experiment = dataclasses.replace(experiment, claims=orders, tree_claims=trees)
    known = references(experiment, MINI, entries, SIX) if paper else ()
    (found,) = judge_times(experiment, entries, known, micro)
    return found


ABOVE = Claim("above", ("prism", "eagle2"))


def test_speed_ups_are_compared_at_every_batch() -> None:
    listed = [entry("prism", batch, speed_up=2.0) for batch in (2, 4)]
    listed += [entry("eagle2", 2, speed_up=1.5), entry("eagle2", 4, speed_up=2.5)]
    found = verdict("figure7", ABOVE, *listed)
    assert (found.points, found.holds, found.confident, found.against, found.word) == (2, 1, 1, 1, NOT_SHOWN)


def test_a_threshold_is_a_multiple_of_the_next() -> None:
    """Above 1.5 times vanilla decoding, at the largest batch only, and with the interval's lower end."""
    claim = Claim("1.5", ("prism", "vanilla"), times=1.5, between=(32, 32))
    plain = [entry("vanilla", batch, speed_up=1.0) for batch in (2, 32)]
    low = entry("prism", 2, speed_up=1.0)
    for value, holds, confident, against in ((1.6, 1, 1, 0), (1.501, 1, 0, 0), (1.499, 0, 0, 0), (1.4, 0, 0, 1)):
        found = verdict("figure7", claim, *plain, low, entry("prism", 32, speed_up=value))
        assert (found.points, found.holds, found.confident, found.against) == (1, holds, confident, against)


def test_a_hole_never_counts_in_favour() -> None:
    listed = [entry("prism", 2, speed_up=2.0), entry("eagle2", 2, tps=9.0), entry("prism", 4, speed_up=2.0)]
    found = verdict("figure7", ABOVE, *listed, entry("eagle2", 4, speed_up=1.0))
    assert (found.points, found.measured, found.holds, found.word) == (2, 1, 1, NOT_SHOWN)
    nothing = verdict("figure7", ABOVE, entry("prism", 2), entry("eagle2", 2))
    assert nothing.word == NOT_MEASURED


def test_tables_are_judged_benchmark_by_benchmark() -> None:
    claim = Claim("order", ("prism", "hass"))
    listed = [entry("prism", benchmark=name, tps=value) for name, value in (("qa", 9.0), ("sum", 9.0), ("gsm8k", 7.0))]
    listed += [entry("hass", benchmark=name, tps=8.0) for name in ("qa", "sum", "gsm8k")]
    means = [entry("prism", tps=99.0), entry("hass", tps=1.0)]
    found = verdict("table6", claim, *listed, *means)
    assert (found.points, found.holds, found.word) == (3, 2, MOSTLY)


def test_acceptance_lengths_are_macro_or_micro_as_drawn() -> None:
    claim = Claim("longer", ("prism", "standard"), quantity="al")
    listed = [entry("prism", benchmark="qa", al_macro=4.0, al_micro=3.0)]
    listed += [entry("standard", benchmark="qa", al_macro=3.5, al_micro=3.5)]
    assert verdict("table6", claim, *listed).holds == 1
    assert verdict("table6", claim, *listed, micro=True).holds == 0


def test_every_pair_of_a_larger_and_a_smaller_tree() -> None:
    """3,8,16 and 6,4,16 are not comparable: each is larger in one number."""
    values = {"3,2,6": 3.0, "3,8,16": 3.6, "6,4,16": 4.7, "8,8,64": 4.5}
    listed = [entry("prism", tree=tree, al_macro=value) for tree, value in values.items()]
    found = verdict("figure8", TreeClaim("larger"), *listed)
    # Five pairs: each of three above 3,2,6, and 8,8,64 above both of 16 tokens (wrong for 6,4,16).
    assert (found.points, found.holds, found.against, found.word) == (5, 4, 1, MOSTLY)


def test_trees_in_an_order() -> None:
    claim = TreeClaim("deep", ("6,4,16", "3,8,16"), "tps")
    both = [entry("prism", tree="6,4,16", tps=200.0), entry("prism", tree="3,8,16", tps=190.0)]
    found = verdict("figure8", claim, *both, paper=True)
    assert (found.points, found.holds, found.word, found.order) == (1, 1, HOLDS, claim.trees)
    assert (found.paper_points, found.paper_holds) == (1, 1)
    assert verdict("figure8", claim, both[0], entry("prism", tree="3,8,16")).word == NOT_MEASURED
    experiment = dataclasses.replace(load_experiment("figure8"), tree_claims=(claim,))
    assert judge_times(experiment, both[:1], (), micro=False) == ()


def whole(name: str, drafters: tuple[str, ...], micro: bool = False) -> dict[str, Verdict]:
    """Verdicts on an experiment's own claims, over holes: only the paper's values count."""
    experiment = load_experiment(name)
    cells = experiment.cells
    listed = [
        dataclasses.replace(
            entry(drafter, batch, tree, benchmark), target=MINI.target_of(role).name, temperature=float(temperature)
        )
        for role in cells.roles
        for drafter in drafters
        for batch in cells.batches
        for tree in (cells.trees or ("6,4,16",))
        for temperature in cells.temperatures
        for benchmark in ((*cells.benchmarks, "") if experiment.kind == "table" else ("",))
    ]
    known = references(experiment, MINI, listed, drafters)
    return {verdict.text: verdict for verdict in judge_times(experiment, listed, known, micro)}


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
        ("figure7", ("vanilla", "prism", "eagle2"), "PRISM's speed-up above EAGLE-2's", 5, 5),
        ("figure7", ("vanilla", "prism", "eagle2"), "PRISM above 1.5 × vanilla decoding at batch 32", 1, 1),
    ],
)
def test_the_papers_own_values_are_judged(
    name: str, drafters: tuple[str, ...], text: str, holds: int, points: int
) -> None:
    found = whole(name, drafters)[text]
    assert (found.paper_holds, found.paper_points, found.rerun_points) == (holds, points, 0)
    assert found.word == NOT_MEASURED


def test_the_artifacts_rerun_is_counted_apart() -> None:
    """Table 4: two printed rows are known, in one cell; the rest is the re-run, whose LLaMA-3 row is PRISM*."""
    found = whole("table4", SIX)
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
    found = whole("figure8", ("prism",))["A larger tree has the larger acceptance length, in every pair"]
    assert found.paper_points - found.paper_holds == 1
    assert found.paper_points == found.points
    assert found.points > 40


@pytest.mark.parametrize(
    ("name", "place", "value", "rerun"),
    [
        # Read off the paper's tables and the artifact's PDFs, independently of the files.
        ("table6", ("mini-llama-2", "prism", 0.0, "mt_bench", None, None, "tps"), 254.18, False),
        ("table6", ("mini-llama-2", "hass", 1.0, "qa", None, None, "al"), 3.78, False),
        ("table7", ("mini-llama-3", "standard", 1.0, "sum", None, None, "al"), 4.3, False),
        ("table7", ("mini-llama-3", "eagle2", 1.0, "qa", None, None, "tps"), 107.0, False),
        ("table4", ("mini-llama-3", "prism", 0.0, "mt_bench", None, None, "tps"), 201.51, False),
        ("table4", ("mini-llama-3", "hass", 0.0, "mt_bench", None, None, "al"), 3.93, False),
        ("table4", ("mini-llama-3", "hass", 0.0, "mt_bench", None, None, "al"), 3.98, True),
        ("table4", ("mini-llama-3", "prism_star", 1.0, "gsm8k", None, None, "al"), 5.07, True),
        ("table4", ("mini-llama-2", "vanilla", 0.0, "sum", None, None, "tps"), 92.79, True),
        ("figure7", ("mini-llama-2", "eagle2", 0.0, "", None, 16, "speed_up"), 1.6955, False),
        ("figure8", ("mini-llama-2", "prism", 0.0, "", "3,8,16", None, "al"), 3.606, False),
        ("figure8", ("mini-llama-2", "prism", 0.0, "", "7,10,64", None, "tps"), 307.949, False),
    ],
)
def test_paper_values(name: str, place: tuple[object, ...], value: float, rerun: bool) -> None:
    experiment = load_experiment(name)
    drafters = SIX if experiment.kind == "table" else ("prism", "eagle2")
    listed = [
        dataclasses.replace(entry(drafter, batch, tree, benchmark), target=target.name, temperature=float(t))
        for target in MINI.targets.values()
        for drafter in drafters
        for batch in experiment.cells.batches
        for tree in (experiment.cells.trees or ("6,4,16",))
        for t in (0, 1)
        for benchmark in (*experiment.cells.benchmarks, "")
    ]
    found = [each for each in references(experiment, MINI, listed, drafters) if dataclasses.astuple(each)[:7] == place]
    assert (value, rerun) in [(each.value, each.rerun) for each in found]


def test_the_misprint_is_left_out() -> None:
    values = [value for curve in load_experiment("table7").paper.values for value in curve.y]
    assert min(values) > 1
    assert len(values) == 5 * 2 * 2 * 6 - 2 * 6 - 1  # vanilla has no acceptance length
