"""What a round costs with any draft tree, from a few that were timed.

A round's seconds, in steps of vanilla decoding on the same device and at the same batch size, are taken to be

    cost(d, w, v) = host + step * d + drafted * w * (d - 1) + verified * v

with a price of the round itself, of each draft step, of each token that goes through the drafter (its first step reads
the committed tokens alone), and of each token that the target verifies. No price is negative (non-negative least
squares), and what is made small is the relative error, for it is ratios of costs that decide between trees. No device
keeps such a law (a GPU verifies some tokens for nothing, then in tiles): a forecast is the law's value times what the
trees that were timed cost more or less than it, the nearest one counting most. At a timed tree it is what was measured.
Still it only ranks: the trees that look best are timed themselves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from scipy import optimize

from prism_ae.analysis.quantities import Floats
from prism_ae.cells import TreeShape
from prism_ae.tuning.space import distance

TERMS = ("host", "step", "drafted", "verified")


def _amounts(tree: TreeShape) -> list[float]:
    return [1.0, tree.steps, tree.branch * (tree.steps - 1), tree.verified]


@dataclasses.dataclass(frozen=True, eq=False)
class CostModel:
    """Forecasts from trees that were timed.

    Attributes:
        prices: [4] by `TERMS`, in steps of vanilla decoding.
        residuals: of each timed tree, the logarithm of its cost over the law's.
    """

    prices: Floats
    residuals: Mapping[TreeShape, float]

    @classmethod
    def fit(cls, costs: Mapping[TreeShape, float]) -> CostModel:
        """From the costs of some trees, at least one; raises ValueError where one is not positive."""
        measured = np.array([*costs.values()])
        if not len(measured) or not (measured > 0).all():
            raise ValueError("a round's cost must be positive")
        amounts = np.array([_amounts(tree) for tree in costs])
        prices, _ = optimize.nnls(amounts / measured[:, None], np.ones(len(measured)))
        residuals = np.log(measured / (amounts @ prices))
        return cls(prices, dict(zip(costs, map(float, residuals), strict=True)))

    @property
    def error(self) -> float:
        """The largest relative deviation of a timed tree from the law."""
        return max(abs(math.expm1(residual)) for residual in self.residuals.values())

    def of(self, tree: TreeShape) -> float:
        """Expected cost of a round, in steps of vanilla decoding."""
        law = float(np.dot(_amounts(tree), self.prices))
        near = {one: distance(tree, one) for one in self.residuals}
        if (there := min(near, key=near.__getitem__)) == tree:
            return law * math.exp(self.residuals[there])
        weights = {one: far**-2 for one, far in near.items()}
        shift = sum(weight * self.residuals[one] for one, weight in weights.items()) / sum(weights.values())
        return law * math.exp(shift)
