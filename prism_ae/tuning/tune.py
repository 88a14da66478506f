"""The search: from candidates to the best tree and its speed-up at every batch size.

    decode speed-up of a tree = tokens per round / round cost
    round cost = seconds of a round / seconds of a step of vanilla decoding, of one block

1. *Calibrate*: a few trees that lie far apart are timed in blocks (`points`); their costs make forecasts (`cost`).
2. *Look*: tokens per round of those, then of the trees that may be among the best, wave by wave, until no other can be
   (`search`). That is exact up to rounding, and takes no undisturbed device.
3. *Heats*: the trees of the largest expected speed-up are timed in blocks, and make better forecasts; again from step 2
   until the first of them were timed before. Then the neighbours of the fastest, until none of them is faster.
4. *Finals*: the fastest of all that were timed, once more side by side; the first of them is the answer.
5. *Batches*: the answer and vanilla decoding are timed at every batch size.

A tree's cost is that of the least seconds over its blocks: what else a device does only ever makes work longer (as in
`analysis.results.CellResult`). What measures is passed in (`Bench`), so that the search can be run on any
made-up surface.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from prism_ae.analysis.quantities import ROUND_SECONDS, STEP_SECONDS, ratio
from prism_ae.analysis.results import CellResult, Results
from prism_ae.cells import Point, TreeShape
from prism_ae.errors import DeviceError, IncompleteError
from prism_ae.io.words import pluralise
from prism_ae.tuning.cost import CostModel
from prism_ae.tuning.points import Setting, is_whole
from prism_ae.tuning.search import crossing, finalists, promising
from prism_ae.tuning.space import neighbours, spread

WAVE = 12
"""Trees that are looked at together: a worker writes the target's text once for all of a wave."""


HEATS = 6
"""At most."""

_AHEAD = 3
"""While one of so many trees of the largest expectation was not timed, forecasts go on; then neighbours are tried."""


