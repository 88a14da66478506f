"""Results summarised: means over whole sets of benchmarks, missing values, ratios to the right vanilla cell; values
recomputed from the samples by hand."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping

import pytest
from measurements import made_up, make_point, measured, sample

from prism_ae.analysis.estimates import Estimate, Summary, combine, summarise
from prism_ae.analysis.quantities import QUANTITIES, SPEED
from prism_ae.analysis.results import Measured, results_of
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")


def tps(cell: Measured) -> float:
    return sum(each.generated_tokens for each in cell.samples) / cell.wall_seconds


def answered(cell: Measured) -> list[Sample]:
    return [each for each in cell.samples if each.rounds]


def macro(cell: Measured) -> float:
    return statistics.fmean(
        sum(depth * count for depth, count in enumerate(each.histogram)) / each.rounds + 1 for each in answered(cell)
    )


def micro(cell: Measured) -> float:
    used = answered(cell)
    return sum(each.generated_tokens for each in used) / sum(each.rounds for each in used)


def rate(cell: Measured, position: int) -> float:
    rounds = [depth for each in cell.samples for depth, count in enumerate(each.histogram) for _ in range(count)]
    before = [depth for depth in rounds if depth >= position - 1]
    return sum(depth >= position for depth in before) / len(before)


def summed(listed: Iterable[Measured]) -> tuple[float, float, float]:
    """Tokens after the first of each turn, rounds, decode seconds."""
    samples = [each for cell in listed for each in cell.samples]
    decoded = sum(each.generated_tokens - each.turns for each in samples)
    return decoded, sum(each.rounds for each in samples), sum(each.decode_seconds for each in samples)


def served(listed: Iterable[Measured], batch: int) -> dict[str, float]:
    """What a place of the batch waited and did."""
    listed = list(listed)
    samples = [each for cell in listed for each in cell.samples]
    prefill, decode = (sum(getattr(each, name) for each in samples) for name in ("prefill_seconds", "decode_seconds"))
    return {
        "first_token_seconds": prefill / sum(each.turns for each in samples),
        "occupancy": (prefill + decode) / (batch * sum(cell.wall_seconds for cell in listed)),
    }


def stages(listed: Iterable[Measured]) -> dict[str, float]:
    """Seconds of each stage in a round, or in a step of vanilla decoding."""
    samples = [each for cell in listed for each in cell.samples]
    rounds = sum(each.rounds for each in samples) or sum(each.generated_tokens - each.turns for each in samples)
    names = ("draft", "verify", "sample", "host")
    return {
        f"{name}_seconds": sum(each.stage_seconds[number] for each in samples) / rounds
        for number, name in enumerate(names)
    }


def around(estimate: Estimate) -> bool:
    """Whether the interval is one, with the value in it."""
    return estimate.bounds is not None and estimate.bounds[0] < estimate.value < estimate.bounds[1]


# --- Acceptance, as experiments summarise it.


def acceptance(name: str, options: Options, drop: str = "") -> tuple[tuple[Summary, ...], dict[Point, Measured]]:
    """The summaries of an experiment, and what they are of; points whose text contains ``drop`` are missing."""
    experiment = load_experiment(name)
    points = expand(experiment, MINI, options)
    done = {point: made_up(point) for point in points if not (drop and drop in str(point))}
    return experiment.summarise(results_of(points, done)), done


def cells_of(summary: Summary, done: Mapping[Point, Measured]) -> list[Measured]:
    place = summary.place
    return [
        cell
        for point, cell in done.items()
        if (point.target, point.drafter, point.temperature) == (place.target, place.drafter, place.temperature)
        and point.scale == (place.scale or point.scale)
        and point.benchmark == (place.benchmark or point.benchmark)
    ]


def test_a_mean_is_over_benchmarks() -> None:
    summaries, done = acceptance("figure5", Options(questions=10, benches=("gsm8k", "qa"), controls=False))
    assert len(summaries) == 3 * 2 * 5
    for summary in summaries:
        cells = cells_of(summary, done)
        assert summary.place.benchmark is None
        assert set(summary.values) == {"al_macro", "al_micro"}
        for name, of in (("al_macro", macro), ("al_micro", micro)):
            estimate = summary.values[name]
            assert estimate.value == pytest.approx(statistics.fmean(map(of, cells)), rel=1e-12)
            assert around(estimate)
        assert set(summary.cell_ids) == {cell.cell_id for cell in cells}
        assert (summary.asked, summary.questions, summary.without_rounds) == (2, 16, 4)


def test_a_mean_over_some_benchmarks_is_missing() -> None:
    """Five of six benchmarks are no mean over six."""
    summaries, _ = acceptance("figure5", Options(questions=3), drop="'sum'")
    for summary in summaries:
        assert summary.values == {}
        assert (summary.asked, len(summary.cell_ids), summary.questions) == (6, 5, 10)


def test_a_mean_with_an_undefined_benchmark_is_missing() -> None:
    """Not one question of a benchmark got to a round."""
    points = [make_point(benchmark="qa", questions=7), make_point(benchmark="sum", questions=1)]
    done = {point: made_up(point) for point in points}
    defined, undefined, mean = summarise(results_of(points, done), [QUANTITIES["al_macro"]], "both")
    assert around(defined.values["al_macro"])
    assert undefined.values == mean.values == {}
    assert (mean.asked, len(mean.cell_ids), mean.questions, mean.without_rounds) == (2, 2, 5, 3)


def test_four_questions_with_rounds_have_no_interval() -> None:
    """Neither has a mean over a benchmark with no more."""
    points = [make_point(benchmark="qa", questions=7), make_point(benchmark="sum", questions=5)]
    found = summarise(results_of(points, {point: made_up(point) for point in points}), [QUANTITIES["al_macro"]], "both")
    assert [summary.values["al_macro"].bounds is None for summary in found] == [False, True, True]


def test_a_grid_is_per_benchmark() -> None:
    options = Options(questions=4, targets=("llama-2",), scales=("1x", "8x"), controls=False)
    summaries, done = acceptance("figure4", options, drop="scale='1x'")
    assert len(summaries) == 3 * 6 * 2 * 2
    for summary in summaries:
        if summary.place.scale == "1x":
            assert (summary.values, summary.cell_ids, summary.asked) == ({}, (), 1)
            continue
        (cell,) = cells_of(summary, done)
        assert summary.values["al_macro"].value == pytest.approx(macro(cell), rel=1e-12)
        assert summary.values["al_micro"].value == pytest.approx(micro(cell), rel=1e-12)


def test_positions_pool_questions_then_average_benchmarks() -> None:
    summaries, done = acceptance("figure1", Options(questions=9))
    assert [summary.place.position for summary in summaries] == [1, 2, 3, 4] * (len(summaries) // 4)
    for summary in summaries:
        position = summary.place.position or 0
        expected = statistics.fmean(rate(cell, position) for cell in cells_of(summary, done))
        assert set(summary.values) == {"acceptance_rate"}
        assert summary.values["acceptance_rate"].value == pytest.approx(expected)
        assert around(summary.values["acceptance_rate"])


def test_no_more_positions_than_the_tree_drafts() -> None:
    summaries, _ = acceptance("figure1", Options(questions=3, trees=(TreeShape(2, 2, 4),)))
    assert {summary.place.position for summary in summaries} == {1, 2}


# --- Speeds.

BENCHMARKS = ("gsm8k", "qa", "sum")
PRISM, VANILLA = (make_point(drafter=drafter, batch=2, questions=7) for drafter in ("prism", "vanilla"))
EVERY = tuple(
    make_point(drafter=drafter, batch=batch, benchmark=benchmark, questions=7)
    for drafter in ("vanilla", "prism", "hass")
    for batch in (1, 2)
    for benchmark in BENCHMARKS
)
MEASURED = {point: made_up(point) for point in EVERY}


def summaries(done: Mapping[Point, Measured], points: Iterable[Point] = EVERY) -> tuple[Summary, ...]:
    return summarise(results_of(points, done), SPEED, "both")


def only(found: Iterable[Summary], drafter: str, batch: int, benchmark: str | None) -> Summary:
    wanted = (drafter, batch, benchmark)
    (summary,) = (s for s in found if (s.place.drafter, s.place.batch, s.place.benchmark) == wanted)
    return summary


def asked(drafter: str, batch: int, benchmark: str) -> Point:
    return make_point(drafter=drafter, batch=batch, benchmark=benchmark, questions=7)


def cells(drafter: str, batch: int, benchmarks: Iterable[str] = BENCHMARKS) -> list[Measured]:
    return [MEASURED[asked(drafter, batch, benchmark)] for benchmark in benchmarks]


def values(summary: Summary) -> dict[str, float]:
    return {name: estimate.value for name, estimate in summary.values.items()}


def compared(change: Callable[[Measured], Measured], plain: Point = VANILLA) -> Summary:
    """Of PRISM, beside a vanilla cell that differs so."""
    done = {PRISM: made_up(PRISM), plain: change(made_up(plain))}
    return summarise(results_of(done, done), SPEED)[0]


def test_a_benchmarks_summary_is_its_cell() -> None:
    found = summaries(MEASURED)
    summary = only(found, "prism", 2, "qa")
    (cell,), (plain,) = cells("prism", 2, ["qa"]), cells("vanilla", 2, ["qa"])
    (decoded, rounds, decode), (base, _, steps) = summed([cell]), summed([plain])
    assert values(summary) == pytest.approx(
        {
            "tps": tps(cell),
            "decode_tps": 2 * decoded / decode,
            "tokens_per_round": decoded / rounds,
            "round_seconds": decode / rounds,
            "speed_up": tps(cell) / tps(plain),
            "round_cost": decode / rounds / (steps / base),
            "decode_speed_up": decoded / decode / (base / steps),
            "al_micro": micro(cell),
            "al_macro": macro(cell),
        }
        | served([cell], 2)
        | stages([cell])
        | {"draft_step_seconds": stages([cell])["draft_seconds"] / 6}  # steps of the tree
    )
    assert all(around(estimate) for estimate in summary.values.values())
    assert values(only(found, "vanilla", 2, "qa")) == pytest.approx(
        {"tps": tps(plain), "decode_tps": 2 * base / steps, "step_seconds": steps / base}
        | {"speed_up": 1.0, "decode_speed_up": 1.0}
        | served([plain], 2)
        | stages([plain])
    )
    assert (summary.cell_ids, summary.vanilla_ids) == ((cell.cell_id,), (plain.cell_id,))


def test_a_mean_divides_the_mean_tps_and_pools_rounds() -> None:
    """The paper's speed-up is a ratio of means, not a mean of ratios."""
    summary = only(summaries(MEASURED), "prism", 2, None)
    found, mine, plain = values(summary), cells("prism", 2), cells("vanilla", 2)
    speed_up = statistics.fmean(map(tps, mine)) / statistics.fmean(map(tps, plain))
    assert found["speed_up"] == pytest.approx(speed_up)
    of_ratios = statistics.fmean(tps(one) / tps(other) for one, other in zip(mine, plain, strict=True))
    assert abs(speed_up - of_ratios) > 0.01
    assert found["tps"] == pytest.approx(statistics.fmean(map(tps, mine)))
    assert found["al_macro"] == pytest.approx(statistics.fmean(map(macro, mine)))
    assert found["al_micro"] == pytest.approx(statistics.fmean(map(micro, mine)))
    (decoded, rounds, decode), (base, _, steps) = summed(mine), summed(plain)
    assert found["tokens_per_round"] == pytest.approx(decoded / rounds)
    assert found["round_seconds"] == pytest.approx(decode / rounds)
    assert found["decode_tps"] == pytest.approx(2 * decoded / decode)
    assert found["round_cost"] == pytest.approx(decode / rounds / (steps / base))
    assert found["decode_speed_up"] == pytest.approx(found["tokens_per_round"] / found["round_cost"], rel=1e-12)
    assert values(only(summaries(MEASURED), "vanilla", 2, None)) == pytest.approx(
        {"tps": statistics.fmean(map(tps, plain)), "decode_tps": 2 * base / steps, "step_seconds": steps / base}
        | {"speed_up": 1.0, "decode_speed_up": 1.0}
        | served(plain, 2)
        | stages(plain)
    )
    assert (summary.asked, summary.questions, summary.without_rounds) == (3, 15, 6)
    assert len(summary.vanilla_ids) == 3


