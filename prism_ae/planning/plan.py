"""Which cells have to be measured, in which order, and which cannot be: decided before any device is taken.

Points become cells by adding the fingerprints of the models and engines that are here; a point whose model is missing,
or which its engine cannot measure, becomes a `MissingCell` with a reason. Which cells are measured together, and in
which order, is decided in `work_units`. Pure: models and engines (`Lookup`) and finished records are passed in.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from typing import Protocol

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment
from prism_ae.errors import PrismError
from prism_ae.models.locate import Absent, DrafterKey, Located, Parameterless
from prism_ae.planning.work_units import Folders, make_assignments
from prism_ae.store.records import Record


class Lookup(Protocol):
    """The models, prompts and engines that are here. Names are those of the suite."""

    def target(self, target: str) -> Located | Absent: ...

    def drafter(self, key: DrafterKey) -> Located | Parameterless | Absent | None:
        """The checkpoint of this drafter, or its options; None for vanilla, which has neither."""
        ...

    def prompts(self, target: str, benchmark: str, questions: int) -> str:
        """Their fingerprint; raises PrismError when the questions are not there."""
        ...

    def engine(self, engine: str) -> tuple[str, str]:
        """Version and verifier."""
        ...

    def pair_problem(self, point: Point) -> PrismError | None:
        """Why target and drafter, which are both here, cannot be measured together by the point's engine; or None."""
        ...

    def engine_problem(self, point: Point) -> str:
        """Why the point's engine cannot measure it, or ""."""
        ...


@dataclasses.dataclass(frozen=True)
class MissingCell:
    """A cell that cannot be measured now: why, and what to do about it ("" where nothing can be done)."""

    point: Point
    reason: str
    hint: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Points as cells.

    Attributes:
        cells: point -> cell, in the order asked, for every point that can be measured.
        folders: the same points -> folders of target and drafter (None for vanilla).
        missing: the other points.
        drafters: names in an order in which those of one architecture are neighbours.
    """

    cells: Mapping[Point, Cell]
    folders: Mapping[Point, Folders]
    missing: tuple[MissingCell, ...]
    drafters: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class TimeEstimate:
    """Working time of the cells to measure, from finished cells like them.

    Attributes:
        seconds: of one worker, for the ``known`` cells.
        timed: the part of ``seconds`` for cells whose time is measured, which on a CPU run one after the other.
        unknown: cells without a finished one to judge by.
        devices: names of those that the finished ones were measured on.
    """

    seconds: float
    timed: float
    known: int
    unknown: int
    devices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        done: points with a result, and the record that speaks for each: that of its cell or, where its model is not
            here and no cell can be named, the newest finished one of the very same point. Finished repeats beyond
            those asked for are among them.
        from_store_only: those of ``done`` whose model is not here.
        failed: id of a cell whose last attempt failed -> message; it is tried again.
        assignments: what to measure, in order of preference.
        missing: points without a result that cannot be measured now.
    """

    done: Mapping[Point, Record]
    from_store_only: frozenset[Point]
    failed: Mapping[str, str]
    assignments: tuple[Assignment, ...]
    missing: tuple[MissingCell, ...]
    estimate: TimeEstimate

    @property
    def total(self) -> int:
        """Points asked for."""
        return len(self.done) + self.to_measure + len(self.missing)

    @property
    def to_measure(self) -> int:
        return sum(len(assignment.cells) for assignment in self.assignments)

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that have to be loaded."""
        return tuple(sorted({assignment.cells[0].point.target for assignment in self.assignments}))


def resolve(points: Iterable[Point], lookup: Lookup, drafters: Iterable[str] = ()) -> Resolved:
    """Points as cells; a point asked twice counts once. ``drafters``: see `Resolved`; a suite lists them so."""
    cells: dict[Point, Cell] = {}
    folders: dict[Point, Folders] = {}
    missing: list[MissingCell] = []
    for point in dict.fromkeys(points):
        found = _resolve(point, lookup)
        if isinstance(found, MissingCell):
            missing.append(found)
        else:
            cells[point], folders[point] = found
    return Resolved(cells, folders, tuple(missing), tuple(drafters))


def _resolve(point: Point, lookup: Lookup) -> tuple[Cell, Folders] | MissingCell:
    if problem := point.unfilled_batch:
        return MissingCell(point, problem, f"ask for more with --questions {point.batch}")
    if problem := lookup.engine_problem(point):
        return MissingCell(point, problem, "choose another engine with --engine")
    target = lookup.target(point.target)
    drafter = lookup.drafter(DrafterKey.of(point))
    absent = [found for found in (target, drafter) if isinstance(found, Absent)]
    if absent:
        # What cannot be had at all is the cause, whether or not the other is here.
        cause = min(absent, key=lambda one: bool(one.hint))
        return MissingCell(point, cause.reason, cause.hint)
    assert isinstance(target, Located)
    assert not isinstance(drafter, Absent)
    if unfit := lookup.pair_problem(point):
        return MissingCell(point, unfit.what, unfit.hint)
    try:
        prompts = lookup.prompts(point.target, point.benchmark, point.questions)
        version, verifier = lookup.engine(point.engine)
    except PrismError as error:
        return MissingCell(point, error.what, error.hint)
    drafter_fingerprint = drafter.fingerprint if drafter else None
    cell = Cell(point, Fingerprints(target.fingerprint, drafter_fingerprint, prompts, version, verifier))
    return cell, (target.path, drafter.path if drafter else None)


def make_plan(resolved: Resolved, records: Mapping[str, Record]) -> Plan:
    """What of ``resolved`` is done and what is left, given the store's records by cell id."""
    done: dict[Point, Record] = {}
    left: dict[Point, Cell] = {}
    failed: dict[str, str] = {}
    for point, cell in resolved.cells.items():
        record = records.get(cell.id)
        if record is not None and record.ok:
            done[point] = record
            continue
        left[point] = cell
        if record is not None:
            failed[cell.id] = record.message
    done |= _repeated_beyond(resolved.cells, records.values())
    newest = _newest(records.values()) if resolved.missing else {}
    from_store = {one.point: newest[one.point] for one in resolved.missing if one.point in newest}
    missing = tuple(one for one in resolved.missing if one.point not in newest)
    seconds = _seconds(left.values(), records.values())
    assignments = make_assignments(left, resolved.folders, seconds, resolved.drafters)
    timed = sum(seconds.get(cell.id, 0.0) for point, cell in left.items() if point.batch is not None)
    kinds = {_kind(point) for point in left}
    devices = {record.device for record in records.values() if record.ok and _kind(record.cell.point) in kinds}
    unknown = len(left) - len(seconds)
    estimate = TimeEstimate(sum(seconds.values()), timed, len(seconds), unknown, tuple(sorted(devices)))
    return Plan(done | from_store, frozenset(from_store), failed, assignments, missing, estimate)


