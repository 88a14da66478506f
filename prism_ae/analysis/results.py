"""What was asked and what was measured of it: where metrics, claims and drawings start.

Samples are checked here, where they become columns of numbers: samples that contradict themselves or what was asked
never reach a formula.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prism_ae.analysis.quantities import QUANTITIES, Floats, Ints, Quantity, Sums, acceptance_lengths, ratio
from prism_ae.analysis.reads import with_reads
from prism_ae.analysis.rounds import as_authors_count, overshoot
from prism_ae.cells import STAGES, Fingerprints, Point, Sample
from prism_ae.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Measured:
    """A finished cell, as the store has it.

    Attributes:
        samples: one per question.
        wall_seconds, settings: of the engine's `Result`.
        finished: UTC, ISO 8601.
        device: in words.
        fingerprints: of what was measured; None where nobody asks.
    """

    cell_id: str
    samples: tuple[Sample, ...]
    wall_seconds: float
    settings: Mapping[str, Any]
    finished: str
    device: str
    fingerprints: Fingerprints | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """A cell's samples as columns, a row per question.

    Attributes:
        histograms: [n, deepest + 1], rounds of a question by accepted drafts.
        generated, turns: [n], tokens and turns of a question.
        overshoot: [n], tokens that were committed behind the answers' ends, which nobody receives.
        prefill, decode: [n], seconds from sending a turn to its first token, and from there to its last; summed over
            turns.
        stages: [n, stages], seconds of the rounds by `cells.STAGES`; NaN where they were not measured apart.
    """

    question_ids: tuple[str, ...]
    histograms: Ints
    generated: Ints
    turns: Ints
    overshoot: Ints
    prefill: Floats
    decode: Floats
    stages: Floats

    @property
    def seconds(self) -> Floats:
        """[n, 2 + stages]: prefill, decode, and by stage."""
        return np.column_stack([self.prefill, self.decode, self.stages])

    def taking(self, seconds: Floats) -> Columns:
        """The same with other ``seconds`` [n, 2 + stages]."""
        prefill, decode, *stages = seconds.T
        return dataclasses.replace(self, prefill=prefill, decode=decode, stages=np.column_stack(stages))

    @property
    def units(self) -> Ints:
        """[n], what decoding a question consists of: its rounds, or its decoded tokens where nothing drafts."""
        return np.maximum(np.where(self.rounds > 0, self.rounds, self.generated - self.turns), 1)

    @property
    def rounds(self) -> Ints:
        """[n], rounds of a question."""
        return self.histograms.sum(axis=1)

    @property
    def without_rounds(self) -> int:
        """Questions that ended before a first round, or were decoded without drafts: no acceptance length has them."""
        return int(np.count_nonzero(self.rounds == 0))

    def value(self, quantity: Quantity) -> float:
        """Of a quantity that needs no time."""
        assert quantity.formula is not None
        return float(quantity.formula(self.sums(0.0, None)))

    def sums(self, wall: float, batch: int | None, weights: Floats | None = None) -> Sums:
        """The sums over all questions, or, with ``weights`` [r, n], over r selections of them.

        A selection's wall seconds are not measured. They are taken to be in proportion to the seconds its questions
        were served (prefill and decode): as many requests side by side as there were, the same overhead per second.
        """
        every = np.ones(len(self.question_ids)) if weights is None else weights
        lengths, rounds = acceptance_lengths(self.histograms), self.rounds
        known = np.where(rounds > 0, lengths, 0.0)
        decode = self.decode if batch else np.zeros(len(self.decode))  # only timed seconds were checked
        served = (self.prefill if batch else decode) + decode
        stages = self.stages if batch else np.full(self.stages.shape, np.nan)
        return Sums(
            lengths=np.sum(known) if weights is None else weights @ known,
            answered=every @ (rounds > 0).astype(np.float64),
            answered_tokens=every @ np.where(rounds > 0, self.generated, 0),
            histogram=every @ self.histograms,
            rounds=every @ rounds,
            generated=every @ self.generated,
            turns=every @ self.turns,
            decode_tokens=every @ (self.generated - self.turns),
            prefill_seconds=every @ (self.prefill if batch else np.zeros(len(self.prefill))),
            decode_seconds=every @ decode,
            stage_seconds=every @ stages,
            wall=np.asarray(wall) if weights is None else wall * ratio(every @ served, served.sum()),
            batch=batch or 1,
        )


def columns_of(samples: Sequence[Sample], steps: int = 0) -> Columns:
    """The columns of samples, their identities checked; histograms are ``steps`` + 1 wide at the least.

    Raises:
        ValueError: a count is negative, a question occurs twice, more tokens were generated than the rounds and
            prefills can have committed, or `Sample.problem`.
    """
    width = max((len(sample.histogram) for sample in samples), default=0)
    histograms = np.zeros((len(samples), max(width, steps + 1)), dtype=np.int64)
    for row, sample in zip(histograms, samples, strict=True):
        row[: len(sample.histogram)] = sample.histogram
        where = f"question {sample.question_id}"
        if min(sample.histogram, default=0) < 0 or sample.generated_tokens < 0:
            raise ValueError(f"{where}: a count is negative")
        if problem := sample.problem():
            raise ValueError(f"{where}: {problem}")
        accepted = sum(depth * rounds for depth, rounds in enumerate(sample.histogram))
        most = sample.rounds + accepted + sample.turns
        if sample.rounds and sample.generated_tokens > most:
            said = f"{sample.generated_tokens} tokens were generated, but rounds and prefills committed {most} at most"
            raise ValueError(f"{where}: {said}")
    ids = tuple(sample.question_id for sample in samples)
    if len(set(ids)) < len(ids):
        raise ValueError("a question occurs twice")
    listed = [(sample.generated_tokens, sample.turns, overshoot(sample)) for sample in samples]
    counts = np.array(listed, dtype=np.int64).reshape(-1, 3)
    seconds = np.array([(sample.prefill_seconds, sample.decode_seconds) for sample in samples], dtype=np.float64)
    stages = np.array([sample.stage_seconds or _NO_STAGES for sample in samples], dtype=np.float64)
    (generated, turns, beyond), (prefill, decode) = counts.T, seconds.reshape(-1, 2).T
    stages = stages.reshape(-1, len(STAGES))
    return Columns(ids, histograms, generated, turns, beyond, prefill, decode, stages)


_NO_STAGES = (math.nan,) * len(STAGES)


@dataclasses.dataclass(frozen=True, eq=False)
class CellResult:
    """A measured cell, checked; its sums are computed once however many drawn values it is part of.

    A cell whose time is measured may have *repeats*, which answer its first questions again: the same work, in other
    seconds. What else a machine does only ever makes work longer, so the least seconds are nearest to what it takes
    (Chen and Revels, "Robust benchmarking in noisy environments", 2016): a question's seconds are those of the
    measurement that decoded it fastest. Those that were answered only once count at the pace of those that were
    repeated: what disturbed them nobody knows.

    Attributes:
        repeats: further measurements of its times; ``lacks_repeats``: whether some that were asked for are missing.
    """

    point: Point
    measured: Measured
    columns: Columns
    repeats: tuple[CellResult, ...] = ()
    lacks_repeats: bool = False

    def least(self, *, without: int | None = None) -> Columns:
        """The cell's columns with the least seconds over its measurements, or over all ``without`` that one.

        Measurements are compared by the round, because a text in half precision may part in a tie. What is read before
        an answer has the least seconds of its own, or changes in proportion where it was measured once.
        """
        if not self.repeats:
            return self.columns
        every = [one.columns for one in (self, *self.repeats)]
        several = [columns for number, columns in enumerate(every) if number != without]
        count = min(len(columns.question_ids) for columns in every)
        units, prefill = self.columns.units, self.columns.prefill
        paces = np.array([columns.seconds[:count, 1:] / columns.units[:count, None] for columns in several])
        decoded = paces[paces[:, :, 0].argmin(axis=0), np.arange(count)] * units[:count, None]
        read = np.min([columns.prefill[:count] for columns in several], axis=0)
        before = prefill[:count].sum()
        read = np.concatenate([read, prefill[count:] * (read.sum() / before if before else 1.0)])
        once = units[count:, None] * (decoded.sum(axis=0) / units[:count].sum())
        return self.columns.taking(np.column_stack([read, np.concatenate([decoded, once])]))

    @property
    def spread(self) -> float | None:
        """How much longer decoding would count as, in parts of what it does, without one of its measurements: the
        worst. None of one measurement."""
        if not self.repeats:
            return None
        without = [self.least(without=number).decode.sum() for number in range(1 + len(self.repeats))]
        least = self.least().decode.sum()
        return float(max(without) / least - 1) if least else 0.0

    def sums(self, columns: Columns, weights: Floats | None = None) -> Sums:
        """`Columns.sums` of its columns in other seconds, the wall seconds as much longer as the served."""
        served, before = (each.prefill.sum() + each.decode.sum() for each in (columns, self.columns))
        longer = served / before if self.point.batch and before else 1.0
        sums = columns.sums(self.measured.wall_seconds * longer, self.point.batch, weights)
        return with_reads(sums, self.measured.settings)

    @functools.cached_property
    def total(self) -> Sums:
        return self.sums(self.least())

    @functools.cached_property
    def without_each(self) -> Sums:
        """Sums [n] over all questions but one, for each of them."""
        count = len(self.columns.question_ids)
        return self.sums(self.least(), np.ones((count, count)) - np.eye(count))

    def without_each_repeat(self, count: int) -> Sums:
        """Sums [count] over all questions, their seconds by all measurements but one, or by all where there are fewer
        than ``count``; there are two at least."""
        own = [self.sums(self.least(without=number)) for number in range(1 + len(self.repeats))]
        return Sums.stacked([*own, *[self.total] * (count - len(own))])

    @property
    def cell_ids(self) -> tuple[str, ...]:
        """Its own and its repeats'."""
        return tuple(one.measured.cell_id for one in (self, *self.repeats))

    @property
    def checkpoint(self) -> tuple[str, str] | None:
        """Digest of the target and version of the engine: what cells of one value must share."""
        prints = self.measured.fingerprints
        return None if prints is None else (prints.target, prints.engine)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What cells must share for a ratio of their times: besides the checkpoint the device and the engine's
        attention kernels, None where the engine has one kind."""
        return self.measured.device, self.measured.settings.get("attention"), self.checkpoint

    @property
    def questions(self) -> int:
        """Questions that an interval is over: with rounds, or all where nothing drafts."""
        return int(np.count_nonzero(self.columns.rounds)) or len(self.columns.question_ids)


@dataclasses.dataclass(frozen=True)
class Results:
    """The points that were asked, in their order, and the cells of those that were measured.

    Attributes:
        points: without repeats, which are part of their cells.
        repeats: point -> the repeats of it that were asked for.
    """

    points: tuple[Point, ...]
    cells: Mapping[Point, CellResult]
    repeats: Mapping[Point, tuple[Point, ...]] = dataclasses.field(default_factory=dict)

    @property
    def asked(self) -> int:
        """Cells that were asked for, repeats included; measured: those that there are."""
        return len(self.points) + sum(len(self.repeats.get(point, ())) for point in self.points)

    @property
    def measured(self) -> int:
        return sum(len(cell.cell_ids) for cell in self.done)

    @property
    def missing(self) -> list[Point]:
        """The points without a result, repeats included."""
        there = {one.point for cell in self.done for one in (cell, *cell.repeats)}
        every = (one for point in self.points for one in (point, *self.repeats.get(point, ())))
        return [point for point in every if point not in there]

    @property
    def done(self) -> tuple[CellResult, ...]:
        """The measured cells, in the order of the points."""
        return tuple(self.cells[point] for point in self.points if point in self.cells)

    def mixtures(self) -> list[str]:
        """`mixtures` of the measured cells."""
        return mixtures({cell.point: cell.measured for cell in self.done})

    def of(self, points: Iterable[Point]) -> Results:
        """The same of some points."""
        return Results(tuple(points), self.cells, self.repeats)

    def table(self) -> pd.DataFrame:
        """A tidy table: one row per measured cell and quantity that a cell has by itself.

        Columns: those of `Point` (``tree`` as text), ``cell_id``, ``device``, ``finished``, ``quantity``, ``unit`` and
        ``value``, which is missing where it is undefined.
        """
        import pandas as pd

        names, rows = [field.name for field in dataclasses.fields(Point)], []
        for cell in (one for each in self.done for one in (dataclasses.replace(each, repeats=()), *each.repeats)):
            asked = {name: getattr(cell.point, name) for name in names}
            asked["tree"] = cell.point.tree and str(cell.point.tree)
            own = {"cell_id": cell.measured.cell_id, "device": cell.measured.device, "finished": cell.measured.finished}
            for quantity in QUANTITIES.values():
                if quantity.formula is None or (quantity.timed and cell.point.batch is None):
                    continue
                if quantity.applies(vanilla=cell.point.tree is None):
                    said = {"quantity": quantity.name, "unit": quantity.unit}
                    rows.append(asked | own | said | {"value": float(quantity.formula(cell.total))})
        return pd.DataFrame(rows, columns=[*names, "cell_id", "device", "finished", "quantity", "unit", "value"])


def mixtures(measured: Mapping[Point, Measured]) -> list[str]:
    """Sentences about cells that look alike and are of different checkpoints, questions or versions."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for point, cell in measured.items():
        prints = cell.fingerprints
        if prints is not None:
            kinds.setdefault(("checkpoints of the target", point.target), set()).add(prints.target)
            what = f"{point.benchmark} for {point.target}"
            kinds.setdefault(("sets of questions", f"{what}, {point.questions} of them"), set()).add(prints.prompts)
            kinds.setdefault(("versions of the engine", point.engine), set()).add(prints.engine)
    return [f"{len(found)} {what} ({of})" for (what, of), found in kinds.items() if len(found) > 1]