def test_the_interval_of_a_ratio_is_that_of_the_values_it_is_of() -> None:
    """By the delta method, from the two estimates: the same up to what a jackknife and a gradient differ in."""
    found = summaries(MEASURED)
    for benchmark in (None, "qa"):
        mine, plain = only(found, "prism", 2, benchmark).values, only(found, "vanilla", 2, benchmark).values
        for ratio, above, below in (
            ("speed_up", mine["tps"], plain["tps"]),
            ("round_cost", mine["round_seconds"], plain["step_seconds"]),
            ("decode_speed_up", mine["tokens_per_round"], mine["round_cost"]),
        ):
            expected = combine(lambda values: float(values[0] / values[1]), [above, below])
            assert mine[ratio].value == pytest.approx(expected.value)
            assert mine[ratio].error is not None
            assert expected.error is not None
            assert mine[ratio].error.error == pytest.approx(expected.error.error, rel=0.25)


def test_vanilla_is_its_own_measure_and_has_no_rounds() -> None:
    summary = only(summaries(MEASURED), "vanilla", 1, None)
    own = {"tps", "decode_tps", "step_seconds", "speed_up", "decode_speed_up", "first_token_seconds", "occupancy"}
    assert set(summary.values) == own | set(stages(MEASURED[point] for point in EVERY[:1]))
    assert summary.values["speed_up"].value == summary.values["decode_speed_up"].value == 1.0
    assert summary.values["speed_up"].bounds == pytest.approx((1.0, 1.0))
    assert summary.vanilla
    assert (summary.questions, summary.without_rounds) == (21, 0)


