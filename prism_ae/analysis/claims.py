"""What the paper claims, judged by what was measured.

A claim orders drafters. It is judged wherever its drafters have a curve for the same target, benchmark and
temperature: at each x of the curves ("value"), or once per curve on the rise from one x to the largest ("gain").
`timed_claims` judges experiments that measure time by the same rules. A
hole never counts in a claim's favour. "With confidence" means that the 95 % interval of every neighbouring pair's
paired difference lies above 0; "against, with confidence" that one lies below.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prism_ae.analysis.acceptance import Floats
from prism_ae.analysis.bootstrap import interval
from prism_ae.analysis.curves import Curve, Estimate
from prism_ae.experiments.records import Claim, Experiment
from prism_ae.suites.records import Suite

HOLDS = "holds"
MOSTLY = "holds at most points"
NOT_SHOWN = "does not show"
NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a claim fared.

    Attributes:
        points: places where it could be judged; measured: those without a hole.
        holds: places where the order is right, confident: with confidence, against: wrong with confidence.
        paper_points, paper_holds: the same for the paper's own values, where they are known.
        rerun_points, rerun_holds: the same for the authors' later run of their artifact.
    """

    text: str
    order: tuple[str, ...]
    points: int
    measured: int
    holds: int
    confident: int
    against: int
    paper_points: int
    paper_holds: int
    rerun_points: int = 0
    rerun_holds: int = 0

    @property
    def word(self) -> str:
        """The verdict in words; "holds" only when it does everywhere and nothing is missing."""
        if self.measured == 0:
            return NOT_MEASURED
        if self.holds == self.points:
            return HOLDS
        return MOSTLY if 2 * self.holds > self.points else NOT_SHOWN

    def sentence(self) -> str:
        """One line for a caption."""
        if self.measured == 0:
            return f"{self.text}: {self.word} (0 of {self.points} points)."
        parts = [f"right at {self.holds} of {self.points} points, {self.confident} with 95 % confidence"]
        parts += [f"wrong with 95 % confidence at {self.against}"] if self.against else []
        parts += [f"{self.points - self.measured} not measured"] if self.measured < self.points else []
        parts += [f"in the paper right at {self.paper_holds} of {self.paper_points}"] if self.paper_points else []
        again = f"in the artifact's re-run at {self.rerun_holds} of {self.rerun_points}"
        parts += [again] if self.rerun_points else []
        return f"{self.text}: {self.word} ({'; '.join(parts)})."


def judge(
    experiment: Experiment, suite: Suite, curves: Sequence[Curve], comparable: bool = True
) -> tuple[Verdict, ...]:
    """A verdict for each of the experiment's claims whose drafters were asked for together.

    Args:
        comparable: whether the paper's values are of what was asked, so that a verdict may count them.
    """
    groups: Groups = {}
    for curve in curves:
        group = groups.setdefault((curve.target, curve.benchmark, curve.temperature), {})
        group[curve.drafter] = {point.x: number_of(point.estimate) for point in curve.points}
    paper = _paper(experiment, suite, groups) if comparable else {}
    found = [judge_orders(claim, groups, paper) for claim in experiment.claims]
    return tuple(verdict for verdict in found if verdict is not None)


def judge_orders(claim: Claim, groups: Groups, paper: Groups, rerun: Groups | None = None) -> Verdict | None:
    """The verdict on a claim that orders drafters; None where they were not asked for together.

    Args:
        paper, rerun: the paper's own values, and those of the authors' later run, where they are known.
    """
    judged, known, again = (
        [compare(numbers, claim.times) for numbers in _places(claim, each)] for each in (groups, paper, rerun or {})
    )
    return verdict_of(claim.text, claim.order, judged, known, again) if judged else None


