"""What a tuning measures, as points: acceptance of a tree, and blocks of trees whose time is compared. Pure.

Acceptance is measured by the torch engine, in float32: there the target's text is written once and known for every
further tree (`decoding.known_text`), which costs the drafter's own steps and a forward pass over
the known path. It does not depend on the device. Time is measured by the engine that will serve.

A *block* is vanilla decoding and every tree that is compared, each at every batch size, measured one after the other.
A ratio is only taken within a block. Its cells carry the block's number as their repeat, and a block that was not
measured to its end is not continued, but measured again under another number: what is compared was measured together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from prism_ae.cells import Point, TreeShape
from prism_ae.suites.records import Suite

BASELINE = "vanilla"

MOST_TOKENS = 256
"""Of an answer: enough rounds to tell trees apart."""

PER_PLACE = 2
"""Questions for each place of a batch, so that most of its rounds find all places taken."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is tuned, and on which questions; names are those of the suite's records.

    Attributes:
        scale: of a drafter that is trained at scales, else None.
        engine: whose time counts.
        benchmarks: whose questions are answered; time is measured on the first one.
        questions: of each benchmark.
    """

    suite: Suite
    target: str
    drafter: str
    scale: str | None
    engine: str
    benchmarks: tuple[str, ...]
    questions: int
    temperature: float
    dtype: str

    def acceptance(self, tree: TreeShape) -> tuple[Point, ...]:
        """A point per benchmark."""
        engine = acceptance_engine(self.engine)
        dtype = "float32" if engine == "torch" else self.dtype
        drafted = self._point(self.drafter, tree)
        return tuple(
            dataclasses.replace(drafted, benchmark=name, engine=engine, dtype=dtype, max_new_tokens=self._tokens(name))
            for name in self.benchmarks
        )

    def block(self, trees: Iterable[TreeShape], batches: Iterable[int], number: int) -> tuple[Point, ...]:
        """Vanilla decoding and each tree, at each batch size."""
        methods = [(BASELINE, None), *((self.drafter, tree) for tree in trees)]
        return tuple(
            dataclasses.replace(
                self._point(drafter, tree),
                batch=batch,
                repeat=number,
                questions=max(self.questions, PER_PLACE * batch),
            )
            for batch in batches
            for drafter, tree in methods
        )

    def _tokens(self, benchmark: str) -> int:
        return min(MOST_TOKENS, self.suite.serving.new_tokens(self.suite.benchmarks[benchmark].turns))

    def _point(self, drafter: str, tree: TreeShape | None) -> Point:
        limits = self.suite.serving
        return Point(
            suite=self.suite.name,
            target=self.target,
            drafter=drafter,
            scale=self.scale if tree else None,
            benchmark=self.benchmarks[0],
            temperature=self.temperature,
            tree=tree,
            engine=self.engine,
            batch=None,
            questions=self.questions,
            max_new_tokens=self._tokens(self.benchmarks[0]),
            max_length=limits.max_length,
            seed=limits.seed,
            dtype=self.dtype,
        )


def acceptance_engine(engine: str) -> str:
    """The engine that measures acceptance for one that serves."""
    return "torch" if engine == "sglang" else engine


def is_whole(block: Sequence[Point], done: Collection[Point]) -> bool:
    """Whether a block's results are of one go: all of it is done, or vanilla decoding is not and will be with the rest.

    Args:
        done: points of the block that have a result.
    """
    return len(done) == len(block) or not any(point.tree is None for point in done)