def test_every_quantity_is_summarised() -> None:
    found = {name for summary in summaries(MEASURED) for name in summary.values}
    assert found == set(QUANTITIES) - {"acceptance_rate"}


def test_the_same_questions_are_drawn_for_drafter_and_vanilla() -> None:
    """Twice as fast on every question: no interval about the ratio, whatever the questions are."""
    plain, chain = made_up(VANILLA), dataclasses.replace(VANILLA, drafter="eagle2", tree=TreeShape(3, 2, 6))
    fast = tuple(
        dataclasses.replace(each, prefill_seconds=each.prefill_seconds / 2, decode_seconds=each.decode_seconds / 2)
        for each in plain.samples
    )
    quick = dataclasses.replace(plain, samples=fast, wall_seconds=plain.wall_seconds / 2)
    _, found = summarise(results_of([VANILLA, chain], {VANILLA: plain, chain: quick}), SPEED)
    assert found.values["speed_up"].bounds == pytest.approx((2.0, 2.0))
    low, high = found.values["tps"].bounds or (0.0, 0.0)
    assert high - low > 1


def without(drop: Point) -> tuple[Summary, ...]:
    return summaries({point: cell for point, cell in MEASURED.items() if point != drop})


def test_a_missing_cell_is_missing_in_the_mean_alone() -> None:
    found = without(asked("prism", 1, "sum"))
    mean = only(found, "prism", 1, None)
    assert (mean.values, mean.vanilla_ids, mean.asked, len(mean.cell_ids)) == ({}, (), 3, 2)
    assert only(found, "prism", 1, "qa").values["speed_up"]
    assert only(found, "prism", 2, None).values["speed_up"]


