"""Claims against made-up truths: each verdict at its stated error rate, statistics against formulas written again, and
a missing value that never decides anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from prism_ae.analysis.claims import (
    CANNOT_TELL,
    CONTRADICTED,
    INCOMPLETE,
    NOT_MEASURABLE,
    REPRODUCED,
    Claim,
    ClaimPart,
    Group,
    Judged,
    Line,
    Lines,
    contrasts,
    judge,
)
from prism_ae.analysis.estimates import Estimate, combine
from prism_ae.analysis.intervals import Factor
from prism_ae.analysis.quantities import Floats
from prism_ae.cells import TreeShape

BENCHMARKS = ("mt_bench", "gsm8k", "qa")
QUESTIONS = 8
GROUP = Group("llama-2", 0.0, None)
SCALES = (1.0, 2.0, 4.0, 8.0)
TREES = tuple(TreeShape(*shape) for shape in ((3, 2, 6), (4, 4, 16), (5, 4, 16), (6, 8, 32)))


class Study:
    """Lines of drafters whose true values are given: the questions' difficulty is shared, and each value has noise of
    its own on each of them."""

    def __init__(self, seed: int, own: float = 0.1) -> None:
        self.draw, self.own = np.random.default_rng(seed), own
        self.difficulty = {name: self.draw.normal(0, 1.0, QUESTIONS) for name in BENCHMARKS}

    def estimate(self, truth: float, *, benchmark: str | None = None) -> Estimate:
        """A mean over three benchmarks of eight questions, or one of them."""
        names = BENCHMARKS if benchmark is None else (benchmark,)
        means, factors = [], {}
        for name in names:
            values = truth + self.difficulty[name] + self.draw.normal(0, self.own, QUESTIONS)
            means.append(values.mean())
            units = tuple(f"{name}/{number}" for number in range(QUESTIONS))
            deviations = (values - values.mean()) / len(names)
            factors[f"questions of {name}"] = Factor.of(units, deviations, QUESTIONS - 2)
        return Estimate(float(np.mean(means)), factors, (f"cell {truth}",))

    def line(self, truths: Mapping[object, float]) -> Line:
        return Line({x: self.estimate(truth) for x, truth in truths.items()}, log=True)


def lines_of(study: Study, truths: Mapping[str, Mapping[object, float]]) -> Lines:
    return {GROUP: {name: study.line(values) for name, values in truths.items()}}


def verdict(part: ClaimPart, lines: Lines, *, family: int = 1, primary: bool = False) -> Judged:
    claim = Claim("X", "made up", parts=(part,), primary=primary)
    return judge(claim, [contrasts(part, lines)], family)


# --- The statistics, against formulas written again.


VALUES = {"prism": (4.0, 4.4, 4.9, 5.1), "hass": (3.9, 4.1, 4.3, 4.6)}


def plain_lines(values: Mapping[str, Sequence[float]] = VALUES) -> Lines:
    return {
        GROUP: {
            name: Line({x: Estimate(y) for x, y in zip(SCALES, each, strict=True)}, log=True)
            for name, each in values.items()
        }
    }


def slope(values: Sequence[float]) -> float:
    """Of least squares on log2(x)."""
    return float(np.polyfit(np.log2(SCALES), values, 1)[0])


OWN, OTHER = VALUES["prism"], VALUES["hass"]
CASES: list[tuple[str, dict[str, object], list[float]]] = [
    ("difference", {}, [a - b for a, b in zip(OWN, OTHER, strict=True)]),
    ("ratio", {"statistic": "ratio"}, [a / b for a, b in zip(OWN, OTHER, strict=True)]),
    ("some", {"at": (2.0, 4.0)}, [0.3, 0.6]),
    ("pooled", {"pooled": True}, [sum(a - b for a, b in zip(OWN, OTHER, strict=True)) / 4]),
    ("gain", {"trend": "gain", "since": 2.0}, [(5.1 - 4.4) - (4.6 - 4.1)]),
    ("growth", {"trend": "growth", "since": 2.0, "statistic": "ratio"}, [(5.1 / 4.4) / (4.6 / 4.1)]),
    ("slope", {"trend": "slope"}, [slope(OWN) - slope(OTHER)]),
    ("relative", {"trend": "relative_slope", "fraction": -0.5}, [slope(OWN) - slope(OTHER) + 0.5 * (4.0 - 3.9)]),
    ("reach", {"trend": "reach"}, [1 + (4.6 - 4.4) / (4.9 - 4.4) - 3]),
]


@pytest.mark.parametrize(("changes", "expected"), [each[1:] for each in CASES], ids=[each[0] for each in CASES])
def test_a_statistic_is_its_formula(changes: dict[str, object], expected: list[float]) -> None:
    part = ClaimPart(drafters=("prism",), against=("hass",), above=0.0, **changes)  # type: ignore[arg-type]
    found = contrasts(part, plain_lines())
    assert [each.estimate.value for each in found if each.estimate] == pytest.approx(expected)


def test_beyond_its_end_a_line_goes_on() -> None:
    """A drafter that does not get there, and one that is there from the start."""
    part = ClaimPart(drafters=("prism",), against=("hass",), trend="reach", below=0.0)
    late = contrasts(part, plain_lines({"prism": (3.0, 3.2, 3.4, 3.6), "hass": (3.0, 3.3, 3.6, 3.8)}))[0]
    early = contrasts(part, plain_lines({"prism": (4.0, 4.5, 4.8, 5.0), "hass": (3.0, 3.3, 3.4, 3.5)}))[0]
    falling = contrasts(part, plain_lines({"prism": (3.4, 3.3, 3.2, 3.1), "hass": (3.0, 3.3, 3.4, 3.5)}))[0]
    assert late.estimate is not None
    assert early.estimate is not None
    assert late.estimate.value == pytest.approx(4 - 3)
    assert early.estimate.value == pytest.approx(-1 - 3)
    assert falling.estimate is None


def test_without_rivals_it_is_the_value_itself() -> None:
    part = ClaimPart(drafters=("prism", "hass"), above=4.0)
    assert [each.right for each in contrasts(part, plain_lines())] == [False, True, True, True, False, True, True, True]


def test_pairs_of_trees_are_those_of_which_one_is_larger() -> None:
    """In some number, and smaller in none: 5,4,16 and 4,4,16 are, and 3,2,6 is smaller than all."""
    lines = {GROUP: {"prism": Line({tree: Estimate(float(tree.steps)) for tree in TREES})}}
    found = contrasts(ClaimPart(drafters=("prism",), tree_pairs=True, above=0.0), lines)
    assert len(found) == 6
    assert all(each.right for each in found)
    one = contrasts(ClaimPart(drafters=("prism",), trees=(TREES[1], TREES[0]), statistic="ratio", above=1.0), lines)
    assert [each.estimate.value for each in one if each.estimate] == pytest.approx([4 / 3])


def test_only_what_is_alike_is_contrasted() -> None:
    """A drafter without a line beside it makes no contrast; other targets and temperatures make their own."""
    other = dataclasses.replace(GROUP, temperature=1.0)
    lines = {**plain_lines(), other: {"prism": plain_lines()[GROUP]["prism"]}}
    part = ClaimPart(drafters=("prism",), against=("hass", "eagle2"), above=0.0)
    assert {each.where for each in contrasts(part, lines)} == {f"prism − hass, llama-2, T = 0, {x:g}" for x in SCALES}
    each = ClaimPart(drafters=("prism",), against=("hass",), benchmarks="each", above=0.0)
    assert contrasts(each, lines) == ()


# --- Verdicts at their error rates.


@dataclasses.dataclass(frozen=True)
class Truths:
    """A part with lines under which it is true, exactly on its border, and false."""

    part: ClaimPart
    true: Mapping[str, Mapping[object, float]]
    border: Mapping[str, Mapping[object, float]]
    false: Mapping[str, Mapping[object, float]]


def flat(value: float) -> dict[object, float]:
    return dict.fromkeys(SCALES, value)


def rising(start: float, per_doubling: float) -> dict[object, float]:
    return {x: start + per_doubling * math.log2(x) for x in SCALES}


def beside(**lines: Mapping[object, float]) -> Mapping[str, Mapping[object, float]]:
    return lines


def trees(*values: float) -> Mapping[str, Mapping[object, float]]:
    return {"prism": dict(zip(TREES, values, strict=True))}


TWO = {"drafters": ("prism",), "against": ("hass",)}
KINDS: dict[str, Truths] = {
    "one difference": Truths(
        ClaimPart(**TWO, above=0.0, at=(8,)),  # type: ignore[arg-type]
        beside(prism=flat(4.3), hass=flat(4.0)), beside(prism=flat(4.0), hass=flat(4.0)),
        beside(prism=flat(3.7), hass=flat(4.0)),
    ),
    "everywhere": Truths(
        ClaimPart(**TWO, above=0.0),  # type: ignore[arg-type]
        beside(prism=flat(4.3), hass=flat(4.0)), beside(prism=flat(4.0), hass=flat(4.0)),
        beside(prism={1.0: 4.3, 2.0: 4.3, 4.0: 4.3, 8.0: 3.7}, hass=flat(4.0)),
    ),
    "ratio": Truths(
        ClaimPart(**TWO, statistic="ratio", above=1.1, at=(8,)),  # type: ignore[arg-type]
        beside(prism=flat(4.8), hass=flat(4.0)), beside(prism=flat(4.4), hass=flat(4.0)),
        beside(prism=flat(4.0), hass=flat(4.0)),
    ),
    "mean of all": Truths(
        ClaimPart(**TWO, pooled=True, above=0.0),  # type: ignore[arg-type]
        beside(prism=flat(4.2), hass=flat(4.0)), beside(prism=flat(4.0), hass=flat(4.0)),
        beside(prism=flat(3.8), hass=flat(4.0)),
    ),
    "equivalence": Truths(
        ClaimPart(**TWO, statistic="ratio", above=0.95, below=1.05, at=(8,)),  # type: ignore[arg-type]
        beside(prism=flat(4.0), hass=flat(4.0)), beside(prism=flat(4.2), hass=flat(4.0)),
        beside(prism=flat(4.6), hass=flat(4.0)),
    ),
    "gain": Truths(
        ClaimPart(**TWO, trend="gain", since=1.0, above=0.0),  # type: ignore[arg-type]
        beside(prism=rising(4.0, 0.3), hass=rising(4.0, 0.1)), beside(prism=rising(4.3, 0.1), hass=rising(4.0, 0.1)),
        beside(prism=rising(4.0, 0.1), hass=rising(4.0, 0.3)),
    ),
    "flattened": Truths(
        ClaimPart(drafters=("hass",), trend="growth", since=4.0, above=0.97, below=1.03),
        beside(hass=flat(4.0)), beside(hass={1.0: 4.0, 2.0: 4.0, 4.0: 4.0, 8.0: 4.12}),
        beside(hass={1.0: 4.0, 2.0: 4.0, 4.0: 4.0, 8.0: 4.5}),
    ),
    "slope": Truths(
        ClaimPart(**TWO, trend="slope", above=0.0),  # type: ignore[arg-type]
        beside(prism=rising(4.0, 0.3), hass=rising(4.0, 0.15)), beside(prism=rising(4.3, 0.2), hass=rising(4.0, 0.2)),
        beside(prism=rising(4.5, 0.1), hass=rising(4.0, 0.25)),
    ),
    "falling": Truths(
        ClaimPart(drafters=("prism",), trend="slope", below=0.0),
        beside(prism=rising(4.0, -0.2)), beside(prism=flat(4.0)), beside(prism=rising(4.0, 0.2)),
    ),
    "gap": Truths(
        ClaimPart(**TWO, trend="relative_slope", fraction=-0.1, above=0.0),  # type: ignore[arg-type]
        beside(prism=flat(5.0), hass=flat(4.0)), beside(prism=rising(5.0, -0.1), hass=flat(4.0)),
        beside(prism=rising(5.0, -0.3), hass=flat(4.0)),
    ),
    "reach": Truths(
        ClaimPart(**TWO, trend="reach", below=0.0),  # type: ignore[arg-type]
        beside(prism=rising(4.6, 0.3), hass=rising(4.0, 0.3)), beside(prism=rising(4.0, 0.3), hass=rising(4.0, 0.3)),
        beside(prism=rising(3.4, 0.3), hass=rising(4.0, 0.3)),
    ),
    "two trees": Truths(
        ClaimPart(drafters=("prism",), trees=(TREES[1], TREES[0]), above=0.0),
        trees(4.0, 4.3, 4.3, 4.3), trees(4.0, 4.0, 4.3, 4.3), trees(4.3, 4.0, 4.3, 4.3),
    ),
    "larger trees": Truths(
        ClaimPart(drafters=("prism",), tree_pairs=True, above=0.0, on_average=True),
        trees(4.0, 4.3, 4.4, 4.8), trees(4.0, 4.0, 4.0, 4.0), trees(4.0, 4.4, 4.8, 4.3),
    ),
}  # fmt: skip


def rates(truths: Truths, which: str, studies: int, *, primary: bool = False, family: int = 1) -> dict[str, float]:
    """How often each verdict comes out."""
    found: dict[str, float] = dict.fromkeys((REPRODUCED, CONTRADICTED, CANNOT_TELL, INCOMPLETE), 0.0)
    for seed in range(studies):
        lines = lines_of(Study(seed), getattr(truths, which))
        found[verdict(truths.part, lines, primary=primary, family=family).verdict] += 1 / studies
    return found


def at_most(rate: float, studies: int) -> float:
    """The rate and three standard errors of it."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / studies)


