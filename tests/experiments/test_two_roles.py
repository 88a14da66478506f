"""A target that takes both roles of a figure: measured once, drawn once, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import measure

from prism_ae import __main__ as entry
from prism_ae.experiments.compose import Drawing, compose
from prism_ae.experiments.expand import drawn_targets, expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite

SUITE, PAPER, MINI = load_suite("smollm2"), load_suite("paper"), load_suite("mini")


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_has_this_one_target(name: str) -> None:
    experiment = load_experiment(name)
    assert [target.name for target in drawn_targets(experiment, SUITE, Options())] == ["smollm2"]
    points = expand(experiment, SUITE, Options())
    assert len(set(points)) == len(points)
    assert {point.target for point in points} == {"smollm2"}
    for asked in ("llama-2", "smollm2"):
        assert expand(experiment, SUITE, Options(targets=(asked,))) == points


def drawn(name: str, suite: str, with_paper: bool = False) -> Drawing:
    loaded, experiment = load_suite(suite), load_experiment(name)
    measured = measure(expand(experiment, loaded, Options()), loaded)
    return compose(experiment, loaded, Options(), measured, with_paper=with_paper)


@pytest.mark.parametrize("name", ["figure4", "table4"])
def test_a_figure_of_two_targets_says_that_it_draws_one(name: str) -> None:
    said = "SmolLM2-135M stands for 2 targets (llama-2, llama-3): it is drawn once."
    drawing = drawn(name, "smollm2", with_paper=True)
    assert said in [text.text for text in drawing.page.small_print]
    assert set(drawing.rows.target) == {"smollm2"}
    assert not drawing.material.known  # two numbers for each place
    assert not any("stands for" in text.text for text in drawn(name, "mini").page.small_print)


def test_a_figure_of_one_target_is_as_ever() -> None:
    drawing = drawn("figure1", "smollm2", with_paper=True)
    assert not any("stands for" in text.text for text in drawing.page.small_print)
    assert drawing.material.known


def test_an_empty_store_is_drawn_and_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--runs-dir", str(tmp_path / "runs"), "--models-dir", str(tmp_path / "models")]
    asked = ["--suite", "smollm2", *places]
    code = entry.run(["render", "figure4", "table4", *asked, "--out", str(tmp_path / "out")])
    assert code in (0, 8), capsys.readouterr().err
    drawing = json.loads(next((tmp_path / "out").rglob("figure4.json")).read_text())
    assert drawing["cells"]["measured"] == 0
    assert entry.run(["status", *asked]) == 0
    assert "SmolLM2-135M-Instruct does not exist" in capsys.readouterr().out
    assert entry.run(["plan", "figure4", *asked]) == 0
    assert "prism-ae download --suite smollm2 --dry-run" in capsys.readouterr().out
