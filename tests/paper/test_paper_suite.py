"""The paper's suite as its users meet it: download, measure, draw, with tiny checkpoints under the published names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hubs, serve
from hub_world import REPOSITORIES, environment
from paper_folder import PAPER, write_paper_folder

import prism_ae.suites.load
from prism_ae.sglang_prism.version import SGLANG_VERSION

UNPUBLISHED = {"prism", "hass3", "prism3"}
"""Drafters of which the authors published no checkpoint, or not for every target and scale."""
ACCEPTANCE = ("figure1", "figure4", "figure5", "figure6", "figure9", "figure10")
SPEED = ("figure7", "figure8", "table4", "table5", "table6", "table7", "drafting", "anatomy")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the authors' hub holds, at the largest scale."""
    folder = tmp_path_factory.mktemp("published")
    write_paper_folder(folder, ["800k"])
    return folder


@pytest.fixture(scope="module")
def hubs(published: Path) -> Iterator[Hubs]:
    hubs = Hubs()
    files = {path.relative_to(published).as_posix(): path.read_bytes() for path in files_below(published)}
    hubs.questions = {name.removeprefix("benchmarks/"): files.pop(name) for name in list(files) if "benchmarks" in name}
    # The other scales are copies: nothing here compares them.
    for name, data in list(files.items()):
        if "-drafter/" in name:
            files |= {name.replace("800k", scale.name): data for scale in PAPER.scales}
    hubs.repositories[REPOSITORIES["modelscope"]] = files
    with serve(hubs):
        yield hubs


@pytest.fixture(scope="module")
def suite(hubs: Hubs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's suite with short answers; its questions come from the server."""
    text = (Path(prism_ae.suites.load.__file__).parent / "paper.toml").read_text()
    text = re.sub(
        r'^questions = """\n.*?"""', f'questions = "{hubs.address}/questions/{{file}}"', text, flags=re.M | re.S
    )
    for benchmark in PAPER.benchmarks.values():
        total = hashlib.sha256(hubs.questions[benchmark.file]).hexdigest()
        text = re.sub(rf'^{benchmark.name} = "[0-9a-f]{{64}}"', f'{benchmark.name} = "{total}"', text, flags=re.M)
    path = tmp_path_factory.mktemp("suite") / "paper.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def models(suite: Path, hubs: Hubs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder that ``prism-ae download`` leaves."""
    models = tmp_path_factory.mktemp("user") / "models"
    command(suite, models, "download", environment=environment(hubs, models.parent))
    return models


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def command(
    suite: Path, models: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``prism-ae``; fails the test where it fails."""
    said = subprocess.run(
        [sys.executable, "-m", "prism_ae", *arguments, "--suite", str(suite), "--models-dir", str(models)],
        env=os.environ | (environment or {}),
        cwd=models.parent,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said


def drawn(models: Path, name: str) -> dict[str, Any]:
    """What a drawing says about itself, its picture being there."""
    kind = "figures" if name.startswith("figure") else "tables"
    folder = models.parent / kind / "out" / "paper"
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def check_drawn(models: Path, names: Sequence[str]) -> None:
    """Every cell whose checkpoint was published is measured."""
    for name in names:
        page = drawn(models, name)
        assert {missing["drafter"] for missing in page["missing"]} <= UNPUBLISHED, name
        assert page["cells"]["measured"] + len(page["missing"]) == page["cells"]["asked"] > 0, name


def test_what_is_downloaded_is_what_was_published(published: Path, models: Path) -> None:
    for path in files_below(published):
        name = path.relative_to(published)
        assert (models / name).read_bytes() == path.read_bytes(), name


def test_figures_of_acceptance(suite: Path, models: Path) -> None:
    few = ("--questions", "1", "--benches", "qa", "--scales", "800k")
    command(suite, models, "run", *ACCEPTANCE, *few)
    check_drawn(models, ACCEPTANCE)


@pytest.mark.skipif(not SGLANG_VERSION, reason="SGLang is not installed")
def test_a_figure_of_speed(suite: Path, models: Path) -> None:
    command(suite, models, "run", "figure8", "--questions", "1", "--tree", "3,2,6", "--tree", "4,4,16")
    check_drawn(models, ["figure8"])


@pytest.mark.heavy
@pytest.mark.timeout(0)
def test_everything(suite: Path, models: Path) -> None:
    """Every figure and table, with few questions and one scale."""
    command(suite, models, "run", *ACCEPTANCE, "--questions", "2", "--scales", "800k")
    command(suite, models, "run", "figure7", "--questions", "2", "--batch-size", "2", "--benches", "qa")
    command(suite, models, "run", "figure8", "--questions", "1")
    command(suite, models, "run", *SPEED[2:], "--questions", "1", "--benches", "qa")
    check_drawn(models, [*ACCEPTANCE, *SPEED])
