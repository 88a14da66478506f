"""What the paper claims, judged by what was measured.

A claim orders drafters. It is judged wherever its drafters have a curve for the same target, benchmark and
temperature: at each x of the curves ("value"), or once per curve on the rise from one x to the largest ("gain"). A
hole never counts in a claim's favour. "With confidence" means that the 95 % interval of every neighbouring pair's
paired difference lies above 0; "against, with confidence" that one lies below.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prism_ae.curves import Curve, Estimate
from prism_ae.experiments.records import Claim, Experiment
from prism_ae.metrics import Floats
from prism_ae.stats import interval
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
        group[curve.drafter] = {point.x: _measured(point.estimate) for point in curve.points}
    paper = _paper(experiment, suite, groups) if comparable else {}
    verdicts = []
    for claim in experiment.claims:
        judged = [_compare(numbers) for numbers in _places(claim, groups)]
        if not judged:
            continue
        done = [result for result in judged if result is not None]
        known = [result for numbers in _places(claim, paper) if (result := _compare(numbers)) is not None]
        verdicts.append(
            Verdict(
                text=claim.text,
                order=claim.order,
                points=len(judged),
                measured=len(done),
                holds=sum(result.holds for result in done),
                confident=sum(result.confident for result in done),
                against=sum(result.against for result in done),
                paper_points=len(known),
                paper_holds=sum(result.holds for result in known),
            )
        )
    return tuple(verdicts)


@dataclasses.dataclass(frozen=True, eq=False)
class _Number:
    """A value, and its replicates where an interval can be given (never for the paper's values)."""

    value: float
    replicates: Floats | None = None
    question_ids: tuple[tuple[str, ...], ...] = ()

    def minus(self, other: _Number) -> _Number:
        """The difference; its replicates are paired, so they exist only over the same questions."""
        value = self.value - other.value
        if self.replicates is None or other.replicates is None or self.question_ids != other.question_ids:
            return _Number(value)
        return _Number(value, self.replicates - other.replicates, self.question_ids)

    def bounds(self) -> tuple[float, float] | None:
        if self.replicates is None:
            return None
        return interval(self.replicates, min(len(questions) for questions in self.question_ids))


Line = dict[float, _Number | None]
"""x -> number, None for a hole."""
Groups = dict[tuple[str, str, float], dict[str, Line]]
"""(target, benchmark, temperature) -> drafter -> line."""


class _Result(NamedTuple):
    holds: bool
    confident: bool
    against: bool


def _measured(estimate: Estimate | None) -> _Number | None:
    if estimate is None:
        return None
    replicates = estimate.replicates if estimate.bounds is not None else None
    return _Number(estimate.value, replicates, estimate.question_ids)


def _paper(experiment: Experiment, suite: Suite, asked: Groups) -> Groups:
    """The paper's values, at the places that were asked for."""
    targets = {target.role: target.name for target in suite.targets.values()}
    groups: Groups = {}
    for curve in experiment.paper.values:
        key = (targets.get(curve.role, ""), curve.benchmark, curve.temperature)
        line = asked.get(key, {}).get(curve.drafter, {})
        xs = experiment.paper.x if curve.x is None else curve.x
        known: Line = {x: _Number(y) for x, y in zip(xs, curve.y, strict=True) if x in line}
        if known:
            groups.setdefault(key, {})[curve.drafter] = known
    return groups


def _places(claim: Claim, groups: Groups) -> Iterator[tuple[_Number | None, ...]]:
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


def _rise(start: _Number | None, end: _Number | None) -> _Number | None:
    return None if start is None or end is None else end.minus(start)


def _compare(numbers: tuple[_Number | None, ...]) -> _Result | None:
    """None where a number is missing."""
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    steps = [higher.minus(lower) for higher, lower in itertools.pairwise(known)]
    bounds = [step.bounds() for step in steps]
    return _Result(
        holds=all(step.value > 0 for step in steps),
        confident=all(bound is not None and bound[0] > 0 for bound in bounds),
        against=any(bound is not None and bound[1] < 0 for bound in bounds),
    )