def check_rates(kind: str, studies: int) -> None:
    truths = KINDS[kind]
    true, border, false = (rates(truths, which, studies) for which in ("true", "border", "false"))
    assert true[REPRODUCED] >= 0.9, true
    assert true[CONTRADICTED] <= at_most(0.025, studies), true
    assert border[REPRODUCED] <= at_most(0.025, studies), border
    assert border[CONTRADICTED] <= at_most(0.025, studies), border
    assert false[CONTRADICTED] >= 0.9, false
    assert false[REPRODUCED] <= at_most(0.025, studies), false


@pytest.mark.parametrize("kind", KINDS)
def test_a_verdict_is_right_at_its_rate(kind: str) -> None:
    check_rates(kind, 120)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_verdict_is_right_at_its_rate_in_many_studies(kind: str) -> None:
    check_rates(kind, 3000)


def test_values_alone_would_be_no_test() -> None:
    """The tests above notice: judged by its number alone, an equal pair is called right in half of all studies."""
    truths = KINDS["one difference"]
    right = [contrasts(truths.part, lines_of(Study(seed), truths.border))[0].right for seed in range(200)]
    assert 0.4 <= sum(right) / 200 <= 0.6


def test_primary_claims_share_their_error_rate() -> None:
    """Of 20 equal pairs that are all primary hardly one is called reproduced; unshared, 2.5 % of them are."""
    truths = KINDS["one difference"]
    alone = rates(truths, "border", 800)
    shared = rates(truths, "border", 800, primary=True, family=20)
    assert shared[REPRODUCED] <= 0.00125 + 0.004
    assert alone[REPRODUCED] > shared[REPRODUCED]


