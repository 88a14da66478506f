"""The experiments' files: what they hold, and what is said about a wrong one."""

from __future__ import annotations

import copy
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raising import raises
from timed_experiments import tables

from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments import load
from prism_ae.experiments.load import FOLDERS, experiment_folder, experiment_names, load_experiment, parse_experiment
from prism_ae.suites.load import load_suite

ACCEPTANCE = ("figure1", "figure4", "figure5", "figure6", "figure9", "figure10")


def test_figures_then_tables_each_in_order() -> None:
    names = experiment_names()
    assert tuple(name for name in names if name in ACCEPTANCE) == ACCEPTANCE
    files = [[path.stem for path in experiment_folder(kind).glob("*.toml")] for kind in FOLDERS]
    assert FOLDERS == ("figures", "tables")
    assert sorted(names) == sorted(files[0] + files[1])
    assert set(names[: len(files[0])]) == set(files[0])


def test_both_folders_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {kind: tmp_path / kind for kind in FOLDERS}
    for kind, names in {"figures": ["figure10", "figure2"], "tables": ["table7", "table10", "table4"]}.items():
        places[kind].mkdir()
        for name in names:
            text = (experiment_folder() / "figure5.toml").read_text().replace('"figure5"', f'"{name}"', 1)
            (places[kind] / f"{name}.toml").write_text(text)
    monkeypatch.setattr(load, "experiment_folder", places.__getitem__)
    assert experiment_names() == ("figure2", "figure10", "table4", "table7", "table10")
    assert load_experiment("table7").name == "table7"
    with raises(UsageError, "'tabel7'", "'table7'"):
        load_experiment("tabel7")


