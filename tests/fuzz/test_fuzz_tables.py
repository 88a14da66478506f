"""Whatever a suite's or an experiment's file says: its points are cells, or it is refused by one message."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import VALUES, amounts, as_toml, survives, toml_of
from hypothesis import strategies as st

from prism_ae.cells import Cell, Fingerprints, Point, TreeShape
from prism_ae.errors import PrismError, UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_folder, experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.hub.selection import folders_of_points, folders_of_target, published
from prism_ae.models.locate import Absent, DrafterKey, locate_drafter, locate_target
from prism_ae.suites.load import load_suite, suite_names
from prism_ae.suites.records import Suite

SUITES = {name: tomllib.loads((Path(load_suite.__code__.co_filename).parent / f"{name}.toml").read_text())
          for name in suite_names()}  # fmt: skip
FILES = {path.stem: path for kind in ("figures", "tables") for path in experiment_folder(kind).glob("*.toml")}
EXPERIMENTS = {name: tomllib.loads(FILES[name].read_text()) for name in experiment_names()}
NAMES = ("vanilla", "eagle2", "main", "llama-2", "6,10,60", "1 0,1,2", "qa", "largest", "torch", "")
SAID = VALUES | st.sampled_from(NAMES)
"""Values of a table: anything, or what other keys say."""


def _used(points: Iterable[Point], suite: Suite, models: Path) -> None:
    """What every command does with points before anything is measured."""
    points = tuple(points)
    assert points
    for point in points:
        assert len(Cell(point, Fingerprints("", None, "", "", "")).id) == 16
    assert len({Cell(point, Fingerprints("", None, "", "", "")).id for point in points}) == len(points)
    folders_of_points(suite, points)
    for point in points[:40]:
        assert isinstance(locate_target(suite, point.target, models), Absent)
        if suite.drafters[point.drafter].has_checkpoint:
            found = locate_drafter(suite, DrafterKey(point.target, point.drafter, point.scale, point.engine), models)
            assert isinstance(found, Absent)


def _set(data: dict[str, Any], place: str, value: Any) -> bytes:
    changed = json.loads(json.dumps(data))
    inner, keys = changed, place.split("/")
    for key in keys[:-1]:
        inner = inner[int(key) if isinstance(inner, list) else key]
    last = keys[-1]
    inner[int(last) if isinstance(inner, list) else last] = value
    return as_toml(changed)


DAMAGED = (
    b"x = " + b"[" * 20_000,
    b"x = " + b"1" * 5000,
    b"x = 1e999999",
    b"x = 1979-13-45",
    b"\xff",
    b"a.a.a=1\na.a=2",
)
"""Bytes that any TOML file may have."""


@amounts
@pytest.mark.parametrize("name", SUITES)
def test_suites(tmp_path: Path, name: str, times: int) -> None:
    file, data = tmp_path / "own.toml", SUITES[name]

    def enter(case: tuple[bytes, str]) -> None:
        content, experiment = case
        file.write_bytes(content)
        suite = load_suite(file)
        for target in suite.targets:
            folders = folders_of_target(suite, target)
            if suite.hub:
                published(suite.hub, folders, "huggingface", official=True)
        _used(expand(load_experiment(experiment), suite, Options()), suite, tmp_path)

    drafter = "drafters/eagle2"
    pinned = [
        _set(data, "trees/main", "6,1 0,60"),
        _set(data, "trees/main", "6,1\t0,60"),
        _set(data, "trees/main", "³,1,4"),
        *(_set(data, f"{drafter}/folder", f"a/{{scale}}{text}") for text in ("}", "{", "{drafters", "\0", "{{", "}}")),
        _set(data, f"{drafter}/folder", "{scale!r}"),
        _set(data, f"{drafter}/folder", "{drafters}/{scale}{0}"),
        _set(data, "scales/0/value", float("nan")),
        _set(data, "scales/1/value", float("inf")),
        _set(data, "targets/" + next(iter(data["targets"])) + "/folder", "a\0b"),
        _set(data, "targets/" + next(iter(data["targets"])) + "/folder", "x" * 300),
        _set(data, "limits/seed", 2**70),
        _set(data, "limits/questions", 10**30),
        _set(data, "limits/max_length", 10**400),
        _set(data, "limits/dtype", "2000"),
    ]
    if "hub" in data:
        pinned += [_set(data, "hub/questions", text) for text in ("https://x/{file}{y}", "{file}}", "{file}{0}")]
    enter((as_toml(data), "figure1"))
    strategy = st.tuples(toml_of(data, SAID), st.sampled_from(experiment_names()))
    survives(100 * times, strategy, enter, [(content, "figure1") for content in (*pinned, *DAMAGED)])


@amounts
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments(tmp_path: Path, name: str, times: int) -> None:
    file, data = tmp_path / "own.toml", EXPERIMENTS[name]
    suites = {suite: load_suite(suite) for suite in suite_names()}

    def enter(case: tuple[bytes, str]) -> None:
        content, suite = case
        file.write_bytes(content)
        experiment = load_experiment(file)
        _used(expand(experiment, suites[suite], Options()), suites[suite], tmp_path)

    pinned = [
        _set(data, "cells/temperatures", [float("nan")]),
        _set(data, "cells/temperatures", [float("inf")]),
        _set(data, "cells/temperatures", [0, 10**400]),
        _set(data, "cells/temperatures", [0, 0.0, False]),
        _set(data, "look/panel", [float("nan"), 1.0]),
        _set(data, "look/panel", [1.0, float("inf")]),
        _set(data, "suites", {"mini": {"questions": 10**30}}),
        _set(data, "cells/benchmarks", ["\0"]),
    ]
    enter((as_toml(data), "paper"))
    strategy = st.tuples(toml_of(data, SAID), st.sampled_from(suite_names()))
    survives(25 * times, strategy, enter, [(content, "mini") for content in (*pinned, *DAMAGED)])


PARTS = st.sampled_from(
    ["6", "10", "60", "1", "2", "0", "-1", " ", ",", ",", "1 0", "\t", "٣", "³", "1_0", "9999999", "\n"]
)


@amounts
def test_trees(times: int) -> None:
    def enter(text: str) -> None:
        tree = TreeShape.parse(text)
        assert TreeShape.parse(str(tree)) == tree
        assert not tree.problem()

    survives(
        300 * times, st.lists(PARTS, max_size=8).map("".join), enter, ("6,1 0,60", "1 ,1, 2", "³,1,4", "6,10,60\n")
    )


@pytest.mark.parametrize("text", ["6,1 0,60", "6,10,6 0", "³,1,4", "6,1\t0,60"])
def test_a_tree_with_something_inside_a_number(text: str) -> None:
    with pytest.raises(UsageError, match="not a draft tree") as raised:
        TreeShape.parse(text)
    assert isinstance(raised.value, PrismError)