# --- What decides nothing.


def missing_at(lines: Lines, drafter: str, x: object) -> Lines:
    line = lines[GROUP][drafter]
    return {GROUP: {**lines[GROUP], drafter: dataclasses.replace(line, values={**line.values, x: None})}}


def test_a_run_under_way_is_incomplete_whatever_it_shows() -> None:
    truths = KINDS["everywhere"]
    for which in ("true", "border", "false"):
        found = verdict(truths.part, missing_at(lines_of(Study(1), getattr(truths, which)), "hass", 2.0))
        assert found.verdict == INCOMPLETE
        assert "1 of 4" in found.why
        assert found.measured == 3
        assert found.bounds is not None  # the interim interval


def test_half_of_a_sweep_is_no_failure() -> None:
    """54 of 54 measured points right and 66 not yet measured: incomplete, not contradicted."""
    study, part = Study(2), ClaimPart(drafters=("prism",), against=("hass",), above=0.0)
    xs = [float(number) for number in range(120)]
    lines = {
        GROUP: {
            "prism": Line({x: study.estimate(5.0) if x < 54 else None for x in xs}),
            "hass": Line({x: study.estimate(4.0) for x in xs}),
        }
    }
    found = verdict(part, lines)
    assert (found.verdict, found.measured, found.right) == (INCOMPLETE, 54, 54)