@pytest.mark.parametrize("name", experiment_names())
def test_every_file_is_sound_and_fits_both_suites(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    for suite_name in ("mini", "paper"):
        suite = load_suite(suite_name)
        asked = (*experiment.drafters_for(suite_name), *experiment.added, *experiment.controls_for(suite_name))
        for drafter in asked:
            assert drafter in suite.drafters
        assert all(suite.drafters[drafter].control for drafter in experiment.controls_for(suite_name))
    values = [scale.value for scale in load_suite("paper").scales]
    if experiment.kind.startswith("scaling"):
        assert list(experiment.paper.x) == values


def test_prism_and_prism_star_are_never_one_curve() -> None:
    for name in experiment_names():
        experiment = load_experiment(name)
        styles = [(series.color, series.marker) for series in experiment.series]
        assert len(set(styles)) == len(styles)
        markers = [series.marker for series in experiment.series]
        assert len(set(markers)) == len(markers), "markers alone must tell the curves apart"


@pytest.mark.parametrize(
    ("name", "drafter", "temperature", "benchmark", "y"),
    [
        # Read off the tables of the artifact, independently of the file.
        ("figure5", "eagle3", 0, "", (4.89999, 5.13232, 5.32602, 5.41965, 5.45325)),
        ("figure5", "prism", 1, "", (4.64953, 4.84429, 4.99035, 5.03502, 5.08408)),
        ("figure6", "hass3", 0, "", (4.64, 5.06, 5.29, 5.3, 5.36)),
        ("figure9", "prism3", 1, "", (5.14, 5.29, 5.41, 5.49, 5.46)),
        ("figure10", "prism_star", 0, "", (3.99624, 4.06834, 4.18146, 4.2187, 4.23785)),
        ("figure10", "prism", 0, "", (3.81927, 3.92698)),
        ("figure4", "hass", 1, "humaneval", (5.37265, 5.587, 5.66884, 5.64579, 5.58696)),
        ("figure1", "eagle2", 0, "", (0.95472, 0.87516, 0.80179, 0.75072, 0.70874, 0.68369)),
    ],
)
def test_paper_values(name: str, drafter: str, temperature: float, benchmark: str, y: tuple[float, ...]) -> None:
    curves = load_experiment(name).paper.values
    key = (drafter, temperature, benchmark)
    found = [curve.y for curve in curves if (curve.drafter, curve.temperature, curve.benchmark) == key]
    assert y in found


def test_paper_curves_are_complete_and_listed_once() -> None:
    """Figure 4: 2 targets, 4 drafters, 2 temperatures, 6 benchmarks."""
    curves = load_experiment("figure4").paper.values
    keys = {(curve.role, curve.drafter, curve.temperature, curve.benchmark) for curve in curves}
    assert len(keys) == len(curves) == 2 * 4 * 2 * 6


def test_an_unknown_name_is_answered_with_what_there_is() -> None:
    with pytest.raises(UsageError) as caught:
        load_experiment("figur4")
    assert "'figure4'" in caught.value.what
    assert "figure10" in caught.value.hint


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    shutil.copy(experiment_folder() / "figure5.toml", path)
    assert load_experiment(path) == load_experiment("figure5")
    with raises(ConfigError, tmp_path / "other.toml"):
        load_experiment(tmp_path / "other.toml")


def _claim(**changes: Any) -> dict[str, Any]:
    part = {"drafters": ["prism"], "against": ["eagle2"], "above": 0.0, "statistic": "ratio"} | changes
    return {
        "id": "X",
        "text": "it is better",
        "parts": [{key: value for key, value in part.items() if value is not None}],
    }


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("drafter", value=["hass"]), "'drafter'.*'drafters'"),
        (_set("cells", "scale", value="all"), "'cells.scale'.*'scales'"),
        (_set("cells", "scales", value="biggest"), "cells.scales: .*'all'.*'largest'"),
        (_set("cells", "temperatures", value=[0, -1]), "cells.temperatures: "),
        (_set("cells", "benchmarks", value=[]), "cells.benchmarks: "),
        (_set("kind", value="positions"), "cells.scales: .*'largest'"),
        (_set("kind", value="positions"), "look.panels: .*'temperature'"),
        (
            _set("drafters", value=["eagle3", "prsm"]),
            "drafters: .*'prsm'.*'prism'",
        ),
        (_set("suites", "paper", "drafters", value=["hass"]), "suites.paper.drafters: .*'hass'"),
        (_set("claims", value=[_claim(above=None)]), "claims.0.parts.0.above: "),
        (_set("claims", value=[_claim(trend="gain")]), "claims.0.parts.0.since: "),
        (_set("claims", value=[_claim(quantity="tps")]), "claims.0.parts.0: 'tps'"),
        (_set("claims", value=[_claim(against=["hss"])]), "claims.0.parts.0: 'hss'.*eagle3"),
        (_set("claims", value=[_claim(experiment="figure6")]), "claims.0.parts.0.experiment: "),
        (_set("paper", "values", 0, "quantity", value="tps"), "paper.values.0.quantity: "),
        (_set("look", "positions", value=3), "'look.positions'"),
        (_set("series", 0, "color", value="blue"), "series.0.color: .*'blue'"),
        (_set("series", 0, "marker", value="round"), "series.0.marker: "),
        (_set("paper", "values", 0, "y", value=[1.0]), "paper.values.0: .*1.*5"),
        (_set("paper", "values", 0, "role", value="llama-2"), "paper.values.0.role: .*'llama-2'"),
        (_set("name", value="a/b"), "name: .*'a/b'"),
    ],
)
def test_a_wrong_file_is_refused_with_file_key_and_remedy(change: Callable[[dict[str, Any]], None], said: str) -> None:
    data = copy.deepcopy(tomllib.loads((experiment_folder() / "figure5.toml").read_text()))
    parse_experiment(copy.deepcopy(data), "my.toml")
    change(data)
    with pytest.raises(ConfigError, match=f"my.toml: .*{said}"):
        parse_experiment(data, "my.toml")


