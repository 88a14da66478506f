"""What lies in the place of a model's file, when fetching it went wrong, is called what it is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from raising import raises
from safetensors.torch import load_file, save_file

from prism_ae.errors import CheckpointError
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.file_kinds import what_it_is
from prism_ae.models.llama import Llama
from prism_ae.prompts.tokenizer import open_tokenizer

CONFIG = LlamaConfig(40, 16, 24, 2, 4, 2, 1e-5, 10000.0, 64)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 16060522496\n"
STAND_INS = [
    (POINTER, "is a Git-LFS pointer"),
    (POINTER.replace(b"\n", b"\r\n"), "is a Git-LFS pointer"),
    (b"\xef\xbb\xbf" + POINTER, "is a Git-LFS pointer"),
    (POINTER.replace(b"git-lfs", b"hawser"), "is a Git-LFS pointer"),
    (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
    (b"\n  <html lang='en'>" + b" " * 2000, "is a web page"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML page"),
    (b"", "is empty"),
    (gzip.compress(b"x" * 100, mtime=0), "is compressed"),
]


def target(folder: Path, form: str) -> None:
    """A target's folder in one file or shards, safetensors or pickled."""
    save_target(folder, Llama(CONFIG))
    if form == "model.safetensors":
        return
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if form == "pytorch_model.bin":
        torch.save(state, folder / form)
        return
    stem, suffix = form.split("-00002-of-00002.")
    names = sorted(state)
    shards = {f"{stem}-0000{n + 1}-of-00002.{suffix}": names[n::2] for n in range(2)}
    for shard, mine in shards.items():
        part = {name: state[name].clone() for name in mine}
        torch.save(part, folder / shard) if suffix == "bin" else save_file(part, folder / shard)
    listed = {name: shard for shard, mine in shards.items() for name in mine}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": listed}))


FILES = [
    ("model.safetensors", "model.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin"),
    ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ("pytorch_model-00002-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
    ("model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    ("pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
    ("model.safetensors", "config.json"),
]


@pytest.mark.parametrize(("form", "name"), FILES)
@pytest.mark.parametrize(("content", "said"), STAND_INS)
def test_a_target_with_another_kind_of_file(tmp_path: Path, form: str, name: str, content: bytes, said: str) -> None:
    target(tmp_path, form)
    load_target(tmp_path, torch.float32, torch.device("cpu"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_target(tmp_path, torch.float32, torch.device("cpu"))
    assert caught.value.what.startswith(f"{tmp_path / name} {said}")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("content", "said"), STAND_INS)
def test_a_tokenizer_with_another_kind_of_file(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    for each in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / each).write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_tokenizer(tmp_path)
    assert caught.value.what.startswith(f"{tmp_path / name} {said}")


@pytest.mark.parametrize("text", [b"Entry not found", b"Invalid username or password.\n", b'{"error": "Unauthorized"}'])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_servers_answer_in_words(tmp_path: Path, name: str, text: bytes) -> None:
    target(tmp_path, name)
    (tmp_path / name).write_bytes(text)
    with raises(CheckpointError, tmp_path / name, text.decode().strip()):
        load_target(tmp_path, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_an_archive_that_is_cut_off(tmp_path: Path, share: float) -> None:
    target(tmp_path, "pytorch_model.bin")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with raises(CheckpointError, file):
        load_target(tmp_path, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    "write",
    [
        lambda file: save_file({"a": torch.zeros(1)}, file),
        lambda file: torch.save({"a": torch.zeros(1)}, file),
        lambda file: torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False),
        lambda file: file.write_text("{}"),
        lambda file: file.write_bytes(b"\x80\x02}q\x00."),
    ],
)
def test_what_is_a_models_file(tmp_path: Path, write: Callable[[Path], object]) -> None:
    for name in ("a.safetensors", "b.bin", "c.json"):
        write(tmp_path / name)
        assert what_it_is(tmp_path / name) == ""
    assert what_it_is(tmp_path / "none") == ""
