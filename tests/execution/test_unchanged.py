"""Files that are edited between a plan and the moment an engine reads them: their numbers belong to no cell."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import shells

from prism_ae.cells import Cell
from prism_ae.execution.unchanged import Unchanged
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.hub.selection import folders_of_target
from prism_ae.planning.lookup import LocalLookup
from prism_ae.planning.plan import resolve
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
TARGET = "llama-2-7b-chat"


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, Cell]:
    """A models folder, and a cell of HASS."""
    shells.write_suite_folders(tmp_path, PAPER, list(folders_of_target(PAPER, TARGET)))
    path = tmp_path / "benchmarks" / PAPER.benchmarks["qa"].file
    path.parent.mkdir(parents=True)
    lines = [json.dumps({"question_id": n, "turns": ["a question"]}) for n in range(80)]
    path.write_text("\n".join(lines))
    options = Options(targets=(TARGET,), benches=("qa",), drafters=("hass",), scales=("100k",), engine="torch")
    resolved = resolve(expand(load_experiment("figure4"), PAPER, options), LocalLookup(PAPER, tmp_path))
    return tmp_path, next(iter(resolved.cells.values()))


def folder_of_drafter(models: Path) -> Path:
    return models / next(name for name in folders_of_target(PAPER, TARGET) if "hass" in name.lower() and "100k" in name)


def rewrite(path: Path) -> None:
    """Other content of the same size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "target's weights": lambda models: rewrite(models / PAPER.targets[TARGET].folder / "model.safetensors"),
    "drafter's weights": lambda models: rewrite(folder_of_drafter(models) / "model.safetensors"),
    "drafter is gone": lambda models: (folder_of_drafter(models) / "config.json").unlink(),
    "a question": lambda models: (models / "benchmarks" / PAPER.benchmarks["qa"].file).write_text(
        "\n".join(json.dumps({"question_id": n, "turns": ["Another"]}) for n in range(80))
    ),
    "an end token": lambda models: (models / PAPER.targets[TARGET].folder / "generation_config.json").write_text(
        '{"eos_token_id": [2, 9]}'
    ),
    "tokenizer's rules": lambda models: (models / PAPER.targets[TARGET].folder / "tokenizer_config.json").write_text(
        json.dumps(shells.LLAMA_2_RULES | {"legacy": True})
    ),
}


@pytest.mark.parametrize("looked_before", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(planned: tuple[Path, Cell], name: str, looked_before: bool) -> None:
    models, cell = planned
    unchanged = Unchanged(PAPER, models)
    if looked_before:
        assert unchanged.problem(cell) == ""
        assert unchanged.problem(cell) == ""
    CHANGES[name](models)
    assert unchanged.problem(cell) != ""


def test_what_was_only_touched_is_the_same(planned: tuple[Path, Cell]) -> None:
    models, cell = planned
    unchanged = Unchanged(PAPER, models)
    assert unchanged.problem(cell) == ""
    for path in models.rglob("*"):
        os.utime(path)
    assert unchanged.problem(cell) == ""


def test_nothing_is_asked_of_an_engine_that_runs_no_models(planned: tuple[Path, Cell]) -> None:
    models, cell = planned
    fake = dataclasses.replace(cell, point=dataclasses.replace(cell.point, engine="fake"))
    CHANGES["drafter is gone"](models)
    assert Unchanged(PAPER, models).problem(fake) == ""