def results_of(points: Iterable[Point], measured: Mapping[Point, Measured], *, authors: bool = False) -> Results:
    """The results of some points; those of others are left aside. A repeat is part of its cell's, where that is asked;
    so are repeats beyond those asked for, which a run makes of cells whose times are unstable.

    Args:
        authors: acceptance is counted as in the authors' evaluation (`rounds.as_authors_count`).

    Raises:
        StoreError: samples that contradict themselves or what was asked, or do not list the rounds that ``authors``
            needs; names the cell.
    """
    asked = tuple(points)
    firsts = {dataclasses.replace(point, questions=0): point for point in asked if not point.repeat}
    known = set(asked)
    asked += tuple(
        point
        for point in measured
        if point.repeat > 1
        and point not in known
        and dataclasses.replace(point, repeat=1) in known
        and dataclasses.replace(point, repeat=0, questions=0) in firsts
    )
    found = {point: _cell(point, measured[point], authors=authors) for point in asked if point in measured}
    alone: list[Point] = []
    repeats: dict[Point, tuple[Point, ...]] = {}
    for point in asked:
        first = firsts.get(dataclasses.replace(point, repeat=0, questions=0)) if point.repeat else None
        if first is None:
            alone.append(point)
        else:
            repeats[first] = (*repeats.get(first, ()), point)
    cells = {point: _with_repeats(found[point], repeats.get(point, ()), found) for point in alone if point in found}
    return Results(tuple(alone), cells, repeats)


