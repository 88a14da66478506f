"""``prism-ae convert``: the folder it writes, the folder it reads and does not change, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from prism_ae import __main__ as entry
from prism_ae.checkpoints import MANIFEST, Manifest, check_published, publish, read_manifest, save_target
from prism_ae.cli import convert as module
from prism_ae.cli.app import app
from prism_ae.drafters.layout import save_drafter
from prism_ae.drafters.layouts import write
from prism_ae.drafters.layouts.read import read_config, read_layout
from prism_ae.drafters.model import Drafter, DrafterConfig
from prism_ae.errors import StoreError
from prism_ae.fingerprint import file_digest
from prism_ae.llama import Llama, LlamaConfig

TARGET = LlamaConfig(40, 16, 24, 5, 4, 2, 1e-5, 500000.0, 64)
LAYER = dataclasses.replace(TARGET, num_hidden_layers=1)
PRISM = DrafterConfig("eagle", LAYER, 2, (0, 1))
STAR = dataclasses.replace(PRISM, capture=(1, 2, 3))


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All that is in it: what every file holds, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: ``target``; ``prism`` and ``star`` in the own layout, ``published`` in the authors'."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    target = Llama(TARGET)
    for name in ("target", "prism", "star"):
        (tmp_path / name).mkdir()
    save_target(tmp_path / "target", target)
    save_drafter(tmp_path / "prism", Drafter(PRISM, target))
    save_drafter(tmp_path / "star", Drafter(STAR, target))
    assert entry.run(["convert", "star", "--to", "huggingface", "--out", "published"]) == 0
    (tmp_path / "published" / MANIFEST).unlink()
    data = json.loads((tmp_path / "published" / "config.json").read_text())
    del data["prism_ae_drafter"]
    (tmp_path / "published" / "config.json").write_text(json.dumps(data))
    return tmp_path


def test_help_has_examples_that_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["convert", "--help"]) == 0
    examples = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("    prism-ae ")]
    assert len(examples) == 3
    command = typer.main.get_command(app)
    for words in examples:
        command.commands["convert"].make_context("convert", words)  # type: ignore[attr-defined]


def test_a_drafter_is_written_and_the_one_read_stays(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(place / "star")
    capsys.readouterr()
    assert entry.run(["convert", "star", "--to", "sglang", "--out", "new/served"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (
        "new/served: 22 tensors in the layout sglang-prism, read from prism-ae-drafter-1\n",
        "",
    )
    assert content(place / "star") == before
    served = place / "new" / "served"
    assert [path.name for path in served.parent.iterdir()] == ["served"]
    assert {path.name for path in served.iterdir()} == {"config.json", "model.safetensors", MANIFEST}
    assert (read_layout(served), read_config(served)) == ("sglang-prism", STAR)
    assert entry.run(["convert", "new/served", "--to", "own", "--out", "back"]) == 0
    for name in ("config.json", "model.safetensors"):
        assert (place / "back" / name).read_bytes() == (place / "star" / name).read_bytes()


def test_a_folder_says_what_it_is_made_from(place: Path) -> None:
    assert entry.run(["convert", "star", "--to", "sglang", "--out", "served"]) == 0
    check_published(place / "served")
    manifest = read_manifest(place / "served")
    assert manifest is not None
    assert (manifest.kind, manifest.name, manifest.scale) == ("drafter", "star", None)
    recipe = dict(manifest.recipe)
    sums = {name: file_digest(place / "star" / name) for name in ("config.json", "model.safetensors")}
    assert recipe.pop("files") == sums
    assert recipe.pop("config")["capture"] == [1, 2, 3]
    assert recipe == {"kind": "converted", "layout": "sglang-prism", "dtype": None}


def test_a_published_drafter_keeps_its_name_and_scale(place: Path) -> None:
    publish(place / "made", "drafter", "prism", "8x", {}, {}, lambda f: save_drafter(f, Drafter(PRISM, Llama(TARGET))))
    assert entry.run(["convert", "made", "--to", "huggingface", "--out", "served"]) == 0
    manifest = read_manifest(place / "served")
    assert manifest is not None
    assert (manifest.name, manifest.scale) == ("prism", "8x")


def test_what_the_folder_does_not_say_is_given(place: Path) -> None:
    common = ["convert", "published", "--to", "own", "--target", "target"]
    assert entry.run([*common, "--out", "a", "--capture", "1, 2,3"]) == 0
    assert read_config(place / "a") == STAR
    assert entry.run([*common, "--out", "b", "--capture", "1,2,3", "--rope-theta", "1e4"]) == 0
    layer = dataclasses.replace(LAYER, rope_theta=10000.0)
    assert read_config(place / "b") == dataclasses.replace(STAR, layer=layer)


def test_a_base_that_the_folder_does_not_name_is_the_targets_if_that_names_none(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the authors' folders for LLaMA-2; what is written names it."""
    for file in ("published", "target"):
        text = (place / file / "config.json").read_text()
        (place / file / "config.json").write_text(text.replace('"rope_theta": 500000.0,', ""))
    common = ["convert", "published", "--to", "sglang", "--capture", "1,2,3"]
    assert entry.run([*common, "--out", "a"]) == 5
    assert "rope_theta is missing" in capsys.readouterr().err
    assert entry.run([*common, "--out", "a", "--target", "target"]) == 0
    assert json.loads((place / "a" / "config.json").read_text())["rope_theta"] == 10000.0


