"""Claims as tests: a statistic, a rule that was fixed beforehand, and a verdict that follows from intervals.

A claim has parts. A part makes *contrasts*: one number at each place where it can be made (a target, a temperature, a
benchmark or their mean, an x), say the difference of two drafters' acceptance lengths, and a rule for it:

    above = a               reproduced if the number is above a, contradicted if it is below
    below = b               the other way around
    above = a, below = b    reproduced if it is between them (equivalence: two one-sided tests)

"Everywhere" is meant: a claim is reproduced if every contrast is (an intersection-union test: each at 2.5 %,
one-sided, no correction), and contradicted if any contrast is, at Bonferroni's share of 2.5 %. The primary claims are a
family whose error rate is kept together: each gets its share of the 2.5 %, again by Bonferroni, not by Holm's steps, so
that a verdict depends on the claim's own cells alone and a figure's caption says what the ledger says. The interval
that is shown of a claim is that of the contrast that decides it, wide enough for all contrasts of the claim to hold
together (max-|t|).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from prism_ae.analysis.estimates import Estimate, combine, unique
from prism_ae.analysis.intervals import CONFIDENCE, simultaneous_level
from prism_ae.analysis.quantities import Floats
from prism_ae.cells import TreeShape
from prism_ae.io.schema import record
from prism_ae.io.words import pluralise

REPRODUCED = "reproduced"
CONTRADICTED = "contradicted"
CANNOT_TELL = "cannot tell"
INCOMPLETE = "incomplete"
NOT_MEASURABLE = "not measurable"

ONE_SIDED = (1 - CONFIDENCE) / 2

QuantityName = Literal["", "al", "tps", "speed_up", "round_seconds", "draft_seconds", "acceptance_rate"]
""""" is what the experiment is about."""

Trend = Literal["", "gain", "growth", "slope", "relative_slope", "reach"]
"""Over the x of a line, "" being every x by itself:

    gain            the value at the largest x less that at ``since``
    growth          the value at the largest x over that at ``since``
    slope           least squares of the value on x, or on log2(x) where x is an amount (`Line.log`)
    relative_slope  the slope less ``fraction`` of the value at the smallest x, which must be above 0
    reach           by how many doublings of x a drafter reaches the value that the other has at the largest x later
                    than the other, along straight lines over log2(x)
