"""Folding timed cells: means, ratios to the right vanilla cell, holes; values recomputed from the samples by hand."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from prism_ae.analysis.entries import QUANTITIES, Entry, fold_times
from prism_ae.analysis.results import Measured, build_frame
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.io.digests import digest

PRISM = Point(
    suite="mini", target="mini-llama-2", drafter="prism", scale="8x", benchmark="qa", temperature=0.0,
    tree=TreeShape(3, 2, 6), engine="sglang", batch=2, questions=5, max_new_tokens=96, max_length=512, seed=42,
    dtype="float32",
)  # fmt: skip
BENCHMARKS = ("gsm8k", "qa", "sum")
EVERY = tuple(
    dataclasses.replace(PRISM, drafter=drafter, benchmark=benchmark, batch=batch, **change)
    for drafter, change in (("vanilla", {"scale": None, "tree": None}), ("prism", {}), ("hass", {}))
    for batch in (1, 2)
    for benchmark in BENCHMARKS
)


def result(point: Point, device: str = "CPU") -> Measured:
    """Random tokens and seconds; two turns per question."""
    draw = np.random.default_rng([*str(point).encode()])
    samples = []
    for number in range(point.questions):
        histogram = tuple(int(count) for count in draw.integers(1, 9, 4)) if point.tree else ()
        tokens = sum((depth + 1) * count for depth, count in enumerate(histogram)) + 2 if point.tree else 40 + number
        prefill, decode = draw.uniform(0.1, 2.0, 2)
        samples.append(
            Sample(f"q{number}", 2, 5, tokens, sum(histogram), histogram, ("end",) * 2, prefill, decode, "0")
        )
    return Measured(digest(point)[:16], tuple(samples), float(draw.uniform(1, 9)), {}, "2026-11-21", device)


MEASURED = {point: result(point) for point in EVERY}


def entries(measured: Mapping[Point, Measured], points: Iterable[Point] = EVERY) -> tuple[Entry, ...]:
    return fold_times(build_frame(points, measured), benchmarks=True)


def only(found: Iterable[Entry], drafter: str, batch: int, benchmark: str) -> Entry:
    (entry,) = (e for e in found if (e.drafter, e.batch, e.benchmark) == (drafter, batch, benchmark))
    return entry


def cells(drafter: str, batch: int, benchmarks: Iterable[str] = BENCHMARKS) -> list[Measured]:
    return [
        MEASURED[point]
        for point in EVERY
        if (point.drafter, point.batch) == (drafter, batch) and point.benchmark in benchmarks
    ]


def tps(cell: Measured) -> float:
    return sum(sample.generated_tokens for sample in cell.samples) / cell.wall_seconds


def summed(listed: Iterable[Measured]) -> tuple[float, float, float]:
    """Tokens after the first of each turn, rounds, decode seconds."""
    samples = [sample for cell in listed for sample in cell.samples]
    later = sum(sample.generated_tokens - sample.turns for sample in samples)
    return later, sum(sample.rounds for sample in samples), sum(sample.decode_seconds for sample in samples)


def test_a_benchmarks_entry_is_its_cell() -> None:
    entry = only(entries(MEASURED), "prism", 2, "qa")
    (cell,), (plain,) = cells("prism", 2, ["qa"]), cells("vanilla", 2, ["qa"])
    (later, rounds, decode), (base, _, steps) = summed([cell]), summed([plain])
    expected = {
        "tps": tps(cell),
        "decode_tps": 2 * later / decode,
        "tokens_per_round": later / rounds,
        "round_seconds": decode / rounds,
        "speed_up": tps(cell) / tps(plain),
        "round_cost": decode / rounds / (steps / base),
        "decode_speed_up": later / decode / (base / steps),
        "al_micro": sum(sample.generated_tokens for sample in cell.samples) / rounds,
        "al_macro": statistics.fmean((s.generated_tokens - 2) / s.rounds for s in cell.samples),
    }
    assert {name: value.value for name, value in entry.values.items()} == pytest.approx(expected)
    assert entry.baseline == pytest.approx(
        {"tps": tps(plain), "decode_tps": 2 * base / steps, "step_seconds": steps / base}
    )
    assert (entry.cell_ids, entry.baseline_ids) == ((cell.cell_id,), (plain.cell_id,))
    for name, value in entry.values.items():
        assert value.bounds is not None, name
        assert value.bounds[0] < value.value < value.bounds[1], name


def test_a_mean_divides_the_mean_tps_and_pools_rounds() -> None:
    """The paper's speed-up is a ratio of means, not a mean of ratios."""
    entry = only(entries(MEASURED), "prism", 2, "")
    mine, plain = cells("prism", 2), cells("vanilla", 2)
    speed_up = statistics.fmean(map(tps, mine)) / statistics.fmean(map(tps, plain))
    assert entry.values["speed_up"].value == pytest.approx(speed_up)
    of_ratios = statistics.fmean(tps(one) / tps(other) for one, other in zip(mine, plain, strict=True))
    assert abs(speed_up - of_ratios) > 0.01
    assert entry.values["tps"].value == pytest.approx(statistics.fmean(map(tps, mine)))
    later, rounds, decode = summed(mine)
    assert entry.values["tokens_per_round"].value == pytest.approx(later / rounds)
    assert entry.values["round_seconds"].value == pytest.approx(decode / rounds)
    quotient = entry.values["tokens_per_round"].value / entry.values["round_cost"].value
    assert entry.values["decode_speed_up"].value == pytest.approx(quotient, rel=1e-12)
    assert (entry.asked, entry.questions, entry.without_rounds) == (3, 15, 0)