def verdict_of(
    text: str,
    order: tuple[str, ...],
    judged: Sequence[Comparison | None],
    paper: Sequence[Comparison | None],
    rerun: Sequence[Comparison | None] = (),
) -> Verdict:
    """The verdict on a claim from its comparisons; None is a place with a hole, which the paper's values leave out."""
    done = [result for result in judged if result is not None]
    known = [result for result in paper if result is not None]
    again = [result for result in rerun if result is not None]
    return Verdict(
        text=text,
        order=order,
        points=len(judged),
        measured=len(done),
        holds=sum(result.holds for result in done),
        confident=sum(result.confident for result in done),
        against=sum(result.against for result in done),
        paper_points=len(known),
        paper_holds=sum(result.holds for result in known),
        rerun_points=len(again),
        rerun_holds=sum(result.holds for result in again),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """A value, and its replicates where an interval can be given (never for the paper's values)."""

    value: float
    replicates: Floats | None = None
    question_ids: tuple[tuple[str, ...], ...] = ()

    def minus(self, other: Number) -> Number:
        """The difference; its replicates are paired, so they exist only over the same questions."""
        value = self.value - other.value
        if self.replicates is None or other.replicates is None or self.question_ids != other.question_ids:
            return Number(value)
        return Number(value, self.replicates - other.replicates, self.question_ids)

    def scaled(self, factor: float) -> Number:
        replicates = None if self.replicates is None else factor * self.replicates
        return Number(factor * self.value, replicates, self.question_ids)

    def bounds(self) -> tuple[float, float] | None:
        if self.replicates is None:
            return None
        return interval(self.replicates, min(len(questions) for questions in self.question_ids))


Line = dict[float, Number | None]
"""x -> number, None for a hole."""
Groups = dict[tuple[str, str, float], dict[str, Line]]
"""(target, benchmark, temperature) -> drafter -> line."""


class Comparison(NamedTuple):
    """Whether numbers are in the claimed order, with confidence, or in another with confidence."""

    holds: bool
    confident: bool
    against: bool


def number_of(estimate: Estimate | None) -> Number | None:
    """An estimate as a number to compare; None for a hole."""
    if estimate is None:
        return None
    replicates = estimate.replicates if estimate.bounds is not None else None
    return Number(estimate.value, replicates, estimate.question_ids)


def _paper(experiment: Experiment, suite: Suite, asked: Groups) -> Groups:
    """The paper's values, at the places that were asked for."""
    targets = {target.role: target.name for target in suite.targets.values()}
    groups: Groups = {}
    for curve in experiment.paper.values:
        key = (targets.get(curve.role, ""), curve.benchmark, curve.temperature)
        line = asked.get(key, {}).get(curve.drafter, {})
        xs = experiment.paper.x if curve.x is None else curve.x
        known: Line = {x: Number(y) for x, y in zip(xs, curve.y, strict=True) if x in line}
        if known:
            groups.setdefault(key, {})[curve.drafter] = known
    return groups


def _places(claim: Claim, groups: Groups) -> Iterator[tuple[Number | None, ...]]:
    """For each place where the claim can be judged, the number of each drafter of its order."""
    for group in groups.values():
        if not all(drafter in group for drafter in claim.order):
            continue
        lines = [group[drafter] for drafter in claim.order]
        common = sorted(set.intersection(*(set(line) for line in lines)))
        if claim.since is not None:
            if claim.since in common and claim.since < common[-1]:
                yield tuple(_rise(line[claim.since], line[common[-1]]) for line in lines)
            continue
        low, high = claim.between or (-math.inf, math.inf)
        yield from (tuple(line[x] for line in lines) for x in common if low <= x <= high)


def _rise(start: Number | None, end: Number | None) -> Number | None:
    return None if start is None or end is None else end.minus(start)


def compare(numbers: Sequence[Number | None], times: float = 1.0) -> Comparison | None:
    """Whether each number is above ``times`` the next; None where one is missing."""
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    steps = [higher.minus(lower.scaled(times)) for higher, lower in itertools.pairwise(known)]
    bounds = [step.bounds() for step in steps]
    return Comparison(
        holds=all(step.value > 0 for step in steps),
        confident=all(bound is not None and bound[0] > 0 for bound in bounds),
        against=any(bound is not None and bound[1] < 0 for bound in bounds),
    )