def test_a_majority_of_points_is_no_verdict() -> None:
    """61 of 120 points right, all within noise: cannot tell. 59 of them wrong beyond their intervals: contradicted."""
    part, xs = ClaimPart(drafters=("prism",), against=("hass",), above=0.0), [float(number) for number in range(120)]
    for gap, expected in ((0.01, CANNOT_TELL), (1.0, CONTRADICTED)):
        study = Study(3)
        lines = {
            GROUP: {
                "prism": Line({x: study.estimate(4.0 + (gap if x < 61 else -gap)) for x in xs}),
                "hass": Line({x: study.estimate(4.0) for x in xs}),
            }
        }
        assert verdict(part, lines).verdict == expected


def test_a_gap_that_closes_by_four_fifths_closes() -> None:
    """The mini suite's PRISM* − EAGLE-3 at tree 4,4,16, which was once called a gap that does not close."""
    gaps = (0.536, 0.992, 0.287, 0.139, 0.112)
    study, xs = Study(4, own=0.05), (1.0, 2.0, 4.0, 6.0, 8.0)
    lines = lines_of(
        study, {"prism": dict(zip(xs, (4 + gap for gap in gaps), strict=True)), "hass": dict.fromkeys(xs, 4.0)}
    )
    part = ClaimPart(drafters=("prism",), against=("hass",), trend="relative_slope", fraction=-0.1, above=0.0)
    assert verdict(part, lines).verdict == CONTRADICTED