def _with_repeats(cell: CellResult, asked: Sequence[Point], found: Mapping[Point, CellResult]) -> CellResult:
    """The cell with those of its repeats that were measured as it was; raises StoreError for other questions."""
    repeats = [found[point] for point in asked if point in found and found[point].setting == cell.setting]
    for repeat in repeats:
        ids = repeat.columns.question_ids
        if ids != cell.columns.question_ids[: len(ids)]:
            what = f"cell {repeat.measured.cell_id}: its questions are not the first of cell {cell.measured.cell_id}"
            raise StoreError(what, "its repeat can say nothing; measure into another --runs-dir")
    return dataclasses.replace(cell, repeats=tuple(repeats), lacks_repeats=len(repeats) < len(asked))


def _cell(point: Point, measured: Measured, *, authors: bool) -> CellResult:
    if authors and point.batch is None and point.engine != "artifact":
        samples = tuple(_counted_as_authors(sample) for sample in measured.samples)
        if None in samples:
            raise StoreError(
                f"cell {measured.cell_id}: its samples do not list their rounds, which --count authors needs",
                "an earlier version measured it; leave the option out, or measure into another --runs-dir",
            )
        measured = dataclasses.replace(measured, samples=tuple(each for each in samples if each is not None))
    try:
        return CellResult(point, measured, checked_columns(point, measured.samples, measured.wall_seconds))
    except ValueError as error:
        hint = "the engine that measured it is at fault; please report this"
        raise StoreError(f"cell {measured.cell_id}: {error}", hint) from None