"""


@record
class ClaimPart:
    """Contrasts of one experiment, with their rule.

    Attributes:
        experiment: its name; "" is the experiment in whose file the claim stands.
        drafters, against: each of the first is contrasted with each of the second; without ``against``, its own value.
        trees: of one drafter, the first contrasted with the second; ``tree_pairs`` contrasts every two trees of which
            one is larger in some of the three numbers and smaller in none.
        statistic: of two values.
        trend: over the x; ``since`` is where a gain or growth starts; ``at`` those x alone, () being all.
        benchmarks: their mean, or each.
        pooled: one contrast, the mean of all.
        above, below: the rule.
        on_average: the rule is for the contrasts' mean, and none may be contradicted.
        fraction: of the first value per unit of x, for trend = "relative_slope".
        paper_only: the paper's own numbers have a verdict, nothing is measured; measured_only: the other way around.
    """

    experiment: str = ""
    drafters: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    trees: tuple[TreeShape, ...] = ()
    tree_pairs: bool = False
    quantity: QuantityName = ""
    statistic: Literal["difference", "ratio"] = "difference"
    trend: Trend = ""
    since: float | None = None
    at: tuple[float, ...] = ()
    benchmarks: Literal["mean", "each"] = "mean"
    pooled: bool = False
    above: float | None = None
    below: float | None = None
    on_average: bool = False
    fraction: float = 0.0
    paper_only: bool = False
    measured_only: bool = False

    def problems(self) -> Iterator[str]:
        """Every contradiction, as "key: what would be right"."""
        if not self.drafters:
            yield "drafters: names at least one drafter"
        if self.above is None and self.below is None:
            yield "above: a rule is needed, 'above', 'below' or both"
        if self.above is not None and self.below is not None and not self.above < self.below:
            yield "below: must be greater than above"
        if (self.trend in ("gain", "growth")) != (self.since is not None):
            yield "since: belongs to trend = 'gain' or 'growth', and only there"
        if self.fraction and self.trend != "relative_slope":
            yield "fraction: belongs to trend = 'relative_slope'"
        if self.at and self.trend:
            yield "at: not beside a trend, which is over all x"
        if len(self.trees) not in (0, 2):
            yield "trees: names two, the first to be contrasted with the second"
        if (self.trees or self.tree_pairs) and (self.against or self.trend):
            yield "trees: of one drafter, without against and trend"
        if self.trend == "reach" and not self.against:
            yield "against: trend = 'reach' needs a drafter whose value is reached"
        if self.on_average and self.pooled:
            yield "on_average: not beside pooled, which has one contrast"

    def rule(self) -> str:
        """The rule in words."""
        said = [f"above {self.above:g}"] if self.above is not None else []
        said += [f"below {self.below:g}"] if self.below is not None else []
        return f"{' and '.join(said)}{' on average, and none against it' if self.on_average else ''}"


@record
class Claim:
    """What the paper, or this project, states, in a form that can be judged.

    Attributes:
        id: as in "F4a"; unique.
        place: where it is stated.
        text: in our own words.
        primary: one of the family whose error rate is kept together.
        pending: why nothing can be measured of it yet.
        subject: "values"; "texts", that no text differs but for ties within rounding, has no parts.
        own: stated by this project; the paper's numbers have no say in it.
        guard: an A/A check: where a number is not as the rule says, no speed of that experiment has a verdict.
    """

    id: str
    text: str
    place: str = ""
    primary: bool = False
    pending: str = ""
    subject: Literal["values", "texts"] = "values"
    own: bool = False
    guard: bool = False
    parts: tuple[ClaimPart, ...] = ()

    def problems(self) -> Iterator[str]:
        """Every contradiction, as "key: what would be right"."""
        if not self.parts and not self.pending and self.subject == "values":
            yield "parts: a claim needs at least one, or says in 'pending' why there is none"
        for number, part in enumerate(self.parts):
            yield from (f"parts.{number}.{problem}" for problem in part.problems())


@dataclasses.dataclass(frozen=True)
class Line:
    """Values of one drafter over x (a number or a draft tree; 0.0 where there is one place), None where missing.

    ``log``: x is an amount, and trends are on log2(x).
    """

    values: Mapping[Any, Estimate | None]
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """What is alike about lines that are compared; ``benchmark`` None is the mean."""

    target: str
    temperature: float
    benchmark: str | None
    drafting: str = "exact"


Lines = Mapping[Group, Mapping[str, Line]]
"""Group -> drafter -> line."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contrast:
    """One number of a part.

    Attributes:
        of: drafters and target, in words; ``at``: temperature, benchmark, x.
        estimate: None where something is missing or undefined.
        missing: (drafter, why it will never be measured or "") of each value that is missing.
    """

    part: ClaimPart
    of: str
    at: str
    estimate: Estimate | None
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        return f"{self.of}, {self.at}" if self.of else self.at

    @property
    def by_chance(self) -> bool:
        """Whether half of all numbers would be as the rule says if there were no difference."""
        border = 1.0 if self.part.statistic == "ratio" and not self.part.trend else 0.0
        return {self.part.above, self.part.below} == {None, border} and bool(self.part.against or self.part.trend)

    @property
    def right(self) -> bool:
        """Whether the number itself is as the rule says."""
        value = math.nan if self.estimate is None else self.estimate.value
        return _low(self.part) < value < _high(self.part)

    @property
    def distance(self) -> float:
        """How far inside its rule the number is, negative outside."""
        value = math.nan if self.estimate is None else self.estimate.value
        return min(value - _low(self.part), _high(self.part) - value)

    @property
    def p_reproduced(self) -> float | None:
        """Of the hypothesis that the rule is broken; None without a standard error."""
        if self.estimate is None or (error := self.estimate.error) is None:
            return None
        ends = (self.estimate.value - _low(self.part), _high(self.part) - self.estimate.value)
        return max(error.p_above(end) for end in ends if math.isfinite(end))

    @property
    def p_contradicted(self) -> float | None:
        """Of the hypothesis that the rule is kept; None without a standard error."""
        if self.estimate is None or (error := self.estimate.error) is None:
            return None
        ends = (_low(self.part) - self.estimate.value, self.estimate.value - _high(self.part))
        known = [error.p_above(end) for end in ends if math.isfinite(end)]
        return min(1.0, len(known) * min(known))


def _low(part: ClaimPart) -> float:
    return -math.inf if part.above is None else part.above


def _high(part: ClaimPart) -> float:
    return math.inf if part.below is None else part.below


Never = Callable[[str, str, Any], str]
"""Why a drafter's value for a target at an x can never be measured, or ""."""


