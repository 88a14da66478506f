"""What the paper claims, judged by what was measured.

A claim orders series: drafters, or the draft trees of one drafter. It is judged wherever its series have values for the
same target, benchmark and temperature: at each x that they share ("value"), or once on the rise from one x to the
largest ("gain"). A missing value never counts in a claim's favour. "With confidence" means that the 95 % interval of
every neighbouring pair's paired difference lies above 0; "against, with confidence" that one lies below.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from prism_ae.analysis.estimates import Estimate
from prism_ae.cells import TreeShape
from prism_ae.io.schema import record

HOLDS = "holds"
MOSTLY = "holds at most points"
NOT_SHOWN = "does not show"
NOT_MEASURED = "not measured"

QuantityName = Literal["", "al", "tps", "speed_up"]
"""Acceptance length, tokens per second, or speed-up over vanilla decoding; "" is what the experiment is about."""


@record
class Claim:
    """A trend that the paper states, in a form that can be judged.

    Attributes:
        text: the claim in words.
        order: drafters, the highest first.
        of: "value" compares at every x of every curve; "gain" compares, once per curve, the rise from ``since`` to
            the largest x.
        since: an x (scale value or position), for "gain".
        between: the smallest and largest x at which "value" is judged; None for all.
        quantity: what is compared where time is measured.
        times: how many times the next drafter's value each drafter must be above.
    """

    text: str
    order: tuple[str, ...]
    of: Literal["value", "gain"] = "value"
    since: float | None = None
    between: tuple[float, float] | None = None
    quantity: QuantityName = ""
    times: float = 1.0

    def problems(self) -> Iterator[str]:
        """Every contradiction, as "key: what would be right"."""
        if len(self.order) < 2:
            yield "order: names at least two drafters"
        if (self.of == "gain") != (self.since is not None):
            yield "since: belongs to of = 'gain', and only there"
        if self.between is not None and (self.of == "gain" or self.between[0] > self.between[1]):
            yield "between: the smallest and the largest x, for of = 'value'"
        if not self.times > 0:
            yield f"times: must be greater than 0, got {self.times:g}"

    def orders(self, series: Iterable[Hashable]) -> Iterator[Sequence[Hashable]]:
        """The orders that are judged among some series."""
        if set(self.order) <= set(series):
            yield self.order


@record
class TreeClaim:
    """A trend over the draft trees of one drafter.

    Attributes:
        text: the claim in words.
        trees: the highest value first; () judges every pair of trees of which one is larger in some of the three
            numbers and smaller in none.
    """

    text: str
    trees: tuple[TreeShape, ...] = ()
    quantity: Literal["al", "tps"] = "al"

    def orders(self, series: Iterable[Hashable]) -> Iterator[Sequence[Hashable]]:
        """The orders that are judged among some trees."""
        known = [tree for tree in series if isinstance(tree, TreeShape)]
        if not self.trees:
            yield from (pair for pair in itertools.permutations(known, 2) if _larger(*pair))
        elif set(self.trees) <= set(known):
            yield self.trees


Line = Mapping[float, Estimate | None]
"""x -> value, None where it is missing."""
Lines = Mapping[Hashable, Mapping[Hashable, Line]]
"""What is alike -> series -> line."""


class Layers(NamedTuple):
    """What was measured, the paper's own values, and those of the authors' later run of their artifact."""

    measured: Lines
    paper: Lines
    rerun: Lines


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a claim fared.

    Attributes:
        points: places where it could be judged; measured: those where no value is missing.
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


def judge(claim: Claim | TreeClaim, layers: Layers) -> Verdict | None:
    """The verdict on a claim; None where its series were not asked for together."""
    judged, paper, rerun = ([compare(values, claim) for values in _places(claim, lines)] for lines in layers)
    if not judged:
        return None
    done, known, again = ([result for result in each if result is not None] for each in (judged, paper, rerun))
    order = claim.order if isinstance(claim, Claim) else tuple(str(tree) for tree in claim.trees)
    return Verdict(
        text=claim.text,
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


class Comparison(NamedTuple):
    """Whether values are in the claimed order, with confidence, or in another with confidence."""

    holds: bool
    confident: bool
    against: bool


def compare(values: Sequence[Estimate | None], claim: Claim | TreeClaim) -> Comparison | None:
    """Whether each value is above the claim's ``times`` the next; None where one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    times = claim.times if isinstance(claim, Claim) else 1.0
    steps = [higher.minus(lower.scaled(times)) for higher, lower in itertools.pairwise(known)]
    return Comparison(
        holds=all(step.value > 0 for step in steps),
        confident=all(step.bounds is not None and step.bounds[0] > 0 for step in steps),
        against=any(step.bounds is not None and step.bounds[1] < 0 for step in steps),
    )


def _places(claim: Claim | TreeClaim, lines: Lines) -> Iterator[tuple[Estimate | None, ...]]:
    """For each place where the claim can be judged, the value of each series of its order."""
    for group in lines.values():
        for order in claim.orders(group):
            chosen = [group[series] for series in order]
            common = sorted(set.intersection(*(set(line) for line in chosen)))
            if isinstance(claim, Claim) and claim.since is not None:
                if claim.since in common and claim.since < common[-1]:
                    yield tuple(_rise(line[claim.since], line[common[-1]]) for line in chosen)
                continue
            low, high = (claim.between if isinstance(claim, Claim) else None) or (-math.inf, math.inf)
            yield from (tuple(line[x] for line in chosen) for x in common if low <= x <= high)


def _rise(start: Estimate | None, end: Estimate | None) -> Estimate | None:
    return None if start is None or end is None else end.minus(start)


def _larger(tree: TreeShape, other: TreeShape) -> bool:
    return tree != other and (
        tree.steps >= other.steps and tree.branch >= other.branch and tree.verified >= other.verified
    )
