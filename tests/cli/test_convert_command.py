"""``prism-ae convert``: the folder it writes, the folder it reads and does not change, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from published import repack
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prism_ae import __main__ as entry
from prism_ae.cli import convert as module
from prism_ae.cli.app import app
from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts import write
from prism_ae.drafters.layouts.read import read_config, read_layout
from prism_ae.drafters.model import Drafter
from prism_ae.errors import StoreError
from prism_ae.io.digests import file_digest
from prism_ae.models.checkpoints import MANIFEST, Manifest, check_published, publish, read_manifest, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama

TARGET = LlamaConfig(40, 16, 24, 5, 4, 2, 1e-5, 500000.0, 64)
LAYER = dataclasses.replace(TARGET, num_hidden_layers=1)
PRISM = DrafterConfig("eagle", LAYER, 2, (0, 1))
STAR = dataclasses.replace(PRISM, aux_hidden_layers=(1, 2, 3))


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
    assert entry.run(["convert", "star", "--to", "huggingface", "--out", "published", "--target", "target"]) == 0
    (tmp_path / "published" / MANIFEST).unlink()
    data = json.loads((tmp_path / "published" / "config.json").read_text())
    del data["prism_ae_drafter"]
    (tmp_path / "published" / "config.json").write_text(json.dumps(data))
    return tmp_path


def test_help_has_examples_that_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["convert", "--help"]) == 0
    examples = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("    prism-ae ")]
    assert len(examples) == 4
    command = typer.main.get_command(app)
    for words in examples:
        command.commands["convert"].make_context("convert", words)  # type: ignore[attr-defined]


def test_a_drafter_is_written_and_the_one_read_stays(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(place / "star")
    capsys.readouterr()
    assert entry.run(["convert", "star", "--to", "sglang", "--out", "new/served"]) == 0
    out, err = capsys.readouterr()
    first, *notes = out.splitlines()
    assert (first, err) == ("new/served: 22 tensors in the layout sglang-prism, read from prism-ae-drafter-1", "")
    assert "fork" in notes[0]
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
    publish(
        place / "made", Manifest("drafter", "prism", "8x", {}), lambda f: save_drafter(f, Drafter(PRISM, Llama(TARGET)))
    )
    assert entry.run(["convert", "made", "--to", "huggingface", "--out", "served", "--target", "target"]) == 0
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
    assert "rope_theta" in capsys.readouterr().err
    assert entry.run([*common, "--out", "a", "--target", "target"]) == 0
    assert json.loads((place / "a" / "config.json").read_text())["rope_theta"] == 10000.0


def test_weights_become_another_dtype_only_when_asked(place: Path) -> None:
    assert entry.run(["convert", "prism", "--to", "sglang", "--out", "half", "--dtype", "bfloat16"]) == 0
    ours = load_file(place / "half" / "model.safetensors")
    theirs = load_file(place / "prism" / "model.safetensors")
    assert torch.equal(ours["fc1.weight"], theirs["modules.1.fusion.weight"].to(torch.bfloat16))
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}


# --- The target's embedding, which the authors' code takes from the drafter's folder.

EAGLE3 = DrafterConfig("eagle3", LAYER, 1, (0,), (1, 2, 3), 24)
KINDS = {
    "eagle2": DrafterConfig("eagle", LAYER),
    "hass2": DrafterConfig("eagle", dataclasses.replace(LAYER, num_hidden_layers=2)),
    "prism": PRISM,
    "star": STAR,
    "hass_star": DrafterConfig("eagle", LAYER, 1, (0,), (1, 2, 3)),
    "prism3": DrafterConfig("eagle", LAYER, 3, (0, 1, 2)),
}


def embedding_of(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["embed_tokens.weight"]


def targets_embedding(place: Path) -> torch.Tensor:
    return load_file(place / "target" / "model.safetensors")["model.embed_tokens.weight"]


def make(folder: Path, config: DrafterConfig) -> None:
    folder.mkdir()
    save_drafter(folder, Drafter(config, Llama(TARGET)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_targets_embedding_is_beside_the_drafter(place: Path, kind: str, dtype: str) -> None:
    make(place / "source", KINDS[kind])
    command = ["convert", "source", "--to", "huggingface", "--target", "target", "--dtype", dtype]
    assert entry.run([*command, "--out", "o"]) == 0
    assert torch.equal(embedding_of(place / "o"), targets_embedding(place).to(getattr(torch, dtype)))
    manifest = read_manifest(place / "o")
    assert manifest is not None
    assert manifest.recipe["embedding"] == file_digest(place / "target" / "model.safetensors")


@pytest.mark.parametrize("form", ["pickled", "shards", "pickled shards"])
def test_the_target_may_lie_in_files_of_every_form(place: Path, form: str) -> None:
    wanted = targets_embedding(place)
    repack(place / "target", form)
    assert entry.run(["convert", "prism", "--to", "huggingface", "--target", "target", "--out", "o"]) == 0
    assert torch.equal(embedding_of(place / "o"), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_without_it_nothing_is_written(place: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make(place / "source", KINDS[kind])
    before = content(place)
    assert entry.run(["convert", "source", "--to", "huggingface", "--out", "o"]) == 2
    said = capsys.readouterr().err
    assert "source" in said
    assert "--target" in said
    assert "embedding" in said
    assert content(place) == before


def test_a_folder_that_has_the_embedding_needs_no_target(place: Path) -> None:
    """And it is rounded as its drafter is."""
    given = ["--capture", "1,2,3"]
    assert entry.run(["convert", "published", "--to", "huggingface", "--out", "a", *given]) == 0
    assert torch.equal(embedding_of(place / "a"), targets_embedding(place))
    half = [*given, "--dtype", "bfloat16"]
    assert entry.run(["convert", "published", "--to", "huggingface", "--out", "b", *half]) == 0
    assert torch.equal(embedding_of(place / "b"), targets_embedding(place).bfloat16())
    # Rounded on another way than the target's own; it is still that one, and the target's is what is written.
    assert entry.run(["convert", "b", "--to", "huggingface", "--out", "c", "--target", "target"]) == 0
    assert torch.equal(embedding_of(place / "c"), targets_embedding(place).bfloat16())
    widened = ["--target", "target", "--dtype", "float32"]
    assert entry.run(["convert", "b", "--to", "huggingface", "--out", "d", *widened]) == 0
    assert torch.equal(embedding_of(place / "d"), targets_embedding(place))


@pytest.mark.parametrize("to", ["huggingface", "sglang", "own"])
@pytest.mark.parametrize("which", ["another", "one row", "negated", "shifted", "not a number"])
def test_an_embedding_that_is_not_the_targets_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], which: str, to: str
) -> None:
    file = place / "published" / "model.safetensors"
    state = load_file(file)
    embedding = state["embed_tokens.weight"]
    if which == "another":
        state["embed_tokens.weight"] = torch.randn_like(embedding)
    elif which == "one row":
        embedding[-1, -1] += 0.01
    elif which == "negated":
        embedding.neg_()
    elif which == "shifted":
        state["embed_tokens.weight"] = embedding.roll(1, 0)
    else:
        embedding[0, 0] = float("nan")
    save_file(state, file)
    command = ["convert", "published", "--to", to, "--out", "o", "--capture", "1,2,3", "--target", "target"]
    assert entry.run(command) == 5
    said = capsys.readouterr().err
    assert "embed_tokens.weight" in said
    assert str(file.relative_to(place)) in said
    assert not (place / "o").exists()


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (lambda state: state.pop("model.embed_tokens.weight"), "missing"),
        (lambda state: state.update({"model.embed_tokens.weight": torch.ones(40, 8)}), "[40, 8]"),
        (lambda state: state.update({"model.embed_tokens.weight": torch.ones(41, 16)}), "[41, 16]"),
        (lambda state: state.update({"model.embed_tokens.weight": torch.ones(40, 16, dtype=torch.int8)}), "int8"),
        (lambda state: state.update({"model.embed_tokens.weight": torch.full((40, 16), 1e6)}), "float16"),
    ],
)
def test_a_target_without_the_right_embedding_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, torch.Tensor]], object], subject: str
) -> None:
    state = load_file(place / "target" / "model.safetensors")
    change(state)
    save_file(state, place / "target" / "model.safetensors")
    command = ["convert", "prism", "--to", "huggingface", "--out", "o", "--target", "target", "--dtype", "float16"]
    assert entry.run(command) == 5
    said = capsys.readouterr().err
    assert "embed_tokens.weight" in said
    assert subject in said
    assert not (place / "o").exists()
    # It is not needed, and so not looked at, for another layout.
    assert entry.run(["convert", "prism", "--to", "sglang", "--out", "o", "--target", "target"]) == 0


def test_eagle3_has_it_where_a_target_is_named_and_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its readers take it from a target in shards, unless the config says the target's hidden size."""
    make(place / "source", EAGLE3)
    assert entry.run(["convert", "source", "--to", "huggingface", "--out", "without"]) == 0
    assert "model.safetensors.index.json" in capsys.readouterr().out
    assert "embed_tokens.weight" not in load_file(place / "without" / "model.safetensors")
    assert "target_hidden_size" not in json.loads((place / "without" / "config.json").read_text())

    before = content(place / "target")
    assert entry.run(["convert", "source", "--to", "huggingface", "--out", "with", "--target", "target"]) == 0
    assert "model.safetensors.index.json" not in capsys.readouterr().out
    assert torch.equal(embedding_of(place / "with"), targets_embedding(place))
    assert json.loads((place / "with" / "config.json").read_text())["target_hidden_size"] == 16
    assert content(place / "target") == before
    for source in ("without", "with"):
        assert entry.run(["convert", source, "--to", "own", "--out", f"{source} own"]) == 0
        assert read_config(place / f"{source} own") == EAGLE3
    assert entry.run(["convert", "with", "--to", "huggingface", "--out", "again"]) == 0
    assert torch.equal(embedding_of(place / "again"), targets_embedding(place))


