"""Assignments: what engines are started for, what they keep, and the order of what is timed."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from timed_experiments import experiment

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment, EngineCapacity
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
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
        ("sglang", "mini-llama-2", "float32", "", drafter, drafting)
        for drafter, drafting in (
            ("vanilla", "exact"),
            ("eagle2", "exact"),
            ("eagle2", "stock"),
            ("prism", "exact"),
            ("prism", "stock"),
        )
    }


def test_flags_that_concern_a_cell_alone_divide_neither_assignments_nor_servers() -> None:
    """T = 1 of a benchmark with several turns is measured right after its T = 0, by the same server."""
    points = timed("table", Options(paper_compat=True, drafters=("prism",)), temperatures=[0, 1])
    vanilla, prism = made(*points)
    assert [cell.point for cell in prism.cells] == [point for point in points if point.drafter == "prism"]
    assert prism.affinity == ("sglang", "mini-llama-2", "float32", "graphs-batch-1,warm-cache", "prism", "exact")
    assert vanilla.affinity[:4] == prism.affinity[:4]
    assert "greedy-second-temperature" in prism.cells[1].point.compat


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


def test_vanilla_first_then_the_drafters_in_their_order_by_falling_batch() -> None:
    points = timed(options=Options(drafters=("prism", "eagle2")), batches=[2, 8, 4])
    found = [(one.cells[0].point.drafter, one.cells[0].point.batch) for one in made(*reversed(points))]
    wanted = [("vanilla", 8), ("vanilla", 4), ("vanilla", 2), ("eagle2", 8), ("eagle2", 4), ("eagle2", 2)]
    assert found == [*wanted, ("prism", 8), ("prism", 4), ("prism", 2)]


def test_the_largest_tree_first() -> None:
    points = timed("trees", trees=["3,2,6", "8,10,64", "7,10,64", "5,8,32"], benchmarks=["mt_bench"])
    assert [str(one.tree) for one in made(*points)] == ["8,10,64", "7,10,64", "5,8,32", "3,2,6"]


def test_drafters_follow_each_other_as_the_suite_lists_them() -> None:
    """EAGLE-2 and HASS are swapped by their weights: nothing may come between them, whichever figure asks first."""
    points = [*timed(), *timed("table", Options(drafters=("standard", "eagle2", "hass", "prism")))]
    cells = {point: Cell(point, Fingerprints("", None, "", "", "")) for point in points}
    folders = {point: (Path(point.target), None if point.drafter == "vanilla" else Path("d")) for point in points}
    order = [one.cells[0].point.drafter for one in make_assignments(cells, folders, {}, tuple(MINI.drafters))]
    assert list(dict.fromkeys(order)) == ["vanilla", "standard", "eagle2", "hass", "prism"]
    assert sum(before != after for before, after in itertools.pairwise(order)) == 4


@pytest.mark.parametrize("seed", range(20))
def test_little_is_loaded_anew(seed: int) -> None:
    """Every beginning of an affinity is one uninterrupted stretch, in whatever order the points came."""
    points = [
        *timed("table", Options(drafting="both"), roles=BOTH),
        *timed("table", Options(paper_compat=True), roles=BOTH),
        *timed(roles=BOTH),
        *expand(experiment("table", roles=BOTH), MINI, Options(engine="torch", drafters=("prism",))),
    ]
    random.Random(seed).shuffle(points)
    order = [one.affinity for one in made(*points)]
    for parts in range(1, 7):
        beginnings = [affinity[:parts] for affinity in order]
        changes = sum(before != after for before, after in itertools.pairwise(beginnings))
        assert changes == len(set(beginnings)) - 1
    first = {affinity[:4]: affinity for affinity in reversed(order)}
    assert {affinity[4] for beginning, affinity in first.items() if beginning[0] == "sglang"} == {"vanilla"}