def _curve(**keys: Any) -> list[dict[str, Any]]:
    return [{"role": "llama-2", "drafter": "prism", "temperature": 0, **keys}]


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("batches", _set("cells", "batches", value=[]), "cells.batches: "),
        ("batches", _set("cells", "batches", value=[2, 0]), "cells.batches: .*1"),
        ("batches", _set("cells", "batches", value=[2, 2]), "cells.batches: "),
        ("trees", _set("cells", "batches", value=[1, 2]), "cells.batches: "),
        ("table", _set("cells", "batches", value=[1, 2]), "cells.batches: "),
        ("table", _set("cells", "batches", value=[]), "cells.batches: "),
        ("table", _set("cells", "scales", value="all"), "cells.scales: .*'largest'"),
        ("batches", _set("cells", "tree", value=""), "cells.tree: "),
        ("trees", _set("cells", "tree", value="main"), "cells.tree: "),
        ("batches", _set("cells", "trees", value=["3,2,6"]), "'cells.trees'"),
        ("trees", _set("cells", "trees", value=[]), "cells.trees: "),
        ("trees", _set("cells", "trees", value=["3,2,6", "3,2,6"]), "cells.trees: "),
        ("trees", _set("cells", "trees", value=["3,2,6", "3,2"]), "cells.trees.1: .*'3,2'"),
        ("trees", _set("cells", "trees", value=["2,2,60"]), "cells.trees.0: .*2,2,60.*7"),
        ("batches", _set("cells", "drafting", value=[]), "cells.drafting: "),
        ("batches", _set("cells", "drafting", value=["exact", "exact"]), "cells.drafting: "),
        ("batches", _set("cells", "drafting", value=["sloppy"]), "cells.drafting.0: .*'exact'.*'stock'"),
        ("batches", _set("look", "panels", value="benchmark"), "look.panels: .*'target'"),
        ("batches", _set("drafters", value=["hass2"]), "drafters: .*'hass2'"),
        ("table", _set("look", "layout", value=""), "look.layout: .*'methods-on-rows'"),
        ("trees", _set("look", "layout", value="drafting"), "'look.layout'"),
        ("trees", _set("look", "right_label", value=""), "look.right_label: "),
        ("batches", _set("look", "right_color", value="#000000"), "'look.right_color'"),
        ("trees", _set("look", "right_color", value="red"), "look.right_color: .*'red'"),
        ("batches", _set("claims", value=[_claim(quantity="tsp")]), "claims.0.parts.0.quantity: .*'tps'"),
        ("trees", _set("claims", value=[_claim(against=[], trees=["3,2,6"])]), "claims.0.parts.0.trees: "),
        (
            "trees",
            _set("claims", value=[_claim(against=[], trees=["3,2", "3,2,6"])]),
            "claims.0.parts.0.trees.0: .*'3,2'",
        ),
        ("trees", _set("claims", value=[_claim(against=[], trees=["4,2,6", "3,2,6"])]), "claims.0.parts.0: '4,2,6'"),
        (
            "table",
            _set("paper", "values", value=_curve(x=[7], y=[1])),
            "paper.values.0.x: .*1.*6",
        ),
        (
            "trees",
            _set("paper", "values", value=_curve(x=[0], y=[1])),
            "paper.values.0.x: .*1.*3",
        ),
        (
            "table",
            _set("paper", "values", value=_curve(benchmark="qa", y=[])),
            "paper.values.0.benchmark: ",
        ),
        ("batches", _set("suites", value={"mini": {"questions": 0}}), "suites.mini.questions: .*1"),
        ("batches", _set("added", value=["hass", "hass"]), "added: .*twice"),
        ("batches", _set("added", value=["prism"]), "added: .*one of drafters"),
        ("batches", _set("added", value=["hass2"]), "added: 'hass2' has no"),
        (
            "batches",
            lambda data: data.update(added=["hass"], paper=data["paper"] | {"values": _curve(drafter="hass", y=[])}),
            "paper.values.0.drafter: 'hass' is among 'added'",
        ),
    ],
)
def test_a_wrong_file_about_time_is_refused(kind: str, change: Callable[[dict[str, Any]], None], said: str) -> None:
    data = tables(kind)
    parse_experiment(copy.deepcopy(data), "my.toml")
    change(data)
    with pytest.raises(ConfigError, match=f"my.toml: .*{said}"):
        parse_experiment(data, "my.toml")


def test_stock_drafting_belongs_to_one_engine() -> None:
    with pytest.raises(ConfigError, match=r"cells\.drafting: the engine torch has one way of drafting, 'exact'"):
        parse_experiment(tables(engine="torch", drafting=["exact", "stock"]), "my.toml")
    assert parse_experiment(tables(drafting=["stock"]), "my.toml").cells.drafting == ("stock",)


@pytest.mark.parametrize(("key", "value"), [("batches", [1]), ("trees", ["3,2,6"])])
def test_what_belongs_to_time_is_refused_elsewhere(key: str, value: list[object]) -> None:
    data = tomllib.loads((experiment_folder() / "figure5.toml").read_text())
    data["cells"][key] = value
    with pytest.raises(ConfigError, match=f"my.toml: unknown key 'cells.{key}'"):
        parse_experiment(data, "my.toml")
