"""A GGUF file becomes the checkpoint that it was made of, and what is not quite one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from gguf_files import SPECIAL, TEMPLATE, ZOO, Changes, make_llama, make_tokenizer, write_gguf
from raising import raises
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.models import gguf
from prism_ae.models.checkpoints import load_target
from prism_ae.models.gguf import convert_gguf

PLAIN = Changes()
IDS = torch.tensor([[1, 40, 77, 9, 200, 3, 150, 12, 77, 5, 60, 61]])


def converted(tmp_path: Path, model: LlamaForCausalLM, changes: Changes = PLAIN) -> Path:
    write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer(), changes)
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    convert_gguf(tmp_path / "tiny.gguf", folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_is_the_one_that_was_written(tmp_path: Path, tied: bool) -> None:
    model = make_llama(tied=tied)
    folder = converted(tmp_path, model)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    state = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in state) != tied
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in state.items())
    with torch.inference_mode():
        expected = model(IDS).logits
    assert torch.equal(logits(folder), expected)
    config = json.loads((folder / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["tie_word_embeddings"]) == (1e-5, 1e5, tied)
    target = load_target(folder, torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        ours = target.head(target(IDS, torch.arange(IDS.shape[1])[None])[0])
    assert torch.allclose(ours, expected, atol=2e-4)


def test_rows_in_ggufs_order_are_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_llama()
    monkeypatch.setattr(gguf, "_halves", lambda weight, heads: weight)
    with torch.inference_mode():
        assert (logits(converted(tmp_path, model)) - model(IDS).logits).abs().max() > 0.1


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_1, GGMLQuantizationType.F16])
def test_a_quantised_file_gives_what_transformers_reads_of_it(tmp_path: Path, kind: GGMLQuantizationType) -> None:
    folder = converted(tmp_path, make_llama(), Changes(kind=kind))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    state = theirs.state_dict()
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(weight, state[name]), name
    embedding = next(one for one in GGUFReader(tmp_path / "tiny.gguf").tensors if one.name == "token_embd.weight")
    stored = torch.from_numpy(dequantize(embedding.data, embedding.tensor_type).astype(np.float32))
    assert torch.equal(load_file(folder / "model.safetensors")["model.embed_tokens.weight"], stored)


def test_texts_have_the_ids_of_the_tokenizer_that_was_written(tmp_path: Path) -> None:
    folder, original = converted(tmp_path, make_llama()), make_tokenizer()
    read = AutoTokenizer.from_pretrained(folder)
    for text in ZOO:
        ids = read(text, add_special_tokens=False).input_ids
        assert ids == original.encode(text).ids, text
        assert read.decode(ids) == text
    assert (read.bos_token, read.eos_token, read.pad_token) == (SPECIAL[1], SPECIAL[2], SPECIAL[2])
    assert read.chat_template == TEMPLATE
    # What transformers itself makes of the file does not split digits off: hence the conversion here.
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    assert theirs("12 345 2024", add_special_tokens=False).input_ids != original.encode("12 345 2024").ids


TOKENS = [f"t{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tokenizer.ggml.pre", "llama-bpe", "tokenizer.ggml.pre is 'llama-bpe'"),
        ("tokenizer.ggml.pre", None, "the key tokenizer.ggml.pre is missing"),
        ("tokenizer.ggml.model", "llama", "tokenizer.ggml.model is 'llama'"),
        ("tokenizer.ggml.add_bos_token", True, "tokenizer.ggml.add_bos_token is True"),
        ("llama.rope.scaling.type", "linear", "llama.rope.scaling.type is 'linear'"),
        ("llama.rope.scaling.factor", 2.0, "llama.rope.scaling.factor is 2.0"),
        ("llama.rope.dimension_count", 8, "llama.rope.dimension_count is 8"),
        ("llama.attention.key_length", 32, "llama.attention.key_length is 32"),
        ("llama.attention.sliding_window", 16, "llama.attention.sliding_window is 16"),
        ("llama.expert_count", 4, "llama.expert_count is 4"),
        ("llama.logit_scale", 2.0, "llama.logit_scale is 2.0"),
        ("llama.vocab_size", 12, "llama.vocab_size is 12"),
        ("llama.block_count", None, "llama.block_count must be a number from 1 to 1,024, got None"),
        ("llama.block_count", 0, "llama.block_count must be a number from 1 to 1,024, got 0"),
        ("llama.block_count", 3, "tensor 'blk.2.attn_norm.weight' is missing"),
        ("llama.block_count", 1, "tensor 'blk.1.*' belongs to no plain Llama"),
        ("llama.attention.head_count", [4, 4], "llama.attention.head_count must be a number"),
        ("llama.attention.head_count", 3, "3 heads and 2 key heads"),
        ("llama.feed_forward_length", 1 << 30, "llama.feed_forward_length must be a number from 1 to 262,144"),
        ("llama.feed_forward_length", 128, r"tensor 'blk.0.ffn_gate.weight' is \[96, 64\], expected is \[128, 64\]"),
        ("llama.rope.freq_base", None, "llama.rope.freq_base must be a number greater than 0, got None"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "layer_norm_rms_epsilon must be a number greater than 0"),
        ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens is missing"),
        ("tokenizer.ggml.tokens", TOKENS, "the vocabulary has 40 tokens"),
        ("tokenizer.ggml.merges", ["a b", "ab zz9"], "merge 'a b'|merge 'ab zz9'"),
        ("tokenizer.ggml.eos_token_id", 9999, "tokenizer.ggml.eos_token_id is 9999, which is no token"),
        ("tokenizer.ggml.bos_token_id", None, "tokenizer.ggml.bos_token_id is None, which is no token"),
        ("tokenizer.chat_template", 7, "tokenizer.chat_template is 7"),
        ("split.count", 3, "split.count is 3"),
    ],
)
def test_a_key_that_would_change_something_is_refused_by_name(tmp_path: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        converted(tmp_path, make_llama(), Changes(keys={key: value}))
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("name", "weight", "said"),
    [
        ("rope_freqs.weight", np.ones(8, np.float32), "tensor 'rope_freqs.weight' belongs to no plain Llama"),
        ("blk.0.attn_q.bias", np.ones(64, np.float32), "tensor 'blk.0.attn_q.bias' belongs to no plain Llama"),
        ("output_norm.weight", None, "tensor 'output_norm.weight' is missing"),
        ("output_norm.weight", np.ones(32, np.float32), r"tensor 'output_norm.weight' is \[32\], expected is \[64\]"),
        ("output_norm.weight", np.full(64, np.nan, np.float32), "tensor 'output_norm.weight' holds values that are no"),
        ("output_norm.weight", np.ones(64, np.int32), r"tensor 'output_norm.weight' \(I32\) cannot be read"),
    ],
)
def test_a_tensor_that_does_not_belong_there_is_refused_by_name(
    tmp_path: Path, name: str, weight: Any, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        converted(tmp_path, make_llama(), Changes(tensors={name: weight}))


def test_token_kinds_that_are_not_known_are_refused(tmp_path: Path) -> None:
    kinds = [1] * make_tokenizer().get_vocab_size()
    kinds[300] = 4
    with raises(CheckpointError, "of kind 4"):
        converted(tmp_path, make_llama(), Changes(keys={"tokenizer.ggml.token_type": kinds}))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    data = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0qwen2", 1))
    with raises(CheckpointError, "general.architecture is 'qwen2'"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path)


def test_what_is_no_gguf_is_said(tmp_path: Path) -> None:
    with raises(MissingError, "nowhere.gguf"):
        convert_gguf(tmp_path / "nowhere.gguf", tmp_path)
    for data, said in ((b"", "no GGUF"), (b"<html>", "no GGUF"), (b"GGUF\0\0\0\3", "version"), (b"GGUF\3", "cut off")):
        (tmp_path / "x.gguf").write_bytes(data)
        with raises(CheckpointError, "x.gguf is damaged", said):
            convert_gguf(tmp_path / "x.gguf", tmp_path)


def test_a_file_that_is_cut_off_is_said_wherever_it_ends(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    data = (tmp_path / "tiny.gguf").read_bytes()
    for length in (20, 100, 1000, 9000, len(data) // 2, len(data) - 1):
        (tmp_path / "tiny.gguf").write_bytes(data[:length])
        with raises(CheckpointError, "tiny.gguf"):
            convert_gguf(tmp_path / "tiny.gguf", tmp_path)


def test_lengths_that_lead_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    """A library that believes them would fill the memory or never end."""
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    data = (tmp_path / "tiny.gguf").read_bytes()
    huge = (1 << 60).to_bytes(8, "little")
    places = {8: "tensors", 16: "keys", 24: "bytes of a key", data.index(b"tokenizer.ggml.tokens") + 29: "values"}
    for place, said in places.items():
        (tmp_path / "tiny.gguf").write_bytes(data[:place] + huge + data[place + 8 :])
        with raises(CheckpointError, "it announces", said):
            convert_gguf(tmp_path / "tiny.gguf", tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    with raises(StoreError, "cannot write"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "nowhere")