def test_without_vanilla_there_is_no_ratio_but_a_speed() -> None:
    found = without(asked("vanilla", 1, "sum"))
    for benchmark in (None, "sum"):
        summary = only(found, "prism", 1, benchmark)
        assert "tps" in summary.values
        assert not {"speed_up", "round_cost", "decode_speed_up"} & set(summary.values)
        assert summary.vanilla_ids == ()
    assert "speed_up" in only(found, "prism", 1, "qa").values


@pytest.mark.parametrize(
    "change",
    [
        {"target": "mini-llama-3"}, {"batch": 4}, {"benchmark": "alpaca"}, {"temperature": 1.0}, {"questions": 4},
        {"dtype": "bfloat16"}, {"engine": "torch"}, {"compat": ("warm-cache",)}, {"max_new_tokens": 9}, {"seed": 1},
        {"suite": "paper"}, {"max_length": 99},
    ],
)  # fmt: skip
def test_only_a_vanilla_cell_of_everything_alike_is_compared_with(change: dict[str, object]) -> None:
    for plain, expected in ((VANILLA, True), (dataclasses.replace(VANILLA, **change), False)):  # type: ignore[arg-type]
        summary = compared(lambda cell: cell, plain)
        assert ("speed_up" in summary.values, bool(summary.vanilla_ids)) == (expected, expected)


