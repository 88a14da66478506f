"""The search on made-up surfaces, against trying every tree."""

from __future__ import annotations

import dataclasses

import pytest
from tuning.surfaces import SETTING, STEP, MadeUp, bent_cost, linear_cost, tokens

from prism_ae.cells import TreeShape
from prism_ae.errors import DeviceError
from prism_ae.tuning.points import PER_PLACE
from prism_ae.tuning.report import as_data, as_lines, verdict, write
from prism_ae.tuning.space import all_trees
from prism_ae.tuning.tune import Effort, tune

SMALL = (TreeShape(1, 1, 2), TreeShape(3, 1, 4), TreeShape(4, 4, 16), TreeShape(6, 10, 60))


@pytest.mark.parametrize("quality", [0.2, 0.4, 0.55, 0.7])
@pytest.mark.parametrize("cost", [linear_cost, bent_cost])
def test_the_best_tree_is_found_without_trying_all(cost: object, quality: float) -> None:
    bench = MadeUp(cost, quality)  # type: ignore[arg-type]
    found = tune(SETTING, all_trees(), Effort(batches=(1,)), bench)
    speeds = {tree: tokens(tree, quality) / bench.cost(tree) for tree in all_trees()}
    assert speeds[found.best.tree] >= 0.97 * max(speeds.values())
    assert found.best.speed_up == pytest.approx(speeds[found.best.tree], rel=1e-3)
    assert bench.looked < len(all_trees()) / 2
    if cost is linear_cost:
        assert speeds[found.best.tree] == pytest.approx(max(speeds.values()), rel=1e-3)
        assert found.model.error < 1e-6


def test_a_slow_block_changes_nothing_and_noise_little() -> None:
    """Whole blocks are up to three times as slow as others; within one, seconds differ by 2 % either way."""
    found = tune(SETTING, all_trees(), Effort(batches=(1,), blocks=5), MadeUp(linear_cost, noise=0.02))
    speeds = {tree: tokens(tree) / linear_cost(tree) for tree in all_trees()}
    assert speeds[found.best.tree] >= 0.97 * max(speeds.values())
    low, high = found.best.spread
    assert low <= found.best.speed_up <= high


def test_what_is_compared_is_timed_in_one_block() -> None:
    bench = MadeUp(linear_cost)
    tune(SETTING, SMALL, Effort(finalists=2, calibration=3, batches=(1, 4), blocks=2), bench)
    blocks = [(what, points) for what, points in bench.asked if points[0].batch is not None]
    assert [what.split(",")[0] for what, _ in blocks] == [
        f"time of the {what}" for what in ("calibration", "finals", "batch sizes") for _ in range(2)
    ]
    for _, points in blocks:
        assert len({point.repeat for point in points}) == 1
        assert points[0].repeat >= 1
        assert {point.batch for point in points if point.tree is None} == {point.batch for point in points}
        assert all(point.questions >= PER_PLACE * (point.batch or 0) for point in points)


def test_a_tuning_that_is_continued_measures_nothing_twice_and_no_block_in_parts() -> None:
    bench, effort = MadeUp(linear_cost), Effort(finalists=9, batches=(1,), blocks=2)
    first = tune(SETTING, SMALL, effort, bench)
    measured = len(bench.measured)
    assert tune(SETTING, SMALL, effort, bench).finals == first.finals
    assert len(bench.measured) == measured
    lost = next(point for point in bench.measured if point.tree == SMALL[0] and point.repeat == 1)
    del bench.measured[lost]
    again = tune(SETTING, SMALL, effort, bench)
    assert lost not in bench.measured, "its block was begun before, and is not mixed with seconds of today"
    assert max(point.repeat for point in bench.measured) == 3
    assert again.best.tree == first.best.tree


def test_with_as_many_finalists_as_trees_all_are_timed() -> None:
    bench = MadeUp(bent_cost)
    found = tune(SETTING, SMALL, Effort(finalists=4, batches=(1,)), bench)
    assert [timed.tree for timed in found.finals] == sorted(SMALL, key=lambda tree: -tokens(tree) / bent_cost(tree))
    assert not [what for what, _ in bench.asked if "calibration" in what]


def test_seconds_of_two_devices_are_not_compared() -> None:
    bench, effort = MadeUp(linear_cost), Effort(finalists=4, batches=(1, 2), blocks=1)
    tune(SETTING, SMALL, effort, bench)
    other = next(point for point in bench.measured if point.batch == 2)
    bench.measured[other] = dataclasses.replace(bench.measured[other], device="another")
    with pytest.raises(DeviceError, match=r"a device, another"):
        tune(SETTING, SMALL, effort, bench)


def test_the_report_says_what_was_found(tmp_path: object) -> None:
    found = tune(SETTING, SMALL, Effort(finalists=4), MadeUp(linear_cost))
    best = found.best
    assert best.tps == pytest.approx(best.tokens_per_round / (STEP * best.cost), rel=1e-3)
    assert best.vanilla_tps == pytest.approx(1 / STEP)
    for timed in found.curve:
        expected = tokens(best.tree) / linear_cost(best.tree) / (1 + 0.1 * (timed.batch - 1))
        assert timed.speed_up == pytest.approx(expected, rel=1e-3)
    where = found.pays_below
    assert where is not None
    assert verdict(found) == f"drafting pays below a batch of about {where:.0f}"
    lines = as_lines(SETTING, found, "--speculative-num-steps 9")
    assert lines[-1] == "--speculative-num-steps 9"
    assert str(best.tree) in lines[2]
    data = as_data(SETTING, found, "")
    assert data["tree"] == str(best.tree)
    assert data["does_not_pay_from_batch"] == where
    short = dataclasses.replace(found, curve=found.curve[:1])
    assert verdict(short) == "drafting pays at batch 1"
    slow = tune(SETTING, SMALL, Effort(finalists=4), MadeUp(lambda tree: 9 * linear_cost(tree)))
    assert verdict(slow) == "drafting does not pay, not even at batch 1"
    assert as_lines(SETTING, slow, "--x")[-1] == "no drafts are faster; the best tree's options: --x"


def test_the_same_results_give_the_same_files(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    found = tune(SETTING, SMALL, Effort(finalists=4), MadeUp(linear_cost))
    files = write(folder, SETTING, found, "--x")
    assert [file.name for file in files] == [f"mini-llama-2-prism-8x{end}" for end in (".pdf", ".csv", ".json")]
    before = [file.read_bytes() for file in files]
    assert before[0].startswith(b"%PDF")
    write(folder, SETTING, found, "--x")
    assert [file.read_bytes() for file in files] == before