def _repeated_beyond(cells: Mapping[Point, Cell], records: Iterable[Record]) -> dict[Point, Record]:
    """The finished repeats of ``cells`` that are not among them: measured again because their times were unstable."""
    found: dict[Point, Record] = {}
    firsts = {dataclasses.replace(point, questions=0) for point in cells if not point.repeat}
    for record in records:
        point = record.cell.point
        of = dataclasses.replace(point, repeat=0, questions=0)
        if record.ok and point.repeat > 1 and point not in cells and of in firsts:
            sibling = cells.get(dataclasses.replace(point, repeat=1))
            if sibling is not None and sibling.fingerprints == record.cell.fingerprints:
                found[point] = record
    return found


def _newest(records: Iterable[Record]) -> dict[Point, Record]:
    """The last finished record of each point; among equally old ones that with the largest id."""
    newest: dict[Point, Record] = {}
    for record in sorted(records, key=lambda record: (record.finished, record.cell.id), reverse=True):
        if record.ok:
            newest.setdefault(record.cell.point, record)
    return newest


def _kind(point: Point) -> tuple[object, ...]:
    """Points of one kind are expected to take equally long."""
    asked = point.questions, point.max_new_tokens, point.dtype
    return point.target, point.drafter, point.tree, point.engine, point.batch, point.drafting, point.compat, *asked


def _seconds(cells: Iterable[Cell], records: Iterable[Record]) -> dict[str, float]:
    """Cell id -> expected seconds of a worker: the mean over finished cells of the same kind, where there are any."""
    measured: dict[tuple[object, ...], list[float]] = {}
    for record in records:
        if record.ok:
            measured.setdefault(_kind(record.cell.point), []).append(record.worker_seconds)
    means = {kind: statistics.fmean(values) for kind, values in measured.items()}
    return {cell.id: means[kind] for cell in cells if (kind := _kind(cell.point)) in means}
