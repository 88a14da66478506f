"""What is written is what each of its readers looks for: see `readers`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from published import CAPTURE, DRAFTERS, TARGET, make_drafter, make_target, read_state, write
from readers import READERS, REQUIRED, Reader
from safetensors import safe_open
from transformers import AutoConfig

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts import readers as readers_module
from prism_ae.drafters.layouts.read import read_drafter, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import LAYOUTS, OWN
from prism_ae.drafters.layouts.write import in_layout, layout_for, write_files

SIZES = TargetSizes.of(TARGET)
CASES = [(name, kind) for name, reader in READERS.items() for kind in reader.kinds]
EMBEDDED = ("LDModel", "Eagle3, embedding in the folder")


def folder_for(place: Path, name: str, kind: str) -> Path:
    """The drafter as it is written for a reader."""
    write(place / "own", f"own {kind}", make_drafter(kind, make_target()))
    stored = read_drafter(place / "own", SIZES)
    embedding = make_target().embedding.weight if name in EMBEDDED else None
    folder = place / "written"
    folder.mkdir()
    layout = layout_for(READERS[name].form, stored.config)
    write_files(folder, *in_layout(stored.config, stored.state, layout, "the drafter", embedding))
    return folder


def complaints(
    reader: Reader, config: DrafterConfig, data: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What a reader would miss or take for something else."""
    wanted = reader.tensors(config)
    found = [f"{name} is missing" for name in wanted if name not in shapes]
    found += [f"{name} is not read" for name in shapes if name not in wanted and name not in reader.ignored]
    found += [f"{name} has another shape" for name in wanted if shapes.get(name, wanted[name]) != wanted[name]]
    for key, (absent, needed) in reader.keys(config).items():
        *nests, last = key.split(".")
        inner: Any = data
        for nest in nests:
            inner = inner.get(nest, {})
        value = inner.get(last, absent)
        if value is REQUIRED or type(value) is not type(needed) or value != needed:
            found.append(f"{key} is {value!r} instead of {needed!r}")
    return found


def content(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    data = json.loads((folder / "config.json").read_text())
    return data, {name: tuple(tensor.shape) for name, tensor in read_state(folder).items()}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_reader_finds_all_that_it_looks_for_and_nothing_else(tmp_path: Path, name: str, kind: str) -> None:
    data, shapes = content(folder_for(tmp_path, name, kind))
    assert complaints(READERS[name], DRAFTERS[kind], data, shapes) == []


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_whatever_a_reader_would_misread_is_noticed(tmp_path: Path, name: str, kind: str) -> None:
    """One tensor less, one more; one key less, or another value."""
    reader, config = READERS[name], DRAFTERS[kind]
    data, shapes = content(folder_for(tmp_path, name, kind))
    for tensor in reader.tensors(config):
        fewer = {one: shape for one, shape in shapes.items() if one != tensor}
        assert complaints(reader, config, data, fewer) == [f"{tensor} is missing"]
    assert complaints(reader, config, data, shapes | {"midlayer.2.mlp.up_proj.weight": (1,)})
    for key in reader.keys(config):
        *nests, last = key.split(".")
        changed = json.loads(json.dumps(data))
        inner = changed
        for nest in nests:
            inner = inner.setdefault(nest, {})
        inner[last] = "another"
        assert complaints(reader, config, changed, shapes) == [
            f"{key} is 'another' instead of {reader.keys(config)[key][1]!r}"
        ]


def test_all_that_is_written_has_a_reader_in_the_table() -> None:
    read = {layout_for(reader.form, DRAFTERS[kind]).name for reader in READERS.values() for kind in reader.kinds}
    assert read == {layout_for(form, DRAFTERS[kind]).name for form in ("sglang", "huggingface") for kind in DRAFTERS}
    assert read < {layout.name for layout in LAYOUTS} - {OWN.name}
    for kind in DRAFTERS:
        forms = {reader.form for reader in READERS.values() if kind in reader.kinds}
        assert forms == ({"huggingface"} if kind == "prism3" else {"sglang", "huggingface"})


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_file_that_is_written_is_the_first_that_a_reader_finds(tmp_path: Path, name: str, kind: str) -> None:
    folder = folder_for(tmp_path, name, kind)
    first = next(path for pattern in READERS[name].files for path in folder.glob(pattern))
    with safe_open(first, "pt") as file:
        assert set(file.keys()) >= set(READERS[name].tensors(DRAFTERS[kind]))
        assert file.metadata() == {"format": "pt"}
    # No index: a reader that knows one would look for shards.
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case[0] != "LDModel"])
def test_transformers_reads_the_config(tmp_path: Path, name: str, kind: str) -> None:
    """As SGLang and EAGLE's code have it read; that of the authors' PRISM is read as plain JSON."""
    folder = folder_for(tmp_path, name, kind)
    found = AutoConfig.from_pretrained(folder)
    layer = DRAFTERS[kind].layer
    assert found.model_type == "llama"
    assert found.rope_parameters == {"rope_theta": layer.rope_theta, "rope_type": "default"}
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "rms_norm_eps"):
        assert getattr(found, key) == getattr(layer, key)
    assert found.dtype == torch.float32
    assert found.tie_word_embeddings is False


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_it_is_read_again_as_what_it_was(tmp_path: Path, name: str, kind: str) -> None:
    folder = folder_for(tmp_path, name, kind)
    stored, own = read_drafter(folder, SIZES), read_drafter(tmp_path / "own", SIZES)
    assert stored.config == own.config
    assert stored.config.aux_hidden_layers in ((), CAPTURE)
    assert read_layout(folder) == stored.layout
    assert all(torch.equal(stored.state[tensor], own.state[tensor]) for tensor in own.state)
    assert stored.ignored == (("embed_tokens.weight",) if name in EMBEDDED else ())


@pytest.mark.parametrize("layers", [12, 32])
def test_the_states_that_are_named_in_words_are_those_in_numbers(layers: int) -> None:
    for layout, words in readers_module._STATES.items():
        named = tuple(eval(part, {"n": layers}) for part in re.split(", | and ", words.removesuffix(" of n layers")))
        (record,) = (one for one in LAYOUTS if one.name == layout)
        assert named == readers_module._fixed_states(record, layers)
