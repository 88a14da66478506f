"""Folding a frame into curves: means over whole sets of benchmarks, holes, macro (never micro) lengths."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
import pytest

from prism_ae.analysis.acceptance import conditional_acceptance
from prism_ae.analysis.curves import Curve, fold
from prism_ae.analysis.results import Measured, build_frame
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.io.digests import digest
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("mini")


def result(point: Point) -> Measured:
    """Random histograms, some of them empty."""
    assert point.tree is not None
    draw = np.random.default_rng([*str(point).encode()])
    samples = []
    for number in range(point.questions):
        histogram = tuple(int(count) for count in draw.integers(0, 5, point.tree.steps + 1)) if number % 5 else ()
        tokens = sum((depth + 1) * count for depth, count in enumerate(histogram)) + 1
        samples.append(Sample(f"q{number}", 1, 5, tokens, sum(histogram), histogram, ("end",), 0.0, 0.0, "0"))
    return Measured(digest(point)[:16], tuple(samples), 1.0, {}, "2026-11-21T00:00:00+00:00", "CPU")


def folded(experiment: Experiment, suite: Suite, options: Options, drop: str = "") -> tuple[tuple[Curve, ...], Mapping]:
    points = expand(experiment, suite, options)
    measured = {point: result(point) for point in points if not (drop and drop in str(point))}
    return fold(build_frame(points, measured), experiment, suite), measured


def macro(measured: Measured) -> float:
    lengths = []
    for sample in measured.samples:
        rounds = [depth for depth, count in enumerate(sample.histogram) for _ in range(count)]
        if rounds:
            lengths.append(statistics.fmean(rounds) + 1)
    return statistics.fmean(lengths)


def test_a_mean_is_over_benchmarks_of_al_macro(suite: Suite) -> None:
    options = Options(questions=6, benches=("gsm8k", "qa"))
    curves, measured = folded(load_experiment("figure5"), suite, options)
    assert len(curves) == 3 * 2
    for curve in curves:
        assert curve.benchmark == ""
        assert [point.x for point in curve.points] == [1, 2, 4, 6, 8]
        for point in curve.points:
            cells = [
                value
                for key, value in measured.items()
                if (key.drafter, key.temperature, key.scale) == (curve.drafter, curve.temperature, point.label)
            ]
            assert point.estimate is not None
            assert point.estimate.value == pytest.approx(statistics.fmean(macro(cell) for cell in cells), rel=1e-12)
            assert set(point.cell_ids) == {cell.cell_id for cell in cells}
            assert (point.asked, point.questions, point.without_rounds) == (2, 8, 4)
            low, high = point.estimate.bounds or (0.0, 0.0)
            assert low < point.estimate.value < high


def test_a_mean_over_some_benchmarks_is_a_hole(suite: Suite) -> None:
    """Five of six benchmarks are no mean over six."""
    curves, _ = folded(load_experiment("figure5"), suite, Options(questions=3), drop="'sum'")
    points = [point for curve in curves for point in curve.points]
    assert all(point.estimate is None for point in points)
    assert all((point.asked, len(point.cell_ids)) == (6, 5) for point in points)


def test_grid_curves_are_per_benchmark(suite: Suite) -> None:
    options = Options(questions=4, targets=("llama-2",), scales=("1x", "8x"))
    curves, measured = folded(load_experiment("figure4"), suite, options, drop="scale='1x'")
    assert len(curves) == 3 * 6 * 2
    for curve in curves:
        hole, point = curve.points
        assert (hole.estimate, hole.cell_ids, hole.asked) == (None, (), 1)
        (cell,) = (
            value
            for key, value in measured.items()
            if (key.drafter, key.temperature, key.benchmark) == (curve.drafter, curve.temperature, curve.benchmark)
        )
        assert point.estimate is not None
        assert point.estimate.value == pytest.approx(macro(cell), rel=1e-12)
        answered = [sample for sample in cell.samples if sample.rounds]
        micro = sum(sample.generated_tokens for sample in answered) / sum(sample.rounds for sample in answered)
        assert point.estimate.al_micro == pytest.approx(micro, rel=1e-12)


def test_positions_pool_questions_then_average_benchmarks(suite: Suite) -> None:
    curves, measured = folded(load_experiment("figure1"), suite, Options(questions=5))
    for curve in curves:
        cells = [v for k, v in measured.items() if (k.drafter, k.temperature) == (curve.drafter, curve.temperature)]
        pooled = []
        for cell in cells:
            total = np.zeros(7)
            for sample in cell.samples:
                total[: len(sample.histogram)] += sample.histogram
            pooled.append(conditional_acceptance(total, 4))
        values = [point.estimate.value for point in curve.points if point.estimate]
        assert values == pytest.approx(np.mean(pooled, axis=0).tolist())
        assert [point.x for point in curve.points] == [1, 2, 3, 4]


def test_no_more_positions_than_the_tree_drafts(suite: Suite) -> None:
    options = Options(questions=3, trees=(TreeShape(2, 2, 4),))
    curves, _ = folded(load_experiment("figure1"), suite, options)
    assert {len(curve.points) for curve in curves} == {2}
