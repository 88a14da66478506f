"""Measuring again what does not agree with itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prism_ae.analysis.results import Measured
from prism_ae.cells import Cell, Fingerprints, Point, Sample, TreeShape
from prism_ae.planning.further import unstable_again
from prism_ae.planning.plan import Resolved, make_plan
from prism_ae.store import Record
from prism_ae.store.records import FAILED, OK

PRINTS = Fingerprints("target", "drafter", "prompts", "engine", "verifier")


def point(drafter: str, repeat: int = 0, batch: int = 1) -> Point:
    return Point(
        suite="mini", target="mini-llama-2", drafter=drafter, scale="1x", benchmark="qa", temperature=0.0,
        tree=TreeShape(6, 4, 16), engine="sglang", batch=batch, questions=1 if repeat else 2, max_new_tokens=96,
        max_length=512, seed=42, dtype="float32", drafting="exact", compat=(), repeat=repeat,
    )  # fmt: skip


def cell(one: Point) -> Cell:
    return Cell(one, dataclasses.replace(PRINTS, prompts=str(one.questions)))


def resolved(points: Sequence[Point]) -> Resolved:
    return Resolved({one: cell(one) for one in points}, dict.fromkeys(points, (Path("t"), Path("d"))), ())


def took(one: Point, seconds: float) -> Measured:
    histogram = (0, 2, *[0] * 5)
    samples = [Sample(f"q{n}", 1, 9, 5, histogram, ("end",), 0.1, seconds, "text") for n in range(one.questions)]
    return Measured(cell(one).id, tuple(samples), 1.0, {}, "2026-01-01", "cpu", PRINTS)


def asked(drafter: str, times: int = 3) -> list[Point]:
    return [point(drafter, repeat) for repeat in range(times)]


def test_only_cells_whose_times_are_unstable_are_measured_again() -> None:
    quiet, loud = asked("hass"), asked("prism")
    seconds = dict(zip([*quiet, *loud], [1.0, 1.01, 1.5, 1.0, 1.2, 1.3], strict=True))
    again = unstable_again(resolved([*quiet, *loud]), {one: took(one, each) for one, each in seconds.items()}, 6)
    (one,) = again.cells
    assert one == point("prism", 3)
    # Of the same questions as the repeats before, and so with their fingerprints.
    assert again.cells[one] == cell(point("prism", 3))
    assert again.folders[one] == (Path("t"), Path("d"))
    assert make_plan(again, {}).to_measure == 1


def test_the_next_repeat_follows_those_that_were_measured_beyond_and_most_is_an_end() -> None:
    points = asked("prism")
    seconds = dict(zip([*points, point("prism", 3)], [1.0, 1.2, 1.3, 1.4], strict=True))
    found = {one: took(one, each) for one, each in seconds.items()}
    assert list(unstable_again(resolved(points), found, 6).cells) == [point("prism", 4)]
    assert list(unstable_again(resolved(points), found, 5).cells) == [point("prism", 4)]
    assert not unstable_again(resolved(points), found, 4).cells
    agrees = found | {point("prism", 3): took(point("prism", 3), 1.02)}
    assert not unstable_again(resolved(points), agrees, 6).cells


def test_what_was_asked_for_comes_first() -> None:
    points = asked("prism")
    assert not unstable_again(resolved(points), {one: took(one, 1.0 + one.repeat) for one in points[:2]}, 6).cells
    once = asked("prism", 1)
    assert not unstable_again(resolved(once), {once[0]: took(once[0], 1.0)}, 6).cells


def test_a_plan_counts_finished_repeats_beyond_those_asked_for() -> None:
    points, beyond = asked("prism"), point("prism", 3)
    of = {
        one: Record(cell(one), OK, "", cell(one).id, "2026", "2026", 1.0, 1.0, {}, "s", "cpu")
        for one in [*points, beyond]
    }
    plan = make_plan(resolved(points), {each.cell.id: each for each in of.values()})
    assert plan.done == of
    # Not those that failed, of other fingerprints, or of a cell that was not asked for.
    failed = dataclasses.replace(of[beyond], status=FAILED)
    others = dataclasses.replace(of[beyond], cell=dataclasses.replace(cell(beyond), fingerprints=PRINTS))
    stranger = dataclasses.replace(of[beyond], cell=cell(point("hass", 3)))
    for wrong in (failed, others, stranger):
        assert beyond not in make_plan(resolved(points), {wrong.cell.id: wrong}).done
        assert wrong.cell.point not in make_plan(resolved(points), {wrong.cell.id: wrong}).done
