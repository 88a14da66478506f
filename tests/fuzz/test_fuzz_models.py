"""Whatever a model's folder says: it is read, or refused by one message."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import published
import pytest
import shells
import torch
from fuzzing import amounts, files_of, survives
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizer_files import LLAMA_2_RULES, OLD

from prism_ae.drafters.layouts.read import (
    check_capture,
    config_rope_theta,
    read_config,
    read_drafter,
    read_layout,
)
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3, OWN
from prism_ae.engines.pairs import make_pair
from prism_ae.models.checkpoints import (
    MANIFEST,
    Manifest,
    check_published,
    load_target,
    publish,
    read_manifest,
    read_target_config,
    save_target,
)
from prism_ae.models.locate import Absent, Located, locate_target
from prism_ae.prompts.conversation import end_of_sequence, max_seq_len_of
from prism_ae.sglang_prism.description import published_capture
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
RECORD = dataclasses.replace(PAPER.targets["llama-2-7b-chat"], eagle3_capture=published.CAPTURE)
CPU = torch.device("cpu")
SIZES = TargetSizes.of(published.TARGET)
HF = published.TARGET.to_hf()
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    save_target(folder, published.make_target())
    return folder


def _config(**changes: Any) -> bytes:
    return json.dumps(HF | changes).encode()


_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@amounts
def test_a_targets_config(target: Path, times: int) -> None:
    file = target / "config.json"
    whole = file.read_bytes()

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        try:
            config = read_target_config(target)
            model = load_target(target, torch.float32, CPU)
        finally:
            file.write_bytes(whole)
        # What is taken is what a Llama of these sizes computes: on these ids, without a word.
        assert model.config == config
        model(torch.zeros(1, 2, dtype=torch.long), torch.arange(2)[None])

    more = HF | {"rope_scaling": LLAMA_3_ROPE, "layer_types": ["full_attention"], "sliding_window": None}
    pinned = [
        *(_config(**{key: value}) for key in _SIZES for value in ("16", 16.0, 0, -1, None, True, [], 10**9)),
        _config(num_key_value_heads="2"),
        _config(rms_norm_eps="x"),
        _config(rms_norm_eps=float("nan")),
        _config(max_position_embeddings="64"),
        _config(rope_theta=10**400),
        _config(layer_types=[[]]),
        _config(rope_scaling={"type": {}}),
    ]
    enter(whole)
    survives(100 * times, files_of(HF) | files_of(more), enter, pinned)


GENERATION = {"eos_token_id": [2, 23], "bos_token_id": 1, "temperature": 0.6, "transformers_version": "4.40"}


@amounts
def test_a_targets_generation_config(target: Path, times: int) -> None:
    file = target / "generation_config.json"

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        try:
            assert all(number >= 0 for number in end_of_sequence(target))
            assert max_seq_len_of(10**9, target) == 64
        finally:
            file.unlink()

    enter(json.dumps(GENERATION).encode())
    survives(60 * times, files_of(GENERATION), enter)


@pytest.fixture(scope="module")
def drafters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in every layout; the first ones as their authors publish them, the others as this project writes."""
    place, model = tmp_path_factory.mktemp("drafters"), published.make_target()
    folders = {}
    for case, (kind, _) in published.WRITERS.items():
        folders[case] = place / case.replace(" ", "-")
        published.write(folders[case], case, published.make_drafter(kind, model))
    for kind in ("prism_star", "eagle3"):
        folders[f"own {kind}"] = place / f"own-{kind}"
        published.write(folders[f"own {kind}"], f"own {kind}", published.make_drafter(kind, model))
    authors = place / published.AUTHORS_PLACE
    published.write(authors, "torch eagle3", published.make_drafter("eagle3", model))
    return folders | {"authors": authors}


