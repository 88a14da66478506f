"""The table of what was asked: one row per point, holes included, contradictions refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from prism_ae.analysis.results import Measured, build_frame
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.errors import StoreError

POINT = Point(
    suite="mini",
    target="mini-llama-2",
    drafter="hass",
    scale="8x",
    benchmark="qa",
    temperature=0.0,
    tree=TreeShape(3, 2, 6),
    engine="torch",
    batch=None,
    questions=2,
    max_new_tokens=96,
    max_length=512,
    seed=42,
    dtype="float32",
)


def measured(*histograms: tuple[int, ...]) -> Measured:
    samples = tuple(
        Sample(
            question_id=f"q{number}",
            turns=1,
            prompt_tokens=5,
            generated_tokens=sum((depth + 1) * rounds for depth, rounds in enumerate(histogram)) + 1,
            histogram=histogram,
            stops=("end",),
            prefill_seconds=0.1,
            decode_seconds=0.2,
            output_sha256="0",
        )
        for number, histogram in enumerate(histograms)
    )
    return Measured("0123456789abcdef", samples, 1.5, {"torch": "2"}, "2026-11-21T09:00:00+00:00", "CPU")


def test_one_row_per_point_measured_or_not() -> None:
    hole = dataclasses.replace(POINT, scale="4x")
    foreign = dataclasses.replace(POINT, scale="1x")
    result = measured((1, 1, 0), (0, 0, 2))
    frame = build_frame([hole, POINT], {POINT: result, foreign: result})
    assert frame["scale"].tolist() == ["4x", "8x"]
    assert frame["measured"].tolist() == [False, True]
    row = frame.iloc[1]
    assert (row["cell_id"], row["tree"], row["rounds"], row["accepted"]) == ("0123456789abcdef", "3,2,6", 4, 5)
    assert row["generated_tokens"] == 4 + 7
    assert row["al_macro"] == (1.5 + 3) / 2
    assert row["al_micro"] == 11 / 4
    assert row["without_rounds"] == 0
    assert frame.iloc[0][["cell_id", "al_macro", "al_micro", "counts"]].isna().all()


def test_an_empty_store_gives_a_frame_of_holes() -> None:
    frame = build_frame([POINT], {})
    assert len(frame) == 1
    assert not frame["measured"].any()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (measured((1, 1)), "1 questions were answered, 2 were asked"),
        (measured((1, 1), (0, 0, 0, 0, 1)), "the tree 3,2,6 has steps"),
    ],
)
def test_contradictory_cells_are_refused_by_name(result: Measured, said: str) -> None:
    with pytest.raises(StoreError, match=f"cell 0123456789abcdef: .*{said}"):
        build_frame([POINT], {POINT: result})


def test_a_timed_cell_has_its_speed_and_an_acceptance_cell_has_none() -> None:
    result = measured((1, 1, 0), (0, 0, 2))
    timed = dataclasses.replace(POINT, batch=2)
    frame = build_frame([POINT, timed], {POINT: result, timed: result})
    assert frame["times"].isna().tolist() == frame["tps"].isna().tolist() == [True, False]
    assert frame["tps"][1] == 11 / 1.5
    assert frame["times"][1].batch == 2
    broken = dataclasses.replace(result, wall_seconds=-1.0)
    with pytest.raises(StoreError, match=r"cell 0123456789abcdef: the run took -1\.0 seconds"):
        build_frame([timed], {timed: broken})
    assert build_frame([POINT], {POINT: broken})["measured"].all()


def test_rounds_without_a_draft_tree_are_refused() -> None:
    plain = dataclasses.replace(POINT, drafter="vanilla", scale=None, tree=None)
    with pytest.raises(StoreError, match="nothing drafts"):
        build_frame([plain], {plain: measured((1, 1), (1,))})
