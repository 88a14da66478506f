"""What a round costs with any draft tree, from a few that were timed.

A round's seconds, in steps of vanilla decoding on the same device and at the same batch size, are taken to be

    cost(d, w, v) = host + step * d + drafted * w * (d - 1) + verified * v

with a price of the round itself, of each draft step, of each token that goes through the drafter (its first step reads
the committed tokens alone), and of each token that the target verifies. No price is negative (non-negative least
squares), and what is made small is the relative error, for it is ratios of costs that decide between trees. That the
law is not exact is why it only ranks: the trees that look best are timed themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import optimize

from prism_ae.analysis.quantities import Floats
from prism_ae.cells import TreeShape

TERMS = ("host", "step", "drafted", "verified")


def _amounts(tree: TreeShape) -> list[float]:
    return [1.0, tree.steps, tree.branch * (tree.steps - 1), tree.verified]


@dataclasses.dataclass(frozen=True, eq=False)
class CostModel:
    """Prices [4] by `TERMS`, in steps of vanilla decoding, and the largest relative error at a tree that was timed."""

    prices: Floats
    error: float

    @classmethod
    def fit(cls, costs: Mapping[TreeShape, float]) -> CostModel:
        """From the costs of some trees, at least one; raises ValueError where one is not positive."""
        measured = np.array([*costs.values()])
        if not len(measured) or not (measured > 0).all():
            raise ValueError("a round's cost must be positive")
        amounts = np.array([_amounts(tree) for tree in costs])
        prices, _ = optimize.nnls(amounts / measured[:, None], np.ones(len(measured)))
        return cls(prices, float(np.abs(amounts @ prices / measured - 1).max()))

    def of(self, tree: TreeShape) -> float:
        """Expected cost of a round, in steps of vanilla decoding."""
        return float(np.dot(_amounts(tree), self.prices))
