"""Made-up measurements that look like real ones, for tests of the drawing and for looking at it.

A question draws its difficulty once, whatever the drafter: answers to the same questions are paired, as real ones are.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from prism_ae.analysis.results import Measured
from prism_ae.cells import Point, Sample
from prism_ae.experiments.compose import compose
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.options import Options
from prism_ae.experiments.render import render as write
from prism_ae.suites.records import Suite

STRENGTH = {
    "standard": (0.62, 0.02),
    "lookup": (0.35, 0.02),
    "eagle2": (0.70, 0.075),
    "hass": (0.74, 0.055),
    "hass2": (0.75, 0.045),
    "hass3": (0.76, 0.042),
    "eagle3": (0.74, 0.025),
    "prism": (0.80, 0.035),
    "prism_star": (0.83, 0.033),
    "prism3": (0.82, 0.030),
    "hass_cont": (0.795, 0.04),
    "hass_star": (0.76, 0.05),
    "hass_star_cont": (0.82, 0.04),
    "hass2_cont": (0.80, 0.04),
    "hass2_authors": (0.73, 0.05),
    "hass3_authors": (0.72, 0.05),
    "prism_entry": (0.80, 0.035),
}
"""Chance that the first draft is accepted at the smallest scale, and the loss per position."""

SERVED = {
    "sglang": "0.5.17",
    "torch": "2.13.0",
    "device_name": "CPU",
    "dtype": "float32",
    "cuda_graphs": "eager",
    "radix_cache": False,
    "overlap": False,
    "concurrency": 64,
}
"""What an engine that measures time reads back."""


def render(
    experiment: Kind, suite: Suite, options: Options, measured: dict[Point, Measured], out: Path, **how: Any
) -> list[Path]:
    """The files of a drawing."""
    return write(compose(experiment, suite, options, measured, **how), out)


def measure(points: Iterable[Point], suite: Suite) -> dict[Point, Measured]:
    """A result for each point, a function of the point alone."""
    return {point: _result(point, suite) if point.batch is None else _timed(point, suite) for point in points}


def _timed(point: Point, suite: Suite) -> Measured:
    """A round takes longer with more drafts and a larger batch; vanilla decoding makes one token per step."""
    assert point.batch is not None
    step = 0.010 * (1 + 0.02 * point.batch)
    jitter = np.random.default_rng(zlib.crc32(repr(point).encode())).normal(1, 0.01, point.questions)
    if point.tree is None:
        cell, cost = _vanilla(point), 1.0
    else:
        cell = _result(point, suite)
        small_lm = 0.9 if point.drafter == "standard" else 0.0
        cost = 1.1 + small_lm + 0.04 * point.tree.steps + 0.0006 * point.tree.verified * point.batch
    samples = []
    for sample, wobble in zip(cell.samples, jitter, strict=True):
        rounds = sample.rounds or sample.generated_tokens - sample.turns
        samples.append(
            dataclasses.replace(
                sample, prefill_seconds=0.03 * wobble, decode_seconds=step * cost * max(rounds, 1) * wobble
            )
        )
    wall = 1.03 * sum(sample.prefill_seconds + sample.decode_seconds for sample in samples) / point.batch
    settings = SERVED | {"batch": point.batch, "tree": str(point.tree), "drafting": point.drafting}
    return dataclasses.replace(cell, samples=tuple(samples), wall_seconds=wall, settings=settings)


def _vanilla(point: Point) -> Measured:
    samples = tuple(
        Sample(f"{point.benchmark}-{number}", 1, 40, point.max_new_tokens, (), ("length",), 0.0, 0.0, "0" * 64)
        for number in range(point.questions)
    )
    settings: dict[str, object] = {}
    return Measured(
        f"{zlib.crc32(repr(point).encode()):016x}", samples, 1.0, settings, "2026-11-21T10:00:00+00:00", "CPU"
    )


def _result(point: Point, suite: Suite) -> Measured:
    seed = zlib.crc32(repr(point).encode())
    generator = np.random.default_rng(seed)
    questions = np.random.default_rng(zlib.crc32(point.benchmark.encode()))
    values = {scale.name: scale.value for scale in suite.scales}
    assert point.tree is not None
    first, decay = STRENGTH[point.drafter]
    decay += 0.004 if point.drafting == "stock" else 0.0
    gain = 0.05 * np.log2(values[point.scale] if point.scale else 8)
    easier = 0.03 * (list(suite.benchmarks).index(point.benchmark) % 3)
    samples = []
    for number, ease in enumerate(questions.normal(0, 0.06, point.questions)):
        depths = np.arange(point.tree.steps)
        chances = first + gain + easier + ease - 0.05 * point.temperature - decay * depths
        histogram = [0] * (point.tree.steps + 1)
        tokens = 1
        while tokens < point.max_new_tokens:
            misses = np.flatnonzero(generator.random(point.tree.steps) >= np.clip(chances, 0.02, 0.985))
            accepted = int(misses[0]) if len(misses) else point.tree.steps
            histogram[accepted] += 1
            tokens += accepted + 1
        samples.append(
            Sample(
                question_id=f"{point.benchmark}-{number}",
                turns=1,
                prompt_tokens=40,
                generated_tokens=min(tokens, point.max_new_tokens),
                histogram=tuple(histogram),
                stops=("length",),
                prefill_seconds=0.01,
                decode_seconds=0.1,
                output_sha256="0" * 64,
            )
        )
    settings = {"torch": "2.13.0", "threads": 1}
    return Measured(f"{seed:016x}", tuple(samples), 1.0, settings, "2026-11-21T10:00:00+00:00", "CPU")
