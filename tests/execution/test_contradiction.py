"""Numbers that cannot be an answer to their cell never enter the store: what a drawing would refuse, a worker does."""

from __future__ import annotations

import dataclasses
import math

import pytest

from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, Result, Sample, TreeShape
from prism_ae.execution.worker import contradiction

POINT = Point(
    "mini", "mini-llama-2", "hass", "8x", "qa", 0.0, TreeShape(2, 1, 3), "torch", 1, 1, 96, 512, 42, "float32"
)  # fmt: skip
SAMPLE = Sample("qa/1", 1, 9, 6, (0, 1, 1), ("end",), 0.1, 0.2, "0")


def said(sample: Sample = SAMPLE, point: Point = POINT, wall: float = 1.0) -> str:
    cell = Cell(point, Fingerprints("a", "b", "c", "d", "e"))
    return contradiction(cell, Result((sample,), wall, EngineSettings()))


def test_a_sound_result_is_written() -> None:
    assert said() == ""


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"histogram": (0, 1, 0, 1)}, "tree 2,1,3"),
        ({"generated_tokens": 99}, "qa/1"),
        ({"decode_seconds": math.nan}, "decode"),
        ({"prefill_seconds": math.inf}, "prefill"),
        ({"decode_seconds": -1.0}, "decode"),
    ],
)
def test_a_contradictory_sample_is_named(change: dict[str, object], names: str) -> None:
    assert names in said(dataclasses.replace(SAMPLE, **change))


LISTED = dataclasses.replace(SAMPLE, accepted=((1, 2),), turn_tokens=(6,))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"turn_tokens": (5,)}, "its turns have 5 tokens, 6 were generated"),
        ({"turn_tokens": (3, 3)}, "2 turns"),
        ({"turn_tokens": ()}, "rounds of 1 turn"),
        ({"accepted": ((1,), (2,))}, "rounds of 2 turns"),
        ({"accepted": ((2, 2),)}, "histogram"),
        ({"accepted": ((1, 2, 1),), "histogram": (0, 2, 1)}, "turn 1 has 6 tokens, and its rounds make it 7 to 8"),
        ({"near_ties": ((0, 1, "0123abcd", 5),)}, "was not examined"),
        ({"near_ties": ((0, 1, "0123abcd", 5),), "faults": 0}, ""),
        ({"accepted": ((2,),), "histogram": (0, 0, 1)}, "turn 1 has 6 tokens, and its rounds make it 2 to 4"),
    ],
)
def test_rounds_that_contradict_their_sums_are_named(change: dict[str, object], says: str) -> None:
    found = said(dataclasses.replace(LISTED, **change))  # type: ignore[arg-type]
    assert says in found
    assert bool(found) == bool(says)


def test_so_are_questions_rounds_and_the_whole_run() -> None:
    assert "2 were asked" in said(point=dataclasses.replace(POINT, questions=2))
    assert "nothing drafts" in said(point=dataclasses.replace(POINT, drafter="vanilla", tree=None))
    assert "nan seconds" in said(wall=math.nan)
