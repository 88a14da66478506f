"""Loads: what workers read and start while they take a plan's assignments."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from timed_experiments import experiment

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.planning.load_count import Loads, count_loads
from prism_ae.planning.work_units import make_assignments
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")


def made(*points: Point) -> tuple[Assignment, ...]:
    cells = {point: Cell(point, Fingerprints("", None, "", "", "")) for point in points}
    folders = {
        point: (
            Path(point.target),
            Path(point.drafter, str(point.scale)) if PAPER.drafters[point.drafter].has_checkpoint else None,
        )
        for point in points
    }
    return make_assignments(cells, folders, {}, tuple(PAPER.drafters))


def asked(name: str, **options: object) -> tuple[Point, ...]:
    return expand(load_experiment(name), PAPER, Options(**options))  # type: ignore[arg-type]


def test_one_worker_reads_each_target_once_and_each_drafter() -> None:
    points = asked("figure4", drafters=("eagle2", "hass"))
    assert count_loads(made(*points), 1, on_cpu=False) == Loads(targets=2, drafters=2 * 2 * 5, starts=0)
    assert count_loads((), 1, on_cpu=True) == Loads(0, 0, 0)


def test_every_worker_reads_a_target_of_its_own() -> None:
    points = asked("figure4", targets=("llama-2",), drafters=("eagle2", "hass"))
    assert count_loads(made(*points), 8, on_cpu=False) == Loads(targets=8, drafters=10, starts=0)
    # More workers than work: ten assignments, ten workers.
    assert count_loads(made(*points), 16, on_cpu=False).targets == 10


def test_workers_leave_to_each_other_what_they_hold() -> None:
    """Two workers, two targets with equally much to do: neither reads the other's."""
    points = asked("figure4", drafters=("eagle2", "hass"))
    assert count_loads(made(*points), 2, on_cpu=False).targets == 2


def test_a_target_in_another_dtype_is_another_load() -> None:
    points = asked("figure4", targets=("llama-2",), drafters=("hass",))
    more = [dataclasses.replace(point, dtype="float32") for point in points]
    assert count_loads(made(*points, *more), 1, on_cpu=True).targets == 2


def test_a_tree_is_a_start_on_a_gpu_and_a_setting_on_a_cpu() -> None:
    points = asked("figure8")
    assert len({point.tree for point in points}) == 13
    assert count_loads(made(*points), 1, on_cpu=False) == Loads(0, 0, starts=13 * 3)  # of each repeat
    assert count_loads(made(*points), 1, on_cpu=True) == Loads(0, 0, starts=1)


def test_drafters_and_ways_of_drafting_are_starts_and_batches_are_not() -> None:
    # Vanilla, EAGLE-2 and PRISM in four batches.
    batches = expand(experiment("batches"), PAPER, Options(repeats=1))
    assert count_loads(made(*batches), 1, on_cpu=False).starts == 3
    both = expand(experiment("batches"), PAPER, Options(drafting="both", repeats=1))
    assert count_loads(made(*both), 1, on_cpu=False).starts == 5
    assert count_loads(made(*both), 1, on_cpu=True).starts == 3


def test_an_engine_is_closed_for_another() -> None:
    """Torch, then SGLang: on one worker each of them once, though both read the same target."""
    torch = asked("figure4", targets=("llama-2",), drafters=("hass",), scales=("800k",))
    served = expand(experiment("batches", batches=[2]), PAPER, Options(drafters=("eagle2",)))
    drafters = {point.drafter for point in served}
    assert count_loads(made(*torch, *served), 1, on_cpu=True) == Loads(1, 1, len(drafters))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("on_cpu", [True, False])
def test_loads_lie_between_what_there_is_and_what_all_workers_could_read(seed: int, on_cpu: bool) -> None:
    generator = random.Random(seed)
    points = [*asked("figure4"), *asked("table4"), *asked("figure7"), *asked("drafting"), *asked("figure8")]
    assignments = made(*generator.sample(points, 150))
    torch = [one for one in assignments if one.cells[0].point.engine == "torch"]
    served = [one for one in assignments if one.cells[0].point.engine == "sglang"]
    read = {(one.target_path, one.cells[0].point.dtype) for one in torch}
    # Written out once more, from what a server cannot change while it runs.
    servers = {(*one.affinity[:4], *one.affinity[5 : 6 if on_cpu else None]) for one in served}
    repeats = 1 if on_cpu else 3  # on GPUs each of them may start it anew
    for workers in (1, 2, 5, 8):
        loads = count_loads(assignments, workers, on_cpu=on_cpu)
        assert len(read) <= loads.targets <= min(len(torch), workers * len(read))
        assert len(servers) <= loads.starts <= min(len(served), workers * len(servers) * repeats)
        assert loads.drafters == sum(one.drafter_path is not None for one in torch)
        assert loads == count_loads(assignments, workers, on_cpu=on_cpu)
    if on_cpu:
        alone = count_loads(assignments, 1, on_cpu=on_cpu)
        assert (alone.targets, alone.starts) == (len(read), len(servers))