CASES = (*published.WRITERS, "own prism_star", "own eagle3", "authors")
_NOTE = {"prism_ae_drafter": {"capture": [1, 2, 3]}, "eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}}


@amounts
@pytest.mark.parametrize("case", CASES)
def test_a_drafters_config(drafters: dict[str, Path], tmp_path: Path, case: str, times: int) -> None:
    folder = drafters[case]
    file = folder / "config.json"
    whole = file.read_bytes()
    # So deep that the engine sglang has the states that are read, wherever a folder does not say them.
    config = dataclasses.replace(published.TARGET, num_hidden_layers=7)
    sizes = TargetSizes.of(config)
    captures = {kind: published_capture(kind, 7) for kind in (EAGLE3.name, OWN.name)}
    record = dataclasses.replace(RECORD, eagle3_capture=captures[EAGLE3.name], capture=captures[OWN.name])
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    save_file({"lm_head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        try:
            capture = record.eagle3_capture if read_layout(folder) == EAGLE3.name else record.capture
            check_capture(folder, capture, "target")
            stored = read_drafter(folder, sizes, capture)
            # What is read whole is read in part alike.
            alike = dataclasses.replace(read_config(folder, capture), layer=stored.config.layer)
            assert alike == stored.config
            config_rope_theta(folder)
            for engine in ("torch", "sglang"):
                assert make_pair(record, tmp_path, folder, "draft-head", engine).config is not None
        finally:
            file.write_bytes(whole)

    enter(whole)
    data = json.loads(whole)
    strategy = files_of(data)
    if "eagle3" in case:
        strategy |= files_of(data | _NOTE | {"num_aux_hidden_states": 3, "target_hidden_size": 16})
    survives(30 * times, strategy, enter)


@amounts
def test_a_pair(drafters: dict[str, Path], target: Path, tmp_path: Path, times: int) -> None:
    """A target whose config.json is anything, asked for by both engines."""
    folder = tmp_path / "target"
    shutil.copytree(target, folder)
    drafter = drafters["own prism_star"]

    def enter(case: tuple[bytes, str, str]) -> None:
        data, engine, kind = case
        (folder / "config.json").write_bytes(data)
        other = {"vanilla": None, "draft-head": drafter, "model": target}[kind]
        make_pair(RECORD, folder, other, kind, engine)

    pinned = [
        (_config(rope_theta="x"), "sglang", "draft-head"),
        (_config(rope_theta=10**400), "sglang", "draft-head"),
        (_config(rope_theta=[1]), "sglang", "draft-head"),
        (_config(rope_theta=None, rope_parameters={"rope_theta": {}}), "sglang", "draft-head"),
    ]
    for kind in ("vanilla", "draft-head", "model"):
        enter((_config(), "torch", kind))
    entrances = st.sampled_from(["torch", "sglang"]), st.sampled_from(["vanilla", "draft-head", "model"])
    survives(80 * times, st.tuples(files_of(HF), *entrances), enter, pinned)


@amounts
@pytest.mark.parametrize("form", ["shards", "pickled shards"])
def test_an_index_of_weights(target: Path, tmp_path: Path, form: str, times: int) -> None:
    folder = tmp_path / "model"
    shutil.copytree(target, folder)
    published.repack(folder, form)
    (file,) = folder.glob("*.index.json")
    whole = json.loads(file.read_bytes())

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        load_target(folder, torch.float32, CPU)

    enter(json.dumps(whole).encode())
    survives(30 * times, files_of(whole), enter)


@pytest.mark.parametrize(
    "name",
    ["model-00001-of-x.safetensors", "model-1-of-999999999999.safetensors", "model-a-of-b-of-.safetensors",
     "pytorch_model--of-1e9.bin", "model-1-of-0.safetensors", "model-1-of-٣.safetensors"],
)  # fmt: skip
def test_a_shards_name_that_says_no_number(tmp_path: Path, name: str) -> None:
    """A plan asks which files an engine would read, whatever a hub's folder calls them."""
    record = PAPER.targets["llama-2-7b-chat"]
    folder = tmp_path / record.folder
    shells.write_target(folder, "llama-2")
    (folder / "model.safetensors").rename(folder / name)
    found = locate_target(PAPER, record.name, tmp_path)
    assert isinstance(found, Absent)
    assert str(folder) in found.reason


@amounts
def test_a_manifest(target: Path, tmp_path: Path, times: int) -> None:
    record = PAPER.targets["llama-2-7b-chat"]
    folder = tmp_path / record.folder

    def fill(temporary: Path) -> None:
        shutil.copytree(target, temporary, dirs_exist_ok=True)
        (temporary / "tokenizer.json").write_text(OLD)
        (temporary / "tokenizer_config.json").write_text(json.dumps(LLAMA_2_RULES))

    publish(folder, Manifest("target", "llama-2-7b-chat", None, {"steps": 3}, provenance={"seconds": 1.5}), fill)
    file = folder / MANIFEST
    whole = json.loads(file.read_bytes())

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        assert isinstance(locate_target(PAPER, record.name, tmp_path), Located | Absent)
        check_published(folder)
        manifest = read_manifest(folder)
        assert manifest is not None
        assert len(manifest.fingerprint) == 64

    def with_files(files: Any) -> bytes:
        return json.dumps(whole | {"files": files}).encode()

    pinned = [with_files(files) for files in (None, [], "x", 1, {"a\0b": ""}, {"\ud800": ""}, {"a": float("nan")})]
    pinned += [with_files({name: "0" * 64}) for name in ("../up", "/dev/zero", "", ".", "a/../../b")]
    enter(json.dumps(whole).encode())
    survives(80 * times, files_of(whole), enter, pinned)