def contrasts(part: ClaimPart, lines: Lines, never: Never = lambda target, drafter, x: "") -> tuple[Contrast, ...]:
    """Every place where the part can be judged; () where its drafters are not beside each other anywhere."""
    found = list(_contrasts(part, lines, never))
    if not part.pooled or not found:
        return tuple(found)
    missing = tuple(unique(each for one in found for each in one.missing))
    known = [one.estimate for one in found if one.estimate is not None]
    mean = combine(_mean, known) if len(known) == len(found) else None
    targets = "; ".join(unique(one.of for one in found))
    return (Contrast(part, targets, f"mean of {len(found)}", mean, missing),)


def _mean(values: Floats) -> float:
    return float(np.mean(values))


def _contrasts(part: ClaimPart, lines: Lines, never: Never) -> Iterator[Contrast]:
    for group, drafters in lines.items():
        if (group.benchmark is None) != (part.benchmarks == "mean"):
            continue
        for name in part.drafters:
            if name not in drafters:
                continue
            for other in part.against or (None,):
                if other is None:
                    yield from _of_lines(part, group, [(name, drafters[name])], never)
                elif other in drafters and other != name:
                    yield from _of_lines(part, group, [(name, drafters[name]), (other, drafters[other])], never)


def _of_lines(part: ClaimPart, group: Group, named: Sequence[tuple[str, Line]], never: Never) -> Iterator[Contrast]:
    lines = [line for _, line in named]
    base = f"{' / ' if part.statistic == 'ratio' else ' − '}".join(name for name, _ in named)
    at = ", ".join([f"T = {group.temperature:g}", *([group.benchmark] if group.benchmark else [])])

    def contrast(places: Sequence[Any], said: str, function: Any) -> Contrast:
        """``function`` of the values of each line at the places, [lines * places]."""
        wanted = [(name, x, line.values.get(x)) for name, line in named for x in places]
        missing = tuple(unique((name, never(group.target, name, x)) for name, x, value in wanted if value is None))
        known = [value for _, _, value in wanted if value is not None]
        estimate = None if missing else combine(function, known)
        if estimate is not None and not math.isfinite(estimate.value):
            estimate = None
        return Contrast(part, f"{base}, {group.target}", f"{at}{said}", estimate, missing)

    def two(values: Floats) -> float:
        if len(values) == 1:
            return float(values[0])
        return float(values[0] / values[1] if part.statistic == "ratio" else values[0] - values[1])

    common = [x for x in lines[0].values if all(x in line.values for line in lines)]
    if part.trees or part.tree_pairs:
        known = [x for x in common if isinstance(x, TreeShape)]
        for pair in _pairs(part, known):
            yield contrast(pair, f", {pair[0]} over {pair[1]}", two)
        return
    xs = [x for x in common if x in part.at] if part.at else common
    if not part.trend:
        for x in xs:
            yield contrast([x], "" if x == 0 else f", {x if isinstance(x, TreeShape) else f'{x:g}'}", two)
        return
    if part.since is not None:
        xs = [part.since, xs[-1]] if xs and part.since in common and part.since < xs[-1] else []
    if len(xs) > 1:
        scaled = np.log2(xs) if lines[0].log else np.asarray(xs, dtype=np.float64)
        if part.trend == "reach":
            values = [value.value for line in lines for each in xs if (value := line.values[each]) is not None]
            yield contrast(xs, "", _reach(scaled, np.array(values)))
        else:
            yield contrast(xs, "", _trend(part, scaled, two))


def _pairs(part: ClaimPart, known: Sequence[TreeShape]) -> Iterable[tuple[TreeShape, TreeShape]]:
    if part.tree_pairs:
        return [pair for pair in itertools.permutations(known, 2) if _larger(*pair)]
    return [(part.trees[0], part.trees[1])] if set(part.trees) <= set(known) else []


def _larger(tree: TreeShape, other: TreeShape) -> bool:
    return tree != other and tree.contains(other)


def _trend(part: ClaimPart, x: Floats, two: Any) -> Any:
    """The statistic as a function of the values, [lines * len(x)], line by line."""
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)

    def along(values: Floats) -> float:
        rows = values.reshape(-1, len(x))
        if part.trend == "gain":
            return two(rows[:, -1] - rows[:, 0])
        if part.trend == "growth":
            return two(rows[:, -1] / rows[:, 0])
        row = np.array([two(column) for column in rows.T])
        slope = float(row @ weights)
        if part.trend == "relative_slope" and row[0] <= 0:
            return math.nan
        return slope - part.fraction * float(row[0])

    return along


