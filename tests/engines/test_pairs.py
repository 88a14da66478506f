"""What a target and a drafter are together, asked before a device is taken; every engine hears the same."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shells
from safetensors.numpy import save_file

from prism_ae.cells import Point, TreeShape
from prism_ae.engines.pairs import check_branch, make_pair
from prism_ae.errors import CheckpointError, MissingError, PrismError, UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.hub.selection import folders_of_target
from prism_ae.planning.lookup import LocalLookup
from prism_ae.planning.plan import resolve
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
RECORD = PAPER.targets["llama-2-7b-chat"]
ENGINES = ("torch", "sglang")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    target, drafter = tmp_path / "target", tmp_path / "drafter"
    shells.write_target(target, "llama-2")
    shells.write_drafter(drafter)
    return target, drafter


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        place = data["layer"] if key in data.get("layer", {}) else data
        place[key] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pair_that_fits(folders: tuple[Path, Path], engine: str) -> None:
    target, drafter = folders
    pair = make_pair(RECORD, target, drafter, "draft-head", engine)
    assert (pair.target, pair.drafter, pair.capture) == (target, drafter, ())
    assert pair.config is not None
    assert pair.config.layer.vocab_size == shells.VOCABULARY
    assert make_pair(RECORD, target, None, "vanilla", engine).config is None
    assert make_pair(RECORD, target, target, "model", engine).config is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("who", "changes", "says"),
    [
        ("drafter", {"vocab_size": shells.VOCABULARY + 1}, str(shells.VOCABULARY + 1)),
        ("drafter", {"hidden_size": 10}, "hidden.size.* 10"),
        ("drafter", {"capture": [33], "format": "prism-ae-drafter-1"}, "hidden state.* 33"),
        ("drafter", {"norm_before_residual": True}, "norm_before_residual"),
        ("drafter", {"format": "other"}, "other"),
        ("target", {"tie_word_embeddings": 1, "hidden_size": None}, "hidden_size"),
        ("target", {"max_position_embeddings": None}, "max_position_embeddings"),
        ("target", {"max_position_embeddings": "4096"}, "max_position_embeddings"),
    ],
)
def test_what_does_not_fit_is_refused_alike(
    folders: tuple[Path, Path], who: str, changes: dict[str, Any], says: str, engine: str
) -> None:
    target, drafter = folders
    change(target if who == "target" else drafter, **changes)
    with pytest.raises(CheckpointError, match=says):
        make_pair(RECORD, target, drafter, "draft-head", engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_that_are_missing(folders: tuple[Path, Path], engine: str) -> None:
    target, drafter = folders
    (drafter / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="drafter"):
        make_pair(RECORD, target, drafter, "draft-head", engine)
    (target / "config.json").unlink()
    with pytest.raises(MissingError, match="target"):
        make_pair(RECORD, target, drafter, "draft-head", engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_separate_model_drafts_the_targets_tokens(folders: tuple[Path, Path], tmp_path: Path, engine: str) -> None:
    target, _ = folders
    shutil.copytree(target, tmp_path / "small")
    change(tmp_path / "small", vocab_size=9)
    with pytest.raises(CheckpointError, match="9 tokens"):
        make_pair(RECORD, target, tmp_path / "small", "model", engine)


def test_what_one_engine_cannot_run_the_other_may(folders: tuple[Path, Path]) -> None:
    target, drafter = folders
    change(target, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(CheckpointError, match="yarn"):
        make_pair(RECORD, target, drafter, "draft-head", "torch")
    assert make_pair(RECORD, target, drafter, "draft-head", "sglang").config


def test_a_tree_wider_than_the_drafters_vocabulary(folders: tuple[Path, Path]) -> None:
    pair = make_pair(RECORD, *folders, "draft-head", "torch")
    check_branch(pair.config, pair.drafter, TreeShape(2, shells.VOCABULARY, 10))
    check_branch(pair.config, pair.drafter, None)
    with pytest.raises(UsageError, match=str(shells.VOCABULARY)):
        check_branch(pair.config, pair.drafter, TreeShape(2, shells.VOCABULARY + 1, 10))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    names = [folder for target in PAPER.targets for folder in folders_of_target(PAPER, target)]
    shells.write_suite_folders(place, PAPER, names)
    for benchmark in PAPER.benchmarks.values():
        path = place / "benchmarks" / benchmark.file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"question_id": n, "turns": ["a question"] * benchmark.turns}) for n in range(80)]
        path.write_text("\n".join(lines))
    return place


def points(engine: str) -> tuple[Point, ...]:
    options = Options(targets=(RECORD.name,), benches=("qa",), engine=engine)
    return expand(load_experiment("figure4"), PAPER, options)


def test_a_plan_leaves_out_what_does_not_fit_and_keeps_the_rest(models: Path) -> None:
    whole = resolve(points("torch"), LocalLookup(PAPER, models))
    folders = {whole.folders[point][1] for point in whole.cells if point.drafter == "hass"}
    assert all(folders)
    for folder in folders:
        assert folder is not None
        change(folder, vocab_size=9)
    less = resolve(points("torch"), LocalLookup(PAPER, models))
    assert {one.point.drafter for one in less.missing} - {one.point.drafter for one in whole.missing} == {"hass"}
    assert all("vocabulary 9" in one.reason for one in less.missing if one.point.drafter == "hass")
    assert {point.drafter for point in less.cells} == {point.drafter for point in whole.cells} - {"hass"}


def test_a_target_that_no_engine_can_read_alike_stops_all_its_points(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    target = tmp_path / "models" / RECORD.folder
    save_file({"model.norm.weight": np.ones(8, np.float32)}, target / "model.safetensors")
    for engine in ENGINES:
        lookup = LocalLookup(PAPER, tmp_path / "models")
        asked = [point for point in points("torch") if point.drafter == "vanilla"]
        for point in asked:
            error = lookup.pair_problem(dataclasses.replace(point, engine=engine))
            assert isinstance(error, PrismError)
            assert "lm_head.weight" in error.what


def test_asking_imports_no_torch(folders: tuple[Path, Path]) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from prism_ae.engines.pairs import make_pair\n"
        "from prism_ae.suites.load import load_suite\n"
        "record = load_suite('paper').targets['llama-2-7b-chat']\n"
        "for engine in ('torch', 'sglang'):\n"
        "    make_pair(record, Path(sys.argv[1]), Path(sys.argv[2]), 'draft-head', engine)\n"
        "print({'torch', 'transformers', 'sglang'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *map(str, folders)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"


def add_weights(target: Path, name: str) -> None:
    save_file({"lm_head.weight": np.ones(1, np.float32)}, target / name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "more",
    [
        ["model_before_merge.safetensors"],
        ["adapter_model.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    ],
)
def test_weights_that_engines_would_read_differently_are_refused(
    folders: tuple[Path, Path], engine: str, more: list[str]
) -> None:
    """The torch engine reads one file, SGLang all that lie there, or what an index lists."""
    target, drafter = folders
    for name in more:
        add_weights(target, name)
    with pytest.raises(CheckpointError, match=re.escape(more[0])):
        make_pair(RECORD, target, drafter, "draft-head", engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_pickled_weights_beside_others(folders: tuple[Path, Path], engine: str) -> None:
    import torch

    target, _ = folders
    (target / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.zeros(1)}, target / "pytorch_model.bin")
    torch.save({}, target / "training_args.bin")
    make_pair(RECORD, target, None, "vanilla", engine)
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (target / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match=name):
            make_pair(RECORD, target, None, "vanilla", engine)
        (target / name).unlink()
    # Pickled weights beside safetensors are not read by either.
    add_weights(target, "model.safetensors")
    make_pair(RECORD, target, None, "vanilla", engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("key", ["rope_theta", "rope_parameters", "rope_scaling"])
def test_a_base_that_nobody_names_is_refused_before_anything_runs(
    folders: tuple[Path, Path], engine: str, key: str
) -> None:
    """The target's is not taken for the drafter's, wherever its config.json says it."""
    target, drafter = folders
    change(target, rope_theta=None)
    change(target, **{key: 500000.0 if key == "rope_theta" else {"rope_type": "default", "rope_theta": 500000.0}})
    head = json.loads((drafter / "config.json").read_text())["layer"]
    del head["rope_theta"]
    data = {**head, "architectures": ["LlamaForCausalLMEagle"], "model_type": "llama"}
    (drafter / "config.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    save_file({"fc.weight": np.zeros(1, np.float32)}, drafter / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"rope_theta.*500000"):
        make_pair(RECORD, target, drafter, "draft-head", engine)