def _counted_as_authors(sample: Sample) -> Sample | None:
    """The sample with the authors' rounds, or as it is where there are none; None where its rounds are not listed."""
    if not sample.rounds:
        return sample
    histogram = as_authors_count(sample)
    return None if histogram is None else dataclasses.replace(sample, histogram=histogram, accepted=())


def checked_columns(point: Point, samples: Sequence[Sample], wall_seconds: float) -> Columns:
    """The columns of what was measured of a point; raises ValueError where that cannot be an answer to it."""
    steps = point.tree.steps if point.tree else 0
    columns = columns_of(samples, steps)
    if len(samples) != point.questions:
        raise ValueError(f"{len(samples)} questions were answered, {point.questions} were asked")
    if point.tree is not None and columns.histograms[:, steps + 1 :].any():
        raise ValueError(f"more drafts were accepted in a round than the tree {point.tree} has steps")
    if point.tree is None and columns.rounds.any():
        raise ValueError("rounds were counted, but nothing drafts")
    if point.batch is not None:
        for sample in samples:
            stages = zip(STAGES, sample.stage_seconds or (0.0,) * len(STAGES), strict=True)
            for name, seconds in (("prefill", sample.prefill_seconds), ("decode", sample.decode_seconds), *stages):
                if not (math.isfinite(seconds) and seconds >= 0):
                    raise ValueError(f"question {sample.question_id}: its {name} took {seconds} seconds")
        if not (math.isfinite(wall_seconds) and wall_seconds >= 0):
            raise ValueError(f"the run took {wall_seconds} seconds")
    # All of a tree's histograms are as long, or those of several benchmarks would not add up.
    return dataclasses.replace(columns, histograms=columns.histograms[:, : steps + 1])
