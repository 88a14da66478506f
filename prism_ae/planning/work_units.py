"""Cells to assignments: which cells are measured together, by an engine of which capacity, in which order. Pure.

Cells whose time is not measured come first, the longest assignments at the front, so that no worker is left with a
long one at the end. The timed ones follow, in an order in which little has to be loaded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prism_ae.cells import Cell, Point
from prism_ae.engines.protocol import Assignment, EngineCapacity
from prism_ae.suites.compat import server_flags

Folders = tuple[Path, Path | None]
"""Of target and drafter; None for vanilla."""


def make_assignments(
    cells: Mapping[Point, Cell],
    folders: Mapping[Point, Folders],
    seconds: Mapping[str, float],
    drafters: Sequence[str] = (),
) -> tuple[Assignment, ...]:
    """The assignments for these cells, in order of preference.

    Args:
        folders: of the same points.
        seconds: cell id -> expected seconds, where they are known.
        drafters: names in an order in which those of one architecture are neighbours.
    """
    capacities = {key: _capacity(group) for key, group in _groups(cells, _started).items()}
    assignments = []
    for group in _groups(cells, _together).values():
        first = group[0]
        target, drafter = folders[first]
        assignments.append(
            Assignment(
                cells=tuple(cells[point] for point in group),
                target_path=target,
                drafter_path=drafter,
                affinity=_affinity(first, target),
                capacity=capacities[_started(first)],
            )
        )
    untimed = [one for one in assignments if not one.timed]
    untimed.sort(key=lambda one: _length(one, seconds), reverse=True)
    return (*untimed, *_close_together([one for one in assignments if one.timed], drafters))


def _groups(
    points: Iterable[Point], key: Callable[[Point], tuple[object, ...]]
) -> dict[tuple[object, ...], list[Point]]:
    groups: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        groups.setdefault(key(point), []).append(point)
    return groups


def _started(point: Point) -> tuple[object, ...]:
    """Points alike in this are measured by one started engine."""
    return point.engine, point.target, point.dtype, server_flags(point.compat)


def _together(point: Point) -> tuple[object, ...]:
    """Points alike in this make one assignment."""
    drafter = point.drafter, point.scale, point.training_seed
    return *_started(point), *drafter, point.drafting, point.tree, point.batch


def _affinity(point: Point, target: Path) -> tuple[str, ...]:
    """SGLang's server is started for one target, data type, set of flags and drafter; every other engine only keeps the
    target in its data type and swaps the rest."""
    if point.engine != "sglang":
        return point.engine, str(target), point.dtype
    flags = ",".join(server_flags(point.compat))
    return point.engine, str(target), point.dtype, flags, point.drafter, point.drafting


def _capacity(points: Sequence[Point]) -> EngineCapacity:
    trees = [point.tree for point in points if point.tree is not None]
    return EngineCapacity(
        max_batch=max(point.batch or 1 for point in points),
        max_steps=max((tree.steps for tree in trees), default=0),
        max_branch=max((tree.branch for tree in trees), default=0),
        max_verified=max((tree.verified for tree in trees), default=0),
        max_seq_len=max(point.max_length for point in points),
    )


def _length(assignment: Assignment, seconds: Mapping[str, float]) -> tuple[float, float]:
    """For the order only: most tokens to generate first, and among equals the one that took longer before."""
    tokens = sum(cell.point.questions * cell.point.max_new_tokens for cell in assignment.cells)
    return float(tokens), sum(seconds.get(cell.id, 0.0) for cell in assignment.cells)


def _close_together(timed: Sequence[Assignment], drafters: Sequence[str]) -> list[Assignment]:
    """Equal beginnings of the affinity side by side, vanilla first, then in the order of ``drafters`` (an engine swaps
    those of one architecture), others as they first occur. Within one affinity the largest trees first, then the
    largest batches: what does not fit is known early."""
    places = {name: place for place, name in enumerate(drafters)}
    vanilla_first = sorted(
        timed, key=lambda one: (one.drafter_path is not None, places.get(one.cells[0].point.drafter, len(places)))
    )
    rank: dict[tuple[str, ...], int] = {}
    for one in vanilla_first:
        for parts in range(1, len(one.affinity) + 1):
            rank.setdefault(one.affinity[:parts], len(rank))

    def place(one: Assignment) -> tuple[tuple[int, ...], bool, tuple[int, ...], int]:
        ranks = tuple(rank[one.affinity[:parts]] for parts in range(1, len(one.affinity) + 1))
        tree = (one.tree.verified, one.tree.steps, one.tree.branch) if one.tree else (0, 0, 0)
        batch = one.cells[0].point.batch
        assert batch is not None
        return ranks, one.drafter_path is not None, tuple(-size for size in tree), -batch

    return sorted(vanilla_first, key=place)