def test_what_was_never_published_is_not_measurable() -> None:
    """But what is known of the rest can contradict the claim, and does."""
    truths = KINDS["everywhere"]
    claim = Claim("X", "made up", parts=(truths.part,))

    def never(target: str, drafter: str, x: object) -> str:
        return "not published" if (drafter, x) == ("hass", 1.0) else ""

    def judged(which: str) -> Judged:
        lines = missing_at(lines_of(Study(5), getattr(truths, which)), "hass", 1.0)
        return judge(claim, [contrasts(truths.part, lines, never)], 1)

    assert judged("true").verdict == NOT_MEASURABLE
    assert "not published" in judged("true").why
    assert judged("false").verdict == CONTRADICTED


def test_pending_claims_and_absent_drafters_are_not_measurable() -> None:
    part = ClaimPart(drafters=("eagle3",), above=0.0)
    assert verdict(part, plain_lines()).verdict == NOT_MEASURABLE
    pending = judge(Claim("X", "made up", pending="no timer yet"), [], 1)
    assert (pending.verdict, pending.why) == (NOT_MEASURABLE, "no timer yet")


def test_without_intervals_nothing_is_told() -> None:
    found = verdict(ClaimPart(drafters=("prism",), against=("hass",), above=0.0), plain_lines())
    assert (found.verdict, found.right, found.measured) == (CANNOT_TELL, 4, 4)
    assert "too few questions" in found.why


def test_all_parts_must_be_right() -> None:
    good, bad = KINDS["one difference"].part, ClaimPart(drafters=("prism",), above=9.0)
    lines = lines_of(Study(6), KINDS["one difference"].true)
    claim = Claim("X", "made up", parts=(good, bad))
    assert judge(claim, [contrasts(good, lines)], 1).verdict == REPRODUCED
    assert judge(claim, [contrasts(part, lines) for part in claim.parts], 1).verdict == CONTRADICTED


# --- What is said.


def test_the_sentence_says_number_interval_rule_and_chance() -> None:
    truths = KINDS["everywhere"]
    found = verdict(truths.part, lines_of(Study(7), truths.true))
    said = found.sentence()
    assert found.worst is not None
    assert found.worst.estimate is not None
    assert found.bounds is not None
    for part in (
        "X: made up: reproduced", f"{found.worst.estimate.value:.3g}", f"{found.bounds[0]:.3g}", "above 0",
        "4 of 4", "2 by chance",
    ):  # fmt: skip
        assert part in said
    assert set(found.cell_ids) == {"cell 4.3", "cell 4.0"}


def test_the_interval_shown_holds_together_with_the_others() -> None:
    """It is wider than the number's own, and the deciding number is the one with the least room."""
    truths = KINDS["everywhere"]
    found = verdict(truths.part, lines_of(Study(8), truths.true))
    assert found.worst is not None
    estimates = [each.estimate for each in found.contrasts if each.estimate]
    rooms = [each.value / each.error.error for each in estimates if each.error]
    assert found.worst.estimate is not None
    assert found.worst.estimate.error is not None
    assert found.worst.estimate.value / found.worst.estimate.error.error == min(rooms)
    assert found.worst.estimate.bounds is not None
    assert found.bounds is not None
    assert found.bounds[0] < found.worst.estimate.bounds[0]


def mean(values: Floats) -> float:
    return float(np.mean(values))


def test_over_seeds_the_least_number_counts() -> None:
    from prism_ae.analysis.estimates import over_seeds

    study = Study(9)
    several = over_seeds({seed: study.estimate(4.0 + 0.01 * seed) for seed in range(5)}, "llama-2")
    also = over_seeds({seed: study.estimate(3.0) for seed in range(3)}, "llama-2")
    lines = {GROUP: {"prism": Line({1.0: several}), "hass": Line({1.0: study.estimate(3.0)}), "x": Line({1.0: also})}}
    assert verdict(ClaimPart(drafters=("prism",), against=("hass",), above=0.0), lines).seeds == 1
    assert verdict(ClaimPart(drafters=("prism",), against=("x",), above=0.0), lines).seeds == 3
    assert verdict(ClaimPart(drafters=("prism", "hass"), above=0.0), lines).seeds == 1
    assert combine(mean, [several]).seeds == 5