def test_weights_become_another_dtype_only_when_asked(place: Path) -> None:
    assert entry.run(["convert", "prism", "--to", "sglang", "--out", "half", "--dtype", "bfloat16"]) == 0
    ours = load_file(place / "half" / "model.safetensors")
    theirs = load_file(place / "prism" / "model.safetensors")
    assert torch.equal(ours["fc1.weight"], theirs["modules.1.fusion.weight"].to(torch.bfloat16))
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["prism", "--to", "sglan", "--out", "o"], 2, "--to: there is no 'sglan'; did you mean 'sglang'?\n  known: "),
        (["prism", "--out", "o"], 2, "--to"),
        (["prism", "--to", "own"], 2, "--out"),
        (["prism", "--to", "own", "--out", "o", "--dtype", "int8"], 2, "--dtype: there is no 'int8'"),
        (["published", "--to", "own", "--out", "o"], 5, "which hidden states of the target the drafter reads"),
        (["published", "--to", "own", "--out", "o", "--capture", "1,b"], 2, "'1,b' is not a list of hidden states"),
        (["published", "--to", "own", "--out", "o", "--capture", "1,-2"], 2, "'1,-2' is not a list of hidden states"),
        (["published", "--to", "own", "--out", "o", "--capture", ""], 2, "'' is not a list of hidden states"),
        (["published", "--to", "own", "--out", "o", "--capture", "1,2"], 5, "'fusion_layer.weight' has shape"),
        (
            ["star", "--to", "own", "--out", "o", "--capture", "1,2,4"],
            2,
            "star says which hidden states it reads: 1,2,3",
        ),
        (["prism", "--to", "own", "--out", "o", "--capture", "1,2,3"], 2, "it reads: the last one alone"),
        (["prism", "--to", "own", "--out", "o", "--rope-theta", "0"], 2, "--rope-theta: 0 is no RoPE base"),
        (["prism", "--to", "own", "--out", "o", "--rope-theta", "nan"], 2, "--rope-theta: nan is no RoPE base"),
        (["none", "--to", "own", "--out", "o"], 4, "none is not a folder"),
        (["prism", "--to", "own", "--out", "o", "--target", "none"], 4, "none/config.json does not exist"),
        (["prism", "--to", "own", "--out", "o", "--target", "other"], 5, "does not fit a target of 41"),
        (["star", "--to", "sglang", "--out", "o", "--target", "short"], 5, "SGLang captures 1 to 2 of the target"),
        (["prism", "--to", "own", "--out", "prism"], 2, "--out: prism is in prism, which is not changed"),
        (["prism", "--to", "own", "--out", "prism/deep/o"], 2, "is in prism, which is not changed"),
        (["prism", "--to", "own", "--out", "way/o"], 2, "is in prism, which is not changed"),
        (["prism", "--to", "own", "--out", "star"], 2, "star exists already"),
        (["prism", "--to", "own", "--out", "nowhere"], 2, "nowhere exists already"),
        (["prism", "--to", "own", "--out", "star/config.json/o"], 7, "cannot write to star/config.json"),
        (["huge", "--to", "own", "--out", "o", "--dtype", "float16"], 5, "values too large for float16"),
        (
            ["one", "--to", "sglang", "--out", "o"],
            2,
            "one cannot be written in the layout sglang-prism: it has one module",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    for name, changes in (("other", {"vocab_size": 41}), ("short", {"num_hidden_layers": 3})):
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps(dataclasses.replace(TARGET, **changes).to_hf()))
    (place / "nowhere").symlink_to("gone")
    (place / "way").symlink_to("prism")
    for name, config in (("huge", PRISM), ("one", dataclasses.replace(STAR, modules=1, step_mapping=(0,)))):
        (place / name).mkdir()
        save_drafter(place / name, Drafter(config, Llama(TARGET)))
    state = load_file(place / "huge" / "model.safetensors")
    save_file({name: tensor * 1e6 for name, tensor in state.items()}, place / "huge" / "model.safetensors")
    before = content(place)
    capsys.readouterr()
    assert entry.run(["convert", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert content(place) == before


def test_a_full_disk_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, tensors: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise StoreError("cannot write: no space", "free some space")

    monkeypatch.setattr(write, "write_weights", full)
    before = sorted(place.iterdir())
    assert entry.run(["convert", "prism", "--to", "own", "--out", "o"]) == 7
    assert sorted(place.iterdir()) == before


def test_a_folder_that_appears_meanwhile_stays(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another's making, complete: nothing of it is taken for ours."""

    def appear(drafter: Path, out: Path) -> None:
        (place / "o").mkdir()
        (place / "o" / MANIFEST).write_text(json.dumps(dataclasses.asdict(Manifest("drafter", "x", None, {}, {}, {}))))

    monkeypatch.setattr(module, "_check_places", appear)
    assert entry.run(["convert", "prism", "--to", "own", "--out", "o"]) == 2
    assert "o exists already" in capsys.readouterr().err
    assert os.listdir(place / "o") == [MANIFEST]
