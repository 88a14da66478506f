"""A kind of figure that another package brings: found by its entry point, read, measured, judged and drawn."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from synthetic import measure, render

from prism_ae.errors import ConfigError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.kinds import KINDS, find_kind
from prism_ae.experiments.load import experiment_folder, experiment_names, load_experiment, parse_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite

TOY = '''
from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from prism_ae.drawing.curves import CurveGrid, Panel
from prism_ae.experiments.kinds.acceptance import Curves
from prism_ae.experiments.kinds.scaling import Scaling
from prism_ae.experiments.records import Look
from prism_ae.io.schema import record


@record
class ToyLook(Look):
    loud: bool


@record
class Toy(Scaling):
    """All targets and temperatures in one panel."""

    kind: Literal["toy"]
    look: ToyLook

    def means(self, *, micro: bool) -> list[str]:
        return ["A toy's numbers" + ("!" if self.look.loud else "")]

    def painter(self, material):
        curves = Curves(self, material)
        panel = Panel(0, 0, "", curves.measured, ())
        return CurveGrid(material, (panel,), self.look.panel, "scale", "AL", mixed=True)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package, installed."""
    (tmp_path / "toy_figures.py").write_text(TOY)
    info = tmp_path / "toy_figures-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-figures\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[prism_ae.kinds]\ntoy = toy_figures:Toy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_figures", raising=False)


def tables() -> dict[str, object]:
    data = tomllib.loads((experiment_folder() / "figure5.toml").read_text())
    part = {"drafters": ["prism"], "against": ["eagle3"], "above": 0.0}
    claims = [{"id": "M1", "text": "PRISM is above EAGLE-3", "parts": [part]}]
    return data | {"name": "mine", "kind": "toy", "look": {"panel": [3.0, 3.0], "loud": True}, "claims": claims}


@pytest.mark.usefixtures("toy")
def test_a_kind_of_another_package_is_drawn(tmp_path: Path) -> None:
    suite, options = load_suite("mini"), Options(questions=3, scales=("1x", "8x"))
    experiment = parse_experiment(tables(), "mine.toml")
    measured = measure(expand(experiment, suite, options), suite)
    files = render(experiment, suite, options, measured, tmp_path / "out")
    assert [path.name for path in files] == ["mine.pdf", "mine.csv", "mine.json"]
    assert "A toy's numbers!. Mean over 6 benchmarks" in files[2].read_text()
    assert '"sentence": "M1: PRISM' in files[2].read_text()


@pytest.mark.usefixtures("toy")
def test_its_fields_are_checked_like_any() -> None:
    data = tables()
    data["look"] = {"panel": [3.0, 3.0], "loud": "yes"}
    with pytest.raises(ConfigError, match=r"mine\.toml: look\.loud: "):
        parse_experiment(data, "mine.toml")


def test_an_unknown_kind_is_answered_with_those_that_there_are() -> None:
    for kind, said in (
        ("toy", "there is no 'toy'"),
        ("scaling-men", "did you mean 'scaling-mean'"),
        (3, "there is no"),
    ):
        with pytest.raises(ConfigError, match=rf"mine\.toml: kind: .*{said}"):
            find_kind(kind, "mine.toml")
    with pytest.raises(ConfigError, match="'kind' is missing"):
        find_kind(None, "mine.toml")


def test_every_kind_is_drawn_by_an_experiment() -> None:
    assert {load_experiment(name).kind for name in experiment_names()} == set(KINDS)
