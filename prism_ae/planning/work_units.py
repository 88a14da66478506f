"""Cells to assignments: which cells are measured together, by an engine of which capacity, in which order. Pure.

Cells whose time is not measured come first, the longest assignments at the front, so that no worker is left with a
long one at the end. The timed ones follow in *blocks*: one target, benchmark, temperature and batch, all methods and
draft trees directly one after the other, so that what disturbs the machine for a while disturbs all that is compared.
The order within a block is rotated from block to block: no method is always the first, or always follows the same one.
A repeat of everything comes after the whole of what was before, minutes later.

Where an engine has to be started for another method (on GPUs), a worker keeps to one method of a repeat (`_affinity`
names the repeat before the drafter), and a block is a repeat of all benchmarks.
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
    return (*untimed, *_in_blocks([one for one in assignments if one.timed], drafters))


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
    alone = () if point.batch is None else _block(point)
    return *_started(point), *drafter, point.drafting, point.tree, point.batch, alone


def _block(point: Point) -> tuple[object, ...]:
    """Timed points alike in this, and in how their engine is started, are compared with each other."""
    return point.repeat, point.batch, point.benchmark, point.temperature


def _affinity(point: Point, target: Path) -> tuple[str, ...]:
    """SGLang's server is started for one target, data type, set of flags, drafter and, on a GPU, tree; every other
    engine only keeps the target in its data type and swaps the rest."""
    if point.engine != "sglang":
        return point.engine, str(target), point.dtype
    flags = ",".join(server_flags(point.compat))
    of_server = point.drafter, point.drafting, str(point.tree)
    return point.engine, str(target), point.dtype, flags, str(point.repeat), *of_server


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


def _in_blocks(timed: Sequence[Assignment], drafters: Sequence[str]) -> list[Assignment]:
    """Target by target, repeat by repeat, the largest batches first (what does not fit is known early), block by block;
    within a block vanilla first, then in the order of ``drafters`` and the largest trees first, rotated by the block's
    number."""
    places = {name: place for place, name in enumerate(drafters)}
    whole: dict[tuple[object, ...], list[Assignment]] = {}
    for one in timed:
        point = one.cells[0].point
        whole.setdefault((*_started(point), *_block(point)), []).append(one)
    started: dict[tuple[object, ...], int] = {}
    for one in timed:
        started.setdefault(_started(one.cells[0].point), len(started))

    def early(block: Sequence[Assignment]) -> tuple[int, int, int]:
        point = block[0].cells[0].point
        return started[_started(point)], point.repeat, -(point.batch or 1)

    def place(one: Assignment) -> tuple[bool, int, str, tuple[int, ...]]:
        point, tree = one.cells[0].point, one.tree
        sizes = (tree.verified, tree.steps, tree.branch) if tree else ()
        return (
            one.drafter_path is not None,
            places.get(point.drafter, len(places)),
            point.drafting,
            tuple(-size for size in sizes),
        )

    ordered = []
    for number, block in enumerate(sorted(whole.values(), key=early)):
        in_order = sorted(block, key=place)
        first = number % len(in_order)
        ordered += [*in_order[first:], *in_order[:first]]
    return ordered