def test_vanilla_is_its_own_measure_and_has_no_rounds() -> None:
    entry = only(entries(MEASURED), "vanilla", 1, "")
    assert set(entry.values) == {"tps", "decode_tps", "step_seconds", "speed_up", "decode_speed_up"}
    assert entry.values["speed_up"].value == entry.values["decode_speed_up"].value == 1.0
    assert entry.values["speed_up"].replicates == pytest.approx(np.ones(2000))
    assert entry.vanilla


def test_every_quantity_is_listed() -> None:
    assert {name for entry in entries(MEASURED) for name in entry.values} == set(QUANTITIES)


def test_the_same_questions_are_drawn_for_drafter_and_vanilla() -> None:
    """Twice as fast on every question: no interval about the ratio, whatever the questions are."""
    point = next(p for p in EVERY if (p.drafter, p.batch, p.benchmark) == ("vanilla", 2, "qa"))
    plain = MEASURED[point]
    fast = tuple(
        dataclasses.replace(s, prefill_seconds=s.prefill_seconds / 2, decode_seconds=s.decode_seconds / 2)
        for s in plain.samples
    )
    chain = dataclasses.replace(point, drafter="eagle2", tree=TreeShape(3, 2, 6))
    found = fold_times(
        build_frame(
            [point, chain],
            {point: plain, chain: dataclasses.replace(plain, samples=fast, wall_seconds=plain.wall_seconds / 2)},
        ),
        benchmarks=False,
    )
    assert found[1].values["speed_up"].bounds == pytest.approx((2.0, 2.0))
    low, high = found[1].values["tps"].bounds or (0.0, 0.0)
    assert high - low > 1


def hole(drop: Point) -> tuple[Entry, ...]:
    return entries({point: cell for point, cell in MEASURED.items() if point != drop})


def test_a_missing_cell_is_a_hole_in_the_mean_alone() -> None:
    drop = next(p for p in EVERY if (p.drafter, p.batch, p.benchmark) == ("prism", 1, "sum"))
    found = hole(drop)
    mean = only(found, "prism", 1, "")
    assert (mean.values, mean.baseline, mean.asked, len(mean.cell_ids)) == ({}, {}, 3, 2)
    assert only(found, "prism", 1, "qa").values
    assert only(found, "prism", 2, "").values["speed_up"]