@pytest.mark.parametrize(
    ("config", "to", "layers", "said"),
    [
        (STAR, "sglang", 5, "1, 2, 3"),
        (STAR, "huggingface", 5, "1, 2, 3"),
        (EAGLE3, "huggingface", 5, "1, 2, 3"),
        (dataclasses.replace(STAR, aux_hidden_layers=(3, 5, 6)), "sglang", 8, None),
        (dataclasses.replace(STAR, aux_hidden_layers=(3, 5, 6)), "sglang", 9, "3, 5, 6"),
        (dataclasses.replace(STAR, aux_hidden_layers=(3, 5, 6)), "huggingface", 8, "3, 5, 6"),
        (dataclasses.replace(STAR, aux_hidden_layers=(3, 17, 30)), "huggingface", 32, None),
        (dataclasses.replace(EAGLE3, aux_hidden_layers=(2, 4, 5)), "huggingface", 8, None),
        (dataclasses.replace(EAGLE3, aux_hidden_layers=(2, 4, 5)), "sglang", 8, None),
        (PRISM, "sglang", 5, None),
        (PRISM, "huggingface", 5, None),
        (PRISM, "own", 5, None),
    ],
)
def test_it_is_said_where_readers_take_other_states(
    place: Path, capsys: pytest.CaptureFixture[str], config: DrafterConfig, to: str, layers: int, said: str | None
) -> None:
    """Their code, not the folder, names the hidden states that PRISM* and EAGLE-3 read."""
    torch.manual_seed(0)
    target = Llama(dataclasses.replace(TARGET, num_hidden_layers=layers))
    (place / "deep").mkdir()
    save_target(place / "deep", target)
    (place / "source").mkdir()
    save_drafter(place / "source", Drafter(config, target))
    assert entry.run(["convert", "source", "--to", to, "--out", "o", "--target", "deep"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "whatever the folder says" in line]
    assert len(notes) == (said is not None)
    assert all(note.endswith(f"reads {said}") for note in notes)


@pytest.mark.parametrize("to", ["sglang", "huggingface", "own"])
def test_files_are_what_readers_of_safetensors_expect(place: Path, to: str) -> None:
    """Tensors of PyTorch's, which transformers asks for; readable by every user, whatever the umask."""
    umask = os.umask(0o077)
    try:
        assert entry.run(["convert", "star", "--to", to, "--out", "o", "--target", "target"]) == 0
    finally:
        os.umask(umask)
    with safe_open(place / "o" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert {path.stat().st_mode & 0o777 for path in (place / "o").iterdir()} == {0o644}
    assert (place / "o").stat().st_mode & 0o777 == 0o755


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
        (["prism", "--to", "own", "--out", "o", "--rope-theta", "0"], 2, "--rope-theta"),
        (["prism", "--to", "own", "--out", "o", "--rope-theta", "nan"], 2, "--rope-theta"),
        (["none", "--to", "own", "--out", "o"], 4, "none is not a folder"),
        (["prism", "--to", "own", "--out", "o", "--target", "none"], 4, "none/config.json does not exist"),
        (["prism", "--to", "own", "--out", "o", "--target", "other"], 5, "does not fit a target of 41"),
        (["star", "--to", "sglang", "--out", "o", "--target", "short"], 5, "SGLang captures 1 to 2 of its target"),
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
        (
            ["three", "--to", "sglang", "--out", "o"],
            2,
            "three cannot be written in the layout sglang-ld: it has 3 modules",
        ),
        (["prism", "--to", "huggingface", "--out", "o", "--target", "none"], 4, "none/config.json does not exist"),
        (
            ["prism", "--to", "huggingface", "--out", "o", "--target", "bare"],
            4,
            "bare/model.safetensors does not exist",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    for name, changes in (("other", {"vocab_size": 41}), ("short", {"num_hidden_layers": 3}), ("bare", {})):
        (place / name).mkdir()
        (place / name / "config.json").write_text(json.dumps(dataclasses.replace(TARGET, **changes).to_hf()))
    (place / "nowhere").symlink_to("gone")
    (place / "way").symlink_to("prism")
    one = dataclasses.replace(STAR, modules=1, step_mapping=(0,))
    for name, config in (("huge", PRISM), ("one", one), ("three", KINDS["prism3"])):
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
    assert "error: o " in capsys.readouterr().err
    assert os.listdir(place / "o") == [MANIFEST]


def test_a_target_that_is_a_file_and_a_base_beyond_all(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for options, said in (
        (["--target", "target/config.json"], "--target: target/config.json is a file"),
        (["--rope-theta", "1e308"], "--rope-theta: 1e+308"),
        (["--rope-theta", "nan"], "--rope-theta: nan"),
    ):
        assert entry.run(["convert", "prism", "--to", "own", "--out", "o", *options]) == 2
        assert said in capsys.readouterr().err
    assert not (place / "o").exists()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_not_handed_on(
    capsys: pytest.CaptureFixture[str], place: Path, value: float
) -> None:
    shutil.copytree(place / "prism", place / "spoilt")
    (place / "spoilt" / MANIFEST).unlink(missing_ok=True)
    state = load_file(place / "spoilt/model.safetensors")
    name = sorted(state)[-1]
    state[name].view(-1)[0] = value
    save_file(state, place / "spoilt/model.safetensors", metadata={"format": "pt"})
    assert entry.run(["convert", "spoilt", "--to", "own", "--out", "o"]) == 5
    assert f"'{name}'" in capsys.readouterr().err
    assert not (place / "o").exists()
