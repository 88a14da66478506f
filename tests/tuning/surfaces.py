"""Made-up surfaces: tokens per round and round costs of any draft tree, and a bench that "measures" them."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Collection, Sequence

from prism_ae.analysis.results import Measured, Results, results_of
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.suites.load import load_suite
from prism_ae.tuning.points import Setting

ROUNDS = 10_000
STEP = 0.01
"""Seconds of a step of vanilla decoding."""

SETTING = Setting(load_suite("mini"), "mini-llama-2", "prism", "8x", "torch", ("humaneval", "qa"), 4, 0.0, "float32")


def tokens(tree: TreeShape, quality: float = 0.55) -> float:
    """Tokens per round; grows with every side of the tree."""
    width, size = math.log2(tree.branch) / math.log2(10), math.log2(tree.verified) / 6
    chance = quality + 0.2 * width * size
    return 1 + sum(chance**depth for depth in range(1, tree.steps + 1))


def linear_cost(tree: TreeShape) -> float:
    return 1.1 + 0.12 * tree.steps + 0.004 * tree.branch * (tree.steps - 1) + 0.01 * tree.verified


def bent_cost(tree: TreeShape) -> float:
    """A law that the model does not have: verifying is free up to 16 tokens, as where memory is the limit."""
    return 1.05 + 0.1 * tree.steps**1.2 + 0.02 * math.log2(tree.branch) * tree.steps + 0.02 * max(0, tree.verified - 16)


@dataclasses.dataclass
class MadeUp:
    """A `Bench`. ``noise``: of a round's seconds, relative; a block is slower as a whole by up to three times."""

    cost: Callable[[TreeShape], float]
    quality: float = 0.55
    noise: float = 0.0
    measured: dict[Point, Measured] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, tuple[Point, ...]]] = dataclasses.field(default_factory=list)

    def done(self, points: Sequence[Point]) -> Collection[Point]:
        return [point for point in points if point in self.measured]

    def measure(self, points: Sequence[Point], what: str) -> Results:
        self.asked.append((what, tuple(points)))
        for point in points:
            if point not in self.measured:
                self.measured[point] = Measured(f"{len(self.measured)}", self._samples(point), 1.0, {}, "", "a device")
        return results_of(points, {point: self.measured[point] for point in points})

    @property
    def looked(self) -> int:
        return len({point.tree for point in self.measured if point.batch is None})

    def _samples(self, point: Point) -> tuple[Sample, ...]:
        choice = random.Random(repr(point))
        slow = random.Random(point.repeat).uniform(1, 3) if self.noise else 1.0
        seconds = STEP * slow * (1 + self.noise * choice.uniform(-1, 1))
        generated, histogram = ROUNDS + 1, ()
        if point.tree is not None:
            load = 1 + 0.1 * (
                (point.batch or 1) - 1
            )  # a round grows with the batch, a step of vanilla decoding does not
            seconds *= self.cost(point.tree) * load
            histogram = _histogram(tokens(point.tree, self.quality), point.tree.steps)
            generated = sum(count * (drafts + 1) for drafts, count in enumerate(histogram)) + 1
        sample = Sample("q/0", 1, 9, generated, histogram, ("end",), 0.1, ROUNDS * seconds, "0" * 64)
        empty = Sample("q/0", 1, 9, 1, (0,) * len(histogram), ("end",), 0.1, 0.0, "0" * 64)
        others = (dataclasses.replace(empty, question_id=f"q/{number}") for number in range(1, point.questions))
        return (sample, *others)


def _histogram(mean: float, steps: int) -> tuple[int, ...]:
    """`ROUNDS` rounds that commit so many tokens on average."""
    low = int(mean)
    more = round((mean - low) * ROUNDS)
    counts = [0] * (steps + 1)
    counts[low - 1] = ROUNDS - more
    if more:
        counts[low] = more
    return tuple(counts)
