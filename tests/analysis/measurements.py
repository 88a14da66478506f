"""Measurements written by hand, or made up from their point alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from prism_ae.analysis.results import CellResult, Measured, results_of
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.io.digests import digest

POINT = Point(
    suite="mini", target="mini-llama-2", drafter="prism", scale="8x", benchmark="qa", temperature=0.0,
    tree=TreeShape(6, 4, 16), engine="sglang", batch=None, questions=2, max_new_tokens=96, max_length=512, seed=42,
    dtype="float32",
)  # fmt: skip


def make_point(**changes: Any) -> Point:
    """One of PRISM; vanilla decoding has no scale and no tree."""
    plain: dict[str, Any] = {"scale": None, "tree": None} if changes.get("drafter") == "vanilla" else {}
    return dataclasses.replace(POINT, **(plain | changes))


def sample(name: str, rounds: Iterable[int] = (), /, *, cut: int = 0, **changes: Any) -> Sample:
    """A question whose rounds accepted these numbers of drafts; ``cut`` accepted tokens lay behind the end token."""
    accepted = list(rounds)
    histogram = tuple(accepted.count(depth) for depth in range(max(accepted, default=-1) + 1))
    generated = max(1, 1 + sum(accepted) + len(accepted) - cut)
    made = Sample(name, 1, 9, generated, histogram, ("end",), 0.1, 0.2, "0")
    return dataclasses.replace(made, **changes)


def measured(samples: Iterable[Sample], wall: float = 1.5, **changes: Any) -> Measured:
    made = Measured("0123456789abcdef", tuple(samples), wall, {}, "2026-11-21T09:00:00+00:00", "CPU")
    return dataclasses.replace(made, **changes)


def cell(samples: Iterable[Sample], wall: float = 1.5, **changes: Any) -> CellResult:
    """A cell of those questions, whose point has those changes."""
    result = measured(samples, wall)
    point = make_point(questions=len(result.samples), **changes)
    return results_of([point], {point: result}).cells[point]


def made_up(point: Point, **changes: Any) -> Measured:
    """Random tokens and seconds, two turns a question; every fifth question ends before its first round."""
    draw = np.random.default_rng([*str(point).encode()])
    samples = []
    for number in range(point.questions):
        steps = point.tree.steps if point.tree and number % 5 else -1
        histogram = tuple(int(count) for count in draw.integers(1, 9, steps + 1))
        decoded = (
            sum((depth + 1) * count for depth, count in enumerate(histogram))
            if point.tree
            else int(draw.integers(20, 60))
        )
        prefill, decode = draw.uniform(0.1, 2.0, 2)
        ends = ("end", "end")
        one = Sample(f"q{number}", 2, 5, decoded + 2, histogram, ends, prefill, decode, "0")
        stages = tuple(decode * part for part in (0.3, 0.4, 0.2, 0.1)) if point.batch else ()
        samples.append(dataclasses.replace(one, stage_seconds=stages))
    return measured(samples, float(draw.uniform(1, 9)), cell_id=digest(point)[:16], **changes)
