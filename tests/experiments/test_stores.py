"""Stores written by earlier versions: every value drawn from them is the one that was drawn then, to the last digit.

``stores/<commit>.tar.xz`` is a small store of the mini suite as that commit wrote it, ``<commit>.values.json.xz`` are
the values of the drawings that it made of it: drawing, layer, target, benchmark, drafter, temperature, drafting, tree,
batch, x, quantity, cells, value (and an interval of another kind than today's).
"""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from prism_ae.__main__ import run
from prism_ae.cells import Cell
from prism_ae.experiments.load import experiment_names, load_experiment

STORES = Path(__file__).parent / "stores"
COMMITS = ("e2d7a3b", "704bed5")
ALL = ["--questions", "2", "--scales", "1x,8x", "--benches", "mt_bench,humaneval", "--controls", "--repeats", "1"]
DRAFTERS = "standard,eagle2,hass,prism,prism_star"
FIGURE7 = [
    "--questions",
    "2",
    "--batch-size",
    "1",
    "--batch-size",
    "2",
    "--benches",
    "mt_bench,humaneval",
    "--repeats",
    "1",
]


@pytest.fixture(scope="module", params=COMMITS)
def commit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runs(commit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(commit)
    with tarfile.open(STORES / f"{commit}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def drawn(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The .csv of every drawing, made without the models."""
    out = tmp_path_factory.mktemp("drawn")
    rest = ["--suite", "mini", "--with-paper", "--models-dir", str(out / "none"), "--runs-dir", str(runs)]
    others = [name for name in experiment_names() if name not in ("figure7", "drafting")]
    for names, options in ((others, ALL), (["figure7"], FIGURE7), (["drafting"], [*ALL, "--drafters", DRAFTERS])):
        assert run(["render", *names, *options, *rest, "--out", str(out)]) == 0
    return {
        name: pd.read_csv(out / "mini" / f"{name}.csv", dtype=str, keep_default_na=False) for name in experiment_names()
    }


def values(drawn: dict[str, pd.DataFrame]) -> dict[tuple[Any, ...], str]:
    """By place, quantity and cells."""
    scales = {f"{number}x": f"{number:.1f}" for number in range(1, 9)}
    found = {}
    for name, table in drawn.items():
        timed = load_experiment(name).timed
        for row in table.to_dict("records"):
            x = "" if timed else row["position"] or row["scale"]
            place = (row["drafting"], row["tree"], row["batch"]) if timed else ("", "", "")
            if row["layer"] == "paper" and x:  # a number then
                x = scales.get(x) or f"{float(x):.1f}"
            key = (name, row["layer"], row["target"], row["benchmark"], row["drafter"], float(row["temperature"]))
            key = (*key, *place, x, row["quantity"], row["cell_ids"])
            assert key not in found
            found[key] = row["value"]
    return found


def test_every_value_is_the_same_to_the_last_digit(commit: str, drawn: dict[str, pd.DataFrame]) -> None:
    now = values(drawn)
    then = json.loads(lzma.decompress((STORES / f"{commit}.values.json.xz").read_bytes()))
    assert {row[0] for row in then} == set(experiment_names()) - {"anatomy"}  # which there was not
    assert len(then) > 2900
    for *place, cells, value, _, _ in then:
        assert float(now.pop((*place, " ".join(cells)))) == value, place
    known = {(row[0], row[-5]) for row in then}  # a drawing, and a quantity of it
    assert not any(value for place, value in now.items() if (place[0], place[-2]) in known)


def test_every_cell_has_the_id_that_it_had(commit: str, runs: Path) -> None:
    lines = (runs / "mini" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line)["record"] for line in lines]
    assert len(records) > 200
    for record in records:
        assert Cell.from_json(record["cell"]).id == record["cell_id"]


def test_a_changed_formula_is_noticed(drawn: dict[str, pd.DataFrame], commit: str) -> None:
    """One value moved by one unit in its last place."""
    spoiled = {name: table.copy() for name, table in drawn.items()}
    row = spoiled["table4"].query("quantity == 'speed_up' and value != ''").index[0]
    value = float(spoiled["table4"].loc[row, "value"])
    spoiled["table4"].loc[row, "value"] = repr(value * (1 + 2e-16))
    with pytest.raises(AssertionError):
        test_every_value_is_the_same_to_the_last_digit(commit, spoiled)