def test_another_device_is_not_compared_with() -> None:
    summary = compared(lambda cell: dataclasses.replace(cell, device="another"))
    assert "tps" in summary.values
    assert not {"speed_up", "round_cost", "decode_speed_up"} & set(summary.values)


@pytest.mark.parametrize(("kernels", "expected"), [(("a", "a"), True), (("a", "b"), False), ((None, "a"), False)])
def test_other_attention_kernels_are_not_compared_with(kernels: tuple[str | None, str], expected: bool) -> None:
    """A speed-up is of drafting, not of one kernel over another."""
    done = {
        point: made_up(point, settings={"attention": kernel} if kernel else {})
        for point, kernel in zip((PRISM, VANILLA), kernels, strict=True)
    }
    assert ("speed_up" in summarise(results_of(done, done), SPEED)[0].values) == expected


def test_other_questions_give_a_ratio_without_an_interval() -> None:
    def renamed(cell: Measured) -> Measured:
        named = (dataclasses.replace(each, question_id=f"other-{each.question_id}") for each in cell.samples)
        return dataclasses.replace(cell, samples=tuple(named))

    summary = compared(renamed)
    assert summary.values["speed_up"].value == compared(lambda cell: cell).values["speed_up"].value
    assert summary.values["speed_up"].bounds is None
    assert summary.values["tps"].bounds is not None


def test_ways_of_drafting_and_trees_are_places_of_their_own() -> None:
    points = [PRISM, dataclasses.replace(PRISM, drafting="stock"), dataclasses.replace(PRISM, tree=TreeShape(4, 4, 16))]
    found = summarise(results_of(points, {}), SPEED)
    assert [(str(summary.place.tree), summary.place.drafting) for summary in found] == [
        ("6,4,16", "exact"), ("6,4,16", "stock"), ("4,4,16", "exact"),
    ]  # fmt: skip
    assert all((summary.values, summary.asked, summary.questions) == ({}, 1, 0) for summary in found)


@pytest.mark.parametrize("length", [3, 4, 7, 9])
def test_histograms_may_be_shorter_or_longer_than_the_tree(length: int) -> None:
    """Zeros behind the deepest draft say nothing, in a mean over benchmarks neither."""
    points = [make_point(benchmark=benchmark, batch=1) for benchmark in ("qa", "sum")]
    padded = (0, 2, 1, *[0] * (length - 3))
    (found,) = summarise(
        results_of(
            points,
            {
                points[0]: measured([sample(f"q{number}", [1, 1, 2], histogram=padded) for number in range(2)]),
                points[1]: measured([sample(f"q{number}", [0, 3, 3]) for number in range(2)]),
            },
        ),
        SPEED,
    )
    assert found.values["tokens_per_round"].value == pytest.approx((4 + 6) / 6 + 1)
    assert found.values["al_macro"].value == pytest.approx((4 / 3 + 6 / 3) / 2 + 1)