# --- What is refused.

WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no drafter": ({"drafters": ()}, "drafters"),
    "no rule": ({"above": None}, "above"),
    "an empty rule": ({"above": 1.0, "below": 1.0}, "below"),
    "a gain from nowhere": ({"trend": "gain"}, "since"),
    "a start of nothing": ({"since": 1.0}, "since"),
    "a part of a trend": ({"trend": "slope", "at": (1.0,)}, "at"),
    "one tree": ({"against": (), "trees": TREES[:1]}, "trees"),
    "trees of two drafters": ({"trees": TREES[:2]}, "trees"),
    "nobody to reach": ({"against": (), "trend": "reach"}, "against"),
    "a fraction of nothing": ({"fraction": 0.5}, "fraction"),
    "a mean twice": ({"pooled": True, "on_average": True}, "on_average"),
}


@pytest.mark.parametrize(("changes", "key"), WRONG.values(), ids=WRONG)
def test_a_part_that_contradicts_itself_is_refused(changes: dict[str, object], key: str) -> None:
    sound: dict[str, object] = {"drafters": ("prism",), "against": ("hass",), "above": 0.0}
    make: Callable[..., ClaimPart] = ClaimPart
    assert not list(make(**sound).problems())
    problems = list(make(**(sound | changes)).problems())
    assert any(problem.startswith(f"{key}:") for problem in problems)
    assert any(
        each.startswith(f"parts.0.{key}:") for each in Claim("X", "t", parts=(make(**(sound | changes)),)).problems()
    )


def test_a_claim_without_parts_says_why() -> None:
    assert list(Claim("X", "t").problems())
    assert not list(Claim("X", "t", pending="no timer").problems())
    assert not list(Claim("X", "t", subject="texts").problems())


def test_what_is_measured_and_undefined_is_not_called_missing() -> None:
    """A rate that no round reached, a ratio of times of two devices: measuring again would not help."""
    lines = lines_of(Study(10), KINDS["everywhere"].true)
    line = lines[GROUP]["hass"]
    undefined = {
        GROUP: {**lines[GROUP], "hass": dataclasses.replace(line, values={**line.values, 2.0: Estimate(math.nan)})}
    }
    found = verdict(KINDS["everywhere"].part, undefined)
    assert (found.verdict, found.measured) == (CANNOT_TELL, 3)
    assert "undefined" in found.why


def test_a_gap_that_is_none_has_no_fraction() -> None:
    """Behind at the start: whether "the gap" closes is no question."""
    study = Study(11)
    lines = lines_of(study, {"prism": rising(3.9, -0.1), "hass": flat(4.0)})
    part = ClaimPart(drafters=("prism",), against=("hass",), trend="relative_slope", fraction=-0.1, above=0.0)
    assert verdict(part, lines).verdict == CANNOT_TELL


def test_values_over_more_questions_are_compared_too() -> None:
    """A line whose last value is over twice the questions still has a trend with an interval."""
    study = Study(12)
    line = dict(study.line(rising(4.0, -0.3)).values)
    twice = study.estimate(3.1)
    assert twice.factors is not None
    more = {
        name: Factor.of(
            (*each.units, *(f"{unit}/more" for unit in each.units)), np.tile(each.contributions, 2), each.freedom
        )
        for name, each in twice.factors.items()
    }
    line[8.0] = Estimate(3.1, more)
    lines = {GROUP: {"prism": Line(line, log=True)}}
    assert verdict(ClaimPart(drafters=("prism",), trend="slope", below=0.0), lines).verdict == REPRODUCED


def test_by_chance_is_said_where_half_would_be_right() -> None:
    """Not of an equivalence, nor of a value against a threshold."""
    truths = KINDS["everywhere"]
    assert verdict(truths.part, lines_of(Study(13), truths.border)).chance == 2
    equal = dataclasses.replace(truths.part, statistic="ratio", above=0.95, below=1.05)
    assert verdict(equal, lines_of(Study(13), truths.border)).chance is None
    assert verdict(ClaimPart(drafters=("prism",), above=1.5), lines_of(Study(13), truths.border)).chance is None