def _reach(x: Floats, found: Floats) -> Any:
    """The statistic "reach" as a function of the values, [2 * len(x)]: the x where the first line reaches the last
    value of the second, less the last x.

    Beyond either end the nearest piece of the line goes on; NaN where that never gets there. Which piece it is, and how
    steep, is taken from the values ``found``: that makes the function linear, so that its test is exact where it
    matters, about 0.
    """
    if len(found) < 2 * len(x):
        return lambda values: math.nan
    own, goal = found[: len(x)], found[-1]
    above = np.flatnonzero(own >= goal)
    end = len(x) - 1 if len(above) == 0 else max(1, int(above[0]))
    first = end - 1 if own[end] > own[end - 1] else 0  # a flat piece goes on as the whole line rises
    if own[end] <= own[first]:
        return lambda values: math.nan
    per_value = (x[end] - x[first]) / (own[end] - own[first])
    return lambda values: float(x[end] + (values[-1] - values[end]) * per_value - x[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """A claim with its contrasts.

    Attributes:
        verdict: one of the five words; why: what it rests on where that is not the interval.
        measured: contrasts that have a value; right: of those, as the rule says, by their value alone.
        worst: the contrast that decides.
    """

    claim: Claim
    verdict: str
    why: str
    contrasts: tuple[Contrast, ...] = ()
    worst: Contrast | None = None

    @functools.cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The interval of ``worst``, wide enough for all contrasts' intervals to hold together; None without one."""
        worst = self.worst.estimate if self.worst else None
        if worst is None or worst.error is None:
            return None
        known = [each.estimate for each in self.contrasts if each.estimate is not None]
        level = simultaneous_level([each.factors for each in known if each.factors])
        return worst.error.interval(worst.value, level)

    @property
    def measured(self) -> int:
        return sum(each.estimate is not None for each in self.contrasts)

    @property
    def right(self) -> int:
        return sum(each.right for each in self.contrasts)

    @property
    def seeds(self) -> int:
        """Training seeds behind every contrast; 1 is one training."""
        return min((each.estimate.seeds for each in self.contrasts if each.estimate), default=1)

    @property
    def cell_ids(self) -> tuple[str, ...]:
        return tuple(unique(name for each in self.contrasts if each.estimate for name in each.estimate.cell_ids))

    @property
    def chance(self) -> float | None:
        """Numbers that would be as claimed by chance, where that is known."""
        known = self.measured and all(each.by_chance for each in self.contrasts)
        return self.measured / 2 if known else None

    @property
    def points(self) -> str:
        """At how many of several numbers it is as claimed, and at how many it would be by chance; "" of one or none."""
        if len(self.contrasts) < 2 or not self.measured:
            return ""
        chance = "" if self.chance is None else f", {self.chance:g} by chance"
        return f"as claimed at {self.right} of {self.measured} numbers{chance}"

    def sentence(self) -> str:
        """One line for a caption."""
        parts = [self.why] if self.why else []
        if self.worst is not None and self.worst.estimate is not None:
            interval = f" [{self.bounds[0]:.3g}, {self.bounds[1]:.3g}]" if self.bounds else ""
            several = "lowest margin " if len(self.contrasts) > 1 else ""
            parts.append(f"{several}{self.worst.estimate.value:.3g}{interval}, rule: {self.worst.part.rule()}")
        parts += [self.points] if self.points else []
        return f"{self.claim.id}: {self.claim.text}: {self.verdict} ({'; '.join(parts)})."


FEWEST_REPEATS = 3
"""Of times, for a verdict on them."""
MOST_UNSTABLE = 0.1
"""The share of unstable cells up to which times have a verdict."""


def judge(claim: Claim, parts: Sequence[tuple[Contrast, ...]], family: int, doubt: str = "") -> Judged:
    """The verdict on a claim of subject "values".

    Args:
        parts: the contrasts of each of its measured parts.
        family: how many primary claims have numbers to be tested.
        doubt: why times of its experiments are not to be believed (`guard_doubt`), or "".
    """
    one = _before_tests(claim, parts)
    if one.verdict in (CANNOT_TELL, NOT_MEASURABLE) and (why := _untimed(one, doubt)):
        return dataclasses.replace(one, verdict=CANNOT_TELL, why=why)
    level = ONE_SIDED / (family if claim.primary else 1)
    contradicted, reproduced = _p_contradicted(one), _p_reproduced(one)
    # What is missing for good cannot take back a counterexample; a run under way is never called contradicted.
    if (
        one.verdict in (CANNOT_TELL, NOT_MEASURABLE)
        and one.worst is not None
        and contradicted is not None
        and contradicted <= level
    ):
        return dataclasses.replace(one, verdict=CONTRADICTED)
    if one.verdict == CANNOT_TELL and not one.why and reproduced is not None and reproduced <= level:
        return dataclasses.replace(one, verdict=REPRODUCED)
    return one


def guard_doubt(found: Iterable[Contrast]) -> str:
    """What the contrasts of a claim that is a guard say against all times beside them, or ""."""
    wrong = [each for each in found if each.estimate is not None and not each.right]
    if not wrong:
        return ""
    worst = min(wrong, key=lambda each: each.distance)
    assert worst.estimate is not None
    said = f"drafters with the same arithmetic do not cost the same: {worst.estimate.value:.3f} ({worst.where})"
    return f"no verdict on speed, since {said}"


def _untimed(one: Judged, doubt: str) -> str:
    """Why the times that a claim is made of decide nothing, or ""."""
    timed = [each.estimate for each in one.contrasts if each.estimate is not None and each.estimate.repeats is not None]
    if not timed:
        return ""
    repeats = min(each.repeats or 0 for each in timed)
    if repeats < FEWEST_REPEATS:
        return f"times were measured {pluralise(repeats, 'time')}, and a verdict needs {FEWEST_REPEATS}"
    unstable = unique(name for each in timed for name in each.unstable)
    every = unique(name for each in timed for name in (*each.cell_ids, *each.unstable))
    if len(unstable) > MOST_UNSTABLE * len(every):
        return f"no verdict on speed, since {len(unstable)} of {len(every)} times are unstable"
    return doubt


def _before_tests(claim: Claim, parts: Sequence[tuple[Contrast, ...]]) -> Judged:
    """The claim with everything but what p-values decide, for which it says "cannot tell"."""
    if claim.pending:
        return Judged(claim, NOT_MEASURABLE, claim.pending)
    every = tuple(each for part in parts for each in part)
    missing = unique(who for each in every for who in each.missing)
    never = unique(f"{drafter}: {why}" for drafter, why in missing if why)
    if not all(parts) or not every:
        return Judged(claim, NOT_MEASURABLE, "nothing was asked for that it could be judged by", every)
    known = [each for each in every if each.estimate is not None]
    worst = min(known, key=_standing, default=None)
    left = len(every) - len(known)
    if worst is not None and len(parts) == 1 and worst.part.on_average:
        worst = _average(worst.part, known)
    whole = Judged(claim, CANNOT_TELL, "", every, worst)
    if never and all(why for _, why in missing):
        said = f"{left} of {len(every)} numbers have no checkpoint ({', '.join(never)})"
        return dataclasses.replace(whole, verdict=NOT_MEASURABLE, why=said)
    if missing:
        return dataclasses.replace(whole, verdict=INCOMPLETE, why=f"{left} of {len(every)} numbers are not measured")
    if left:
        return dataclasses.replace(
            whole, why=f"{left} of {len(every)} numbers are undefined, or are ratios of what is not comparable"
        )
    if any(each.p_reproduced is None for each in every):
        return dataclasses.replace(whole, why="too few questions for intervals")
    return whole


def _standing(contrast: Contrast) -> float:
    """How many standard errors inside its rule a number is: the least decides."""
    error = contrast.estimate.error if contrast.estimate else None
    return contrast.distance / error.error if error and error.error else math.copysign(math.inf, contrast.distance)


def _average(part: ClaimPart, several: Sequence[Contrast]) -> Contrast:
    """The mean of those that have a value."""
    known = [value for each in several if (value := each.estimate) is not None]
    return Contrast(part, "", f"mean of {len(known)}", combine(_mean, known) if known else None)


def _p_reproduced(one: Judged) -> float | None:
    """The largest of the contrasts': all must be right."""
    known: list[float | None] = []
    for part in unique(each.part for each in one.contrasts):
        mine = [each for each in one.contrasts if each.part == part]
        known += [each.p_reproduced for each in ([_average(part, mine)] if part.on_average else mine)]
    values = [value for value in known if value is not None]
    return max(values) if values and len(values) == len(known) else None


def _p_contradicted(one: Judged) -> float | None:
    """Bonferroni's, over the contrasts: any is enough."""
    values = [value for each in one.contrasts if (value := each.p_contradicted) is not None]
    return min(1.0, len(values) * min(values)) if values else None
