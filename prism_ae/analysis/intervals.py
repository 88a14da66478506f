"""Confidence intervals: Student's t from what each question, and each training, contributes to a value.

What varies from one reader's measurement to another's is the questions and, for what is said of an architecture, the
training. Both are *factors* with *units*: the questions of a benchmark, the training seeds of a target's drafters. A
factor holds each unit's contribution, from its jackknife deviation

    (n - 1) * (value - value without the unit)

of a value over n units (Efron and Stein 1981; for a mean it is unit - mean): the deviation less their mean, over
sqrt(n (n - 1)), so that the value's variance is the sum of all squared contributions. The degrees of freedom are
Welch's and Satterthwaite's. Contributions add and subtract as the values do, unit by unit, which makes a difference of
two values over the same questions a paired one, and of values over others an unpaired one. A quantile of 2,000
resamples instead, the percentile bootstrap, is too short where units are few: of 8 questions its "95 %" holds the truth
in 90 %.

The training's variance holds a part of the questions' (how a seed fares on just these), and is not corrected for it:
intervals over both are a little too long, never too short.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from prism_ae.analysis.quantities import Floats
from prism_ae.io.environment import environment

with environment({"SOURCE_DATE_EPOCH": None}):  # numpy's f2py, which SciPy loads, takes it for a number
    from scipy import special

CONFIDENCE = 0.95
FEWEST_QUESTIONS = 5
"""Of a benchmark; of fewer no interval is given, for t assumes a mean that is about normal."""


def question_freedom(questions: int) -> int:
    """Degrees of freedom of so many questions: two less, not one, because values over questions are ratios whose
    questions weigh unequally (at 5 and 8 questions acceptance lengths are covered at 93 % so, at 92.6 % with one)."""
    return questions - 2 if questions >= FEWEST_QUESTIONS else 0


_DRAWS = 20_000
_SEED = 20260201
"""Any number will do; it is fixed so that the same data always give the same interval."""


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """What units contribute to a value.

    Attributes:
        units: their names.
        contributions: [n], see the module.
        freedom: degrees of freedom; 0 where units are too few for an interval.
    """

    units: tuple[str, ...]
    contributions: Floats
    freedom: int

    @classmethod
    def of(cls, units: tuple[str, ...], deviations: Floats, freedom: int) -> Factor:
        """From jackknife deviations [n]."""
        count = len(units)
        return cls(units, (deviations - deviations.mean()) / math.sqrt(max(1, count * (count - 1))), freedom)

    @property
    def variance(self) -> float:
        """Of the value, by this factor."""
        return float(np.sum(self.contributions**2))

    def times(self, weight: float) -> Factor:
        return dataclasses.replace(self, contributions=weight * self.contributions)

    def plus(self, other: Factor) -> Factor:
        """Of the sum of two values; a unit of one of them alone contributes by it alone."""
        freedom = min(self.freedom, other.freedom)
        if self.units == other.units:
            return Factor(self.units, self.contributions + other.contributions, freedom)
        total = dict(zip(self.units, self.contributions, strict=True))
        for unit, value in zip(other.units, other.contributions, strict=True):
            total[unit] = total.get(unit, 0.0) + value
        return Factor(tuple(total), np.array([*total.values()]), freedom)


Factors = Mapping[str, Factor]
"""By name: "questions of gsm8k", "training on mini-llama-2"."""


def combined(parts: Sequence[tuple[float, Factors | None]]) -> Factors | None:
    """The factors of a weighted sum; None where a part has none."""
    total: dict[str, Factor] = {}
    for weight, factors in parts:
        if factors is None:
            return None
        for name, factor in factors.items():
            mine = factor.times(weight)
            total[name] = total[name].plus(mine) if name in total else mine
    return total


@dataclasses.dataclass(frozen=True)
class Error:
    """A value's standard error and its degrees of freedom."""

    error: float
    freedom: float

    def interval(self, value: float, level: float = 1 - CONFIDENCE) -> tuple[float, float]:
        """The two-sided interval that misses the truth in ``level`` of all studies."""
        reach = float(special.stdtrit(self.freedom, 1 - level / 2)) * self.error
        return value - reach, value + reach

    def p_above(self, distance: float) -> float:
        """The chance to be ``distance`` or more above the truth: one-sided."""
        if self.error == 0:
            return float(distance <= 0)
        return float(special.stdtr(self.freedom, -distance / self.error))


def error_of(factors: Factors | None) -> Error | None:
    """None where there are too few units, or none."""
    if not factors or any(each.freedom < 1 for each in factors.values()):
        return None
    variances = [(each.variance, each.freedom) for each in factors.values()]
    total = sum(variance for variance, _ in variances)
    if not math.isfinite(total):
        return None
    below = sum(variance**2 / freedom for variance, freedom in variances)
    return Error(math.sqrt(total), total**2 / below if below else 1.0)


def simultaneous_level(several: Sequence[Factors]) -> float:
    """The level of each interval at which all of them together hold the truth with 95 %: max-|t|.

    The values' correlation is that of their deviations. The largest of correlated normal variables is drawn, and its
    quantile turned into the level of one, so that values of unlike degrees of freedom keep their own t.
    """
    errors = [error_of(factors) for factors in several]
    rows = [(factors, error.error) for factors, error in zip(several, errors, strict=True) if error and error.error]
    if len(rows) < 2:
        return 1 - CONFIDENCE
    columns: dict[tuple[str, str], int] = {}
    for factors, _ in rows:
        for name, factor in factors.items():
            for unit in factor.units:
                columns.setdefault((name, unit), len(columns))
    weights = np.zeros((len(rows), len(columns)))
    for row, (factors, error) in zip(weights, rows, strict=True):
        for name, factor in factors.items():
            row[[columns[name, unit] for unit in factor.units]] = factor.contributions / error
    # Rows may be many and units few, or the other way around: draw in the smaller space.
    if len(rows) < len(columns):
        values, vectors = np.linalg.eigh(weights @ weights.T)
        weights = vectors * np.sqrt(np.clip(values, 0, None))
    draws = np.random.default_rng(_SEED).standard_normal((_DRAWS, weights.shape[1]))
    largest = np.abs(draws @ weights.T).max(axis=1)
    found = float(2 * special.ndtr(-np.quantile(largest, CONFIDENCE)))
    return min(found, 1 - CONFIDENCE)  # of one value it is just that, but for the draws
