"""Assignments: what engines are started for, what they keep, and the order of what is timed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from timed_experiments import experiment

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment, EngineCapacity
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.planning.queue import Queue
from prism_ae.planning.work_units import make_assignments
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")
BOTH = ("llama-2", "llama-3")


def made(*points: Point) -> tuple[Assignment, ...]:
    cells = {point: Cell(point, Fingerprints("", None, "", "", "")) for point in points}
    folders = {point: (Path(point.target), None if point.drafter == "vanilla" else Path("d")) for point in points}
    return make_assignments(cells, folders, {})


def timed(kind: str = "batches", options: Options | None = None, **cells: object) -> tuple[Point, ...]:
    return expand(experiment(kind, **cells), MINI, options or Options())


def test_torch_keeps_a_target_and_sglang_a_server() -> None:
    torch, *_ = made(*expand(load_experiment("figure5"), MINI, Options(scales=("8x",), drafters=("prism",))))
    assert torch.affinity == ("torch", "mini-llama-3", "float32")
    assert not torch.timed
    kept = {one.affinity for one in made(*timed(options=Options(drafting="both")))}
    assert kept == {
        ("sglang", "mini-llama-2", "float32", "", str(repeat), drafter, drafting, tree)
        for drafter, drafting, tree in (
            ("vanilla", "exact", "None"),
            ("eagle2", "exact", "6,4,16"),
            ("eagle2", "stock", "6,4,16"),
            ("prism", "exact", "6,4,16"),
            ("prism", "stock", "6,4,16"),
        )
        for repeat in range(3)
    }


def test_flags_that_concern_a_cell_alone_divide_neither_assignments_nor_servers() -> None:
    """T = 1 of a benchmark with several turns is measured right after its T = 0, by the same server."""
    points = timed("table", Options(paper_compat=True, drafters=("prism",), repeats=1), temperatures=[0, 1])
    several = made(*points)
    served = ("sglang", "mini-llama-2", "float32", "graphs-batch-1,warm-cache", "0")
    assert {one.affinity for one in several} == {
        (*served, "vanilla", "exact", "None"),
        (*served, "prism", "exact", "6,4,16"),
    }
    two_turns = [
        cell.point for one in several for cell in one.cells if "greedy-second-temperature" in cell.point.compat
    ]
    assert {point.temperature for point in two_turns} == {1.0}


def test_an_engine_is_started_for_the_most_that_it_will_be_asked() -> None:
    batches = timed(options=Options(drafters=("prism",)))
    trees = timed("trees", trees=["3,8,16", "8,2,20", "5,4,12"], benchmarks=["mt_bench"])
    other_target = timed("table", roles=["llama-3"])
    imitated = timed("table", Options(paper_compat=True))
    acceptance = expand(load_experiment("figure10"), MINI, Options(scales=("8x",)))
    points = (*batches, *trees, *other_target, *imitated, *acceptance)
    found = {cell.point: one.capacity for one in made(*points) for cell in one.cells}
    assert {found[point] for point in (*batches, *trees)} == {EngineCapacity(16, 8, 8, 20, 512)}
    assert {found[point] for point in (*other_target, *imitated)} == {EngineCapacity(1, 6, 4, 16, 512)}
    assert {found[point] for point in acceptance} == {EngineCapacity(1, 4, 4, 16, 512)}
    vanilla = [point for point in batches if point.drafter == "vanilla"]
    assert {one.capacity for one in made(*vanilla)} == {EngineCapacity(16, 0, 0, 0, 512)}


def test_an_assignment_has_one_batch_one_tree_and_one_way_of_drafting() -> None:
    points = (*timed(options=Options(drafting="both"), roles=BOTH), *timed("trees"))
    for one in made(*points):
        keys = {
            (p.target, p.drafter, p.scale, p.tree, p.engine, p.batch, p.drafting, p.dtype)
            for p in (cell.point for cell in one.cells)
        }
        assert len(keys) == 1
        assert one.timed


def test_what_is_timed_comes_last() -> None:
    acceptance = expand(load_experiment("figure5"), MINI, Options(scales=("8x",)))
    kinds = [one.timed for one in made(*timed(), *acceptance)]
    assert kinds == sorted(kinds)
    assert set(kinds) == {False, True}


def place(one: Assignment) -> tuple[object, ...]:
    """The block: what is alike about everything that is compared."""
    (cell,) = one.cells
    point = cell.point
    return point.target, point.repeat, point.batch, point.benchmark, point.temperature


def order(points: Sequence[Point], *drafters: str) -> tuple[Assignment, ...]:
    cells = {point: Cell(point, Fingerprints("", None, "", "", "")) for point in points}
    folders = {point: (Path(point.target), None if point.drafter == "vanilla" else Path("d")) for point in points}
    return make_assignments(cells, folders, {}, drafters)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_compared_is_measured_directly_one_after_the_other(seed: int) -> None:
    """Every block is one uninterrupted stretch, a repeat of a target comes after all of the one before, and the largest
    batches of a repeat come first, in whatever order the points came."""
    points = [*timed("table", roles=BOTH, temperatures=[0, 1]), *timed(roles=BOTH), *timed("trees")]
    random.Random(seed).shuffle(points)
    blocks = [place(one) for one in order(points)]
    assert sum(before != after for before, after in itertools.pairwise(blocks)) == len(set(blocks)) - 1
    for target in ("mini-llama-2", "mini-llama-3"):
        stretch = [number for number, block in enumerate(blocks) if block[0] == target]
        assert stretch == list(range(stretch[0], stretch[-1] + 1))
        asked = [(block[1], -int(str(block[2]))) for block in blocks if block[0] == target]
        assert asked == sorted(asked)
        assert {repeat for repeat, _ in asked} == {0, 1, 2}


def test_within_a_block_methods_take_turns_at_being_first() -> None:
    points = timed(
        "table", Options(drafters=("prism", "eagle2"), repeats=1), benchmarks=["qa", "sum", "gsm8k", "alpaca"]
    )
    found = order(points, "vanilla", "eagle2", "prism")
    methods = [[one.cells[0].point.drafter for one in block] for _, block in itertools.groupby(found, key=place)]
    first = ["vanilla", "eagle2", "prism"]
    assert methods == [first, [*first[1:], first[0]], [first[2], *first[:2]], first]


def test_the_largest_tree_first() -> None:
    options = Options(repeats=1)
    points = timed("trees", options, trees=["3,2,6", "8,10,64", "7,10,64", "5,8,32"], benchmarks=["mt_bench"])
    assert [str(one.tree) for one in made(*points)] == ["8,10,64", "7,10,64", "5,8,32", "3,2,6"]


def test_where_servers_are_started_anew_a_worker_keeps_to_one_method_of_a_repeat() -> None:
    """On GPUs: as many stretches as there are repeats of servers."""
    points = timed("table", roles=BOTH, temperatures=[0, 1])
    queue, held, stretches = Queue(made(*points), alone=False), (), []
    while queue.waiting:
        taken = queue.take(held, [])
        assert taken is not None
        queue.over(taken)
        stretches += [taken.affinity] if taken.affinity != held else []
        held = taken.affinity
    assert len(stretches) == len(set(stretches)) == 2 * 3 * len({point.drafter for point in points})
    for target in ("mini-llama-2", "mini-llama-3"):
        repeats = [affinity[4] for affinity in stretches if affinity[1] == target]
        assert repeats == sorted(repeats)
