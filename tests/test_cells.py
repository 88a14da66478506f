"""A cell's identity, and which draft trees exist."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_ae.cells import Cell, Fingerprints, Point, TreeShape
from prism_ae.errors import UsageError

POINT = Point(
    suite="mini",
    target="mini-llama-2",
    drafter="prism",
    scale="8x",
    benchmark="qa",
    temperature=1.0,
    tree=TreeShape(6, 10, 60),
    engine="torch",
    batch=None,
    questions=16,
    max_new_tokens=96,
    max_length=512,
    seed=0,
    dtype="float32",
)
CELL = Cell(POINT, Fingerprints("t", "d", "p", "torch-1", "v"))


def most_drafts(steps: int, branch: int) -> int:
    """Nodes of the drafted tree, counted by growing it: the root's children, then a beam per further step."""
    nodes, beam = branch, branch
    for _ in range(steps - 1):
        children = beam * branch
        nodes += children
        beam = min(branch, children)
    return nodes


@given(st.integers(1, 9), st.integers(1, 12), st.integers(2, 400))
def test_a_tree_is_valid_exactly_when_it_can_be_grown(steps: int, branch: int, verified: int) -> None:
    tree = TreeShape(steps, branch, verified)
    drafts = most_drafts(steps, branch)
    possible = verified == steps + 1 if branch == 1 else verified - 1 <= drafts
    assert (tree.problem() == "") == possible
    if possible:
        assert TreeShape.parse(str(tree)) == tree


@pytest.mark.parametrize(
    "text", ["", "6", "6,10", "6,10,60,1", "a,b,c", "-1,2,3", "6;10;60", "6,1,60", "0,1,1", "3,2,1", "1,2,9"]
)
def test_an_impossible_tree_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TreeShape.parse(text)
    assert caught.value.hint


def test_every_field_is_part_of_the_identity() -> None:
    changed = {
        "suite": "paper", "target": "x", "drafter": "x", "scale": None, "benchmark": "x", "temperature": 0.0,
        "tree": None, "engine": "sglang", "batch": 1, "questions": 2, "max_new_tokens": 1, "max_length": 1, "seed": 1,
        "dtype": "float16", "drafting": "stock", "compat": ("greedy-second-temperature",), "training_seed": 1,
        "repeat": 1,
    }  # fmt: skip
    assert set(changed) == {field.name for field in dataclasses.fields(Point)}
    ids = {CELL.id} | {Cell(dataclasses.replace(POINT, **{k: v}), CELL.fingerprints).id for k, v in changed.items()}
    for field in dataclasses.fields(Fingerprints):
        ids.add(Cell(POINT, dataclasses.replace(CELL.fingerprints, **{field.name: "other"})).id)
    assert len(ids) == 1 + len(changed) + len(dataclasses.fields(Fingerprints))


def test_a_training_seed_of_0_is_no_part_of_what_is_stored() -> None:
    """So that cells keep the ids that they had before there were others."""
    other = Cell(dataclasses.replace(POINT, training_seed=3), CELL.fingerprints)
    assert "training_seed" not in CELL.to_json()["point"]
    assert other.to_json()["point"]["training_seed"] == 3
    for cell in (CELL, other):
        assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    assert (POINT.trained, other.point.trained) == ("8x", "8x seed 3")


def test_a_cell_survives_json_and_has_the_same_id_in_another_process() -> None:
    text = json.dumps(CELL.to_json())
    assert Cell.from_json(json.loads(text)) == CELL
    program = "import json, sys; from prism_ae.cells import Cell; print(Cell.from_json(json.load(sys.stdin)).id)"
    done = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == CELL.id