def test_without_vanilla_there_is_no_ratio_but_a_speed() -> None:
    drop = next(p for p in EVERY if (p.drafter, p.batch, p.benchmark) == ("vanilla", 1, "sum"))
    found = hole(drop)
    for benchmark in ("", "sum"):
        entry = only(found, "prism", 1, benchmark)
        assert "tps" in entry.values
        assert not {"speed_up", "round_cost", "decode_speed_up"} & set(entry.values)
        assert (entry.baseline, entry.baseline_ids) == ({}, ())
    assert "speed_up" in only(found, "prism", 1, "qa").values


@pytest.mark.parametrize(
    "change",
    [
        {"target": "mini-llama-3"}, {"batch": 4}, {"benchmark": "alpaca"}, {"temperature": 1.0}, {"questions": 4},
        {"dtype": "bfloat16"}, {"engine": "torch"}, {"compat": ("warm-cache",)}, {"max_new_tokens": 9}, {"seed": 1},
    ],
)  # fmt: skip
def test_only_a_vanilla_cell_of_everything_alike_is_compared_with(change: dict[str, object]) -> None:
    plain = dataclasses.replace(PRISM, drafter="vanilla", scale=None, tree=None)
    for other, expected in ((plain, True), (dataclasses.replace(plain, **change), False)):
        both = {PRISM: result(PRISM), other: result(other)}
        found = fold_times(build_frame(both, both), benchmarks=False)
        assert ("speed_up" in found[0].values) == expected


def test_another_device_is_not_compared_with() -> None:
    plain = dataclasses.replace(PRISM, drafter="vanilla", scale=None, tree=None)
    both = {PRISM: result(PRISM), plain: result(plain, device="another")}
    found = fold_times(build_frame(both, both), benchmarks=False)
    assert "tps" in found[0].values
    assert "speed_up" not in found[0].values


@pytest.mark.parametrize(("kernels", "compared"), [(("a", "a"), True), (("a", "b"), False), ((None, "a"), False)])
def test_other_attention_kernels_are_not_compared_with(kernels: tuple[str | None, str], compared: bool) -> None:
    """A speed-up is of drafting, not of one kernel over another."""
    plain = dataclasses.replace(PRISM, drafter="vanilla", scale=None, tree=None)
    both = {
        point: dataclasses.replace(result(point), settings={"attention": kernel} if kernel else {})
        for point, kernel in zip((PRISM, plain), kernels, strict=True)
    }
    found = fold_times(build_frame(both, both), benchmarks=False)
    assert ("speed_up" in found[0].values) == compared


def test_other_questions_give_a_ratio_without_an_interval() -> None:
    plain = dataclasses.replace(PRISM, drafter="vanilla", scale=None, tree=None)
    cell = result(plain)
    other = tuple(dataclasses.replace(s, question_id=f"other-{s.question_id}") for s in cell.samples)
    both = {PRISM: result(PRISM), plain: dataclasses.replace(cell, samples=other)}
    speed_up = fold_times(build_frame(both, both), benchmarks=False)[0].values["speed_up"]
    assert speed_up.bounds is None


def test_ways_of_drafting_and_trees_are_entries_of_their_own() -> None:
    points = [PRISM, dataclasses.replace(PRISM, drafting="stock"), dataclasses.replace(PRISM, tree=TreeShape(4, 4, 16))]
    found = fold_times(build_frame(points, {}), benchmarks=False)
    assert [(entry.tree, entry.drafting) for entry in found] == [
        ("3,2,6", "exact"), ("3,2,6", "stock"), ("4,4,16", "exact"),
    ]  # fmt: skip
    assert all((entry.values, entry.asked, entry.questions) == ({}, 1, 0) for entry in found)