class Bench(Protocol):
    """Measures points, and keeps their results."""

    def done(self, points: Sequence[Point]) -> Collection[Point]:
        """Those that have a result."""
        ...

    def measure(self, points: Sequence[Point], what: str) -> Results:
        """Their results; measures what has none, in an order of its own. Raises PrismError where one cannot be."""
        ...


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        batch: the batch size that the tree is chosen for.
        batches: of the curve.
        calibration: trees that are timed for the law of cost.
        finalists: trees of the finals, and of a heat at most; as many as there are candidates: all of them, at once.
        blocks: of each comparison.
    """

    batch: int = 1
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    calibration: int = 8
    finalists: int = 6
    blocks: int = 3


@dataclasses.dataclass(frozen=True)
class TimedTree:
    """A tree that was timed at a batch size.

    Attributes:
        tokens_per_round: over all benchmarks.
        rounds, steps: seconds of a round, and of a step of vanilla decoding, a value of each per block.
    """

    tree: TreeShape
    batch: int
    tokens_per_round: float
    rounds: tuple[float, ...]
    steps: tuple[float, ...]

    @property
    def costs(self) -> tuple[float, ...]:
        """Of a round in steps of vanilla decoding, a value per block."""
        return tuple(own / step for own, step in zip(self.rounds, self.steps, strict=True))

    @property
    def cost(self) -> float:
        return min(self.rounds) / min(self.steps)

    @property
    def speed_up(self) -> float:
        return self.tokens_per_round / self.cost

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest speed-up of a block."""
        return self.tokens_per_round / max(self.costs), self.tokens_per_round / min(self.costs)

    @property
    def tps(self) -> float:
        """Tokens per second while decoding, all places of the batch together."""
        return self.batch * self.tokens_per_round / min(self.rounds)

    @property
    def vanilla_tps(self) -> float:
        """The same of vanilla decoding."""
        return self.batch / min(self.steps)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        finals: the trees that the best was chosen from, the fastest first.
        curve: the best tree at every batch size, ascending.
        lengths: tokens per round of every tree that was looked at.
        candidates: trees that there were to choose from.
        model: of the cost at the batch size of the search, from all trees that were timed there.
        device: in words.
        results: everything that was measured.
    """

    finals: tuple[TimedTree, ...]
    curve: tuple[TimedTree, ...]
    lengths: Mapping[TreeShape, float]
    candidates: int
    model: CostModel
    device: str
    results: Results

    @property
    def best(self) -> TimedTree:
        return self.finals[0]

    @property
    def pays_below(self) -> float | None:
        """See `search.crossing`."""
        return crossing({timed.batch: timed.speed_up for timed in self.curve})


def tune(setting: Setting, trees: Sequence[TreeShape], effort: Effort, bench: Bench) -> Tuned:
    """Find the best of the trees; raises PrismError where something cannot be measured."""
    return _Search(setting, trees, effort, bench).run()


class _Search:
    def __init__(self, setting: Setting, trees: Sequence[TreeShape], effort: Effort, bench: Bench) -> None:
        self._setting, self._trees, self._effort, self._bench = setting, tuple(trees), effort, bench
        self._lengths: dict[TreeShape, float] = {}
        self._costs: dict[TreeShape, float] = {}
        self._cells: dict[Point, CellResult] = {}

    def run(self) -> Tuned:
        effort = self._effort
        chosen = self._trees if effort.finalists >= len(self._trees) else self._qualified()
        finals = sorted(self._time(chosen, (effort.batch,), "finals"), key=lambda timed: -timed.speed_up)
        curve = self._time((finals[0].tree,), effort.batches, "batch sizes")
        return Tuned(
            finals=tuple(finals),
            curve=tuple(sorted(curve, key=lambda timed: timed.batch)),
            lengths=self._lengths,
            candidates=len(self._trees),
            model=CostModel.fit(self._costs),
            device=self._device(),
            results=Results(tuple(self._cells), self._cells),
        )

    def _qualified(self) -> tuple[TreeShape, ...]:
        """The trees of the finals."""
        count, batches = self._effort.finalists, (self._effort.batch,)
        self._time(spread(self._trees, self._effort.calibration), batches, "calibration")
        for heat in range(1, HEATS + 1):
            model = CostModel.fit(self._costs)
            while wave := promising(self._trees, self._lengths, model, WAVE):
                self._look(wave)
            best = finalists(self._lengths, model, count)
            left = [tree for tree in best if tree not in self._costs]
            if not set(left) & set(best[:_AHEAD]):
                around = neighbours(self._fastest(1)[0], self._trees)
                left = [tree for tree in around if tree not in self._costs]
            if not left:
                break
            self._time(left, batches, f"heat {heat}")
        return self._fastest(count)

    def _fastest(self, count: int) -> tuple[TreeShape, ...]:
        """Of the trees that were timed."""
        timed = {tree: self._lengths[tree] for tree in self._costs}
        return finalists(timed, CostModel.fit(self._costs), count)

    def _look(self, trees: Sequence[TreeShape]) -> None:
        """Measure the trees' tokens per round, where that was not done."""
        points = {tree: self._setting.acceptance(tree) for tree in trees if tree not in self._lengths}
        if not points:
            return
        what = f"acceptance of {pluralise(len(points), 'draft tree')}, {len(self._lengths)} done"
        found = self._measure([point for own in points.values() for point in own], what)
        for tree, own in points.items():
            sums = [found[point].columns.sums(0.0, None) for point in own]
            tokens, rounds = (sum(float(getattr(one, name)) for one in sums) for name in ("decode_tokens", "rounds"))
            self._lengths[tree] = _positive(float(ratio(tokens, rounds)), "no round was needed", own[0])

    def _time(self, trees: Sequence[TreeShape], batches: Sequence[int], what: str) -> list[TimedTree]:
        """Each tree at each batch size, in blocks."""
        self._look(trees)
        seconds: dict[tuple[TreeShape | None, int], list[float]] = {}
        number = 0
        for block in range(1, self._effort.blocks + 1):
            number = self._next_block(trees, batches, number)
            points = self._setting.block(trees, batches, number)
            found = self._measure(points, f"time of the {what}, block {block} of {self._effort.blocks}")
            for point in points:
                assert point.batch is not None
                seconds.setdefault((point.tree, point.batch), []).append(_seconds(found[point]))
        timed = [
            TimedTree(tree, batch, self._lengths[tree], tuple(seconds[tree, batch]), tuple(seconds[None, batch]))
            for tree in trees
            for batch in batches
        ]
        self._costs |= {one.tree: one.cost for one in timed if one.batch == self._effort.batch}
        return timed

    def _next_block(self, trees: Sequence[TreeShape], batches: Sequence[int], after: int) -> int:
        """The number of the first block after that one that is done, or not begun."""
        number = after + 1
        while not is_whole(points := self._setting.block(trees, batches, number), self._bench.done(points)):
            number += 1
        return number

    def _measure(self, points: Sequence[Point], what: str) -> Mapping[Point, CellResult]:
        found = self._bench.measure(points, what).cells
        self._cells |= found
        return found

    def _device(self) -> str:
        """What was timed on; raises DeviceError where that is not one device, engine and target."""
        timed = [cell for cell in self._cells.values() if cell.point.batch is not None]
        names = sorted({cell.measured.device for cell in timed})
        if len({cell.setting for cell in timed}) > 1:
            raise DeviceError(
                f"what was timed does not compare: several devices, kernels or targets in one folder "
                f"({', '.join(names)})",
                "measure into another folder with --runs-dir",
            )
        return names[0]


def _seconds(cell: CellResult) -> float:
    """Of a round, or of a step of vanilla decoding; raises IncompleteError where there was none."""
    formula = (STEP_SECONDS if cell.point.tree is None else ROUND_SECONDS).formula
    assert formula is not None
    return _positive(float(formula(cell.total)), "no seconds of decoding were measured", cell.point)


def _positive(value: float, problem: str, point: Point) -> float:
    if not (math.isfinite(value) and value > 0):
        method = f"{point.drafter} with draft tree {point.tree}" if point.tree else "no drafts"
        raise IncompleteError(
            f"{method}, benchmark {point.benchmark}, batch {point.batch}: {problem}",
            "ask for more with --questions, or for other benchmarks with --benches",
        )
    return value
