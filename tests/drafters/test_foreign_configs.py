"""Others' drafters and targets: a key of config.json that changes the arithmetic is honoured or refused by its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    AUTHORS_PLACE,
    CAPTURE,
    TARGET,
    change_config,
    make_drafter,
    make_target,
    read_state,
    write,
    write_state,
)
from raising import raises
from torch import Tensor

from prism_ae.drafters.checkpoint import load_drafter
from prism_ae.drafters.layouts.read import check_capture, read_config, read_drafter
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import causal
from prism_ae.sglang_prism.description import ResolvedTarget, describe

SIZES = TargetSizes.of(TARGET)
CPU = torch.device("cpu")


def foreign(folder: Path, case: str = "torch eagle3", **said: Any) -> Path:
    """A head as others publish it, with further keys in its config.json."""
    write(folder, case, make_drafter(case.split()[1], make_target()))
    change_config(folder, lambda data: data.update({"architectures": _ARCHITECTURE[case], **said}))
    return folder


_ARCHITECTURE = {"torch eagle3": ["LlamaForCausalLMEagle3"], "sglang eagle2": ["LlamaForCausalLMEagle"]}


def outputs(drafter: Drafter) -> Tensor:
    """Logits of two steps at late positions, which depend on the RoPE base."""
    torch.manual_seed(5)
    width = max(1, len(drafter.config.aux_hidden_layers)) * TARGET.hidden_size
    ids, features = torch.randint(TARGET.vocab_size, (1, 9)), torch.randn(1, 9, width)
    rotation = drafter.rotary(torch.arange(40, 49)[None])
    with torch.no_grad():
        hidden = drafter.step(0, drafter.embed(ids), drafter.project_hidden(features), rotation, causal)
        return drafter.logits(drafter.step(1, drafter.embed(ids), hidden, rotation, causal))


# --- Keys.

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("torch eagle3", {key: True}, key)
        for key in (
            "norm_before_residual", "norm_before_fc", "fc_norm", "use_aux_norm", "norm_output", "parallel_drafting",
            "attention_bias", "mlp_bias", "use_qk_norm", "qk_norm", "rope_interleaved", "tie_word_embeddings",
            "is_encoder_decoder", "use_parallel_residual",
        )
    ),
    ("sglang eagle2", {"norm_before_residual": True}, "norm_before_residual"),
    ("torch eagle3", {"eagle_config": {"norm_before_fc": True}}, "eagle_config.norm_before_fc"),
    ("torch eagle3", {"eagle_config": {"use_aux_hidden_state": False}}, "eagle_config.use_aux_hidden_state"),
    ("torch eagle3", {"eagle_config": {"eagle_aux_hidden_state_layer_ids": "0,1,2"}}, "layer_ids"),
    ("torch eagle3", {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, -1, 2]}}, "layer_ids"),
    ("torch eagle3", {"eagle_aux_hidden_state_layer_ids": [1, 2, 3]}, "eagle_aux_hidden_state_layer_ids"),
    ("torch eagle3", {"num_aux_hidden_states": 2}, "num_aux_hidden_states"),
    ("torch eagle3", {"target_hidden_size": 32}, "target_hidden_size"),
    ("torch eagle3", {"hidden_act": "gelu"}, "hidden_act"),
    ("torch eagle3", {"model_type": "qwen3"}, "model_type"),
    ("torch eagle3", {"sliding_window": 16}, "sliding_window"),
    ("torch eagle3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("torch eagle3", {"rope_is_neox_style": False}, "rope_is_neox_style"),
    ("torch eagle3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
    ("torch eagle3", {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}, "mrope_section"),
    ("torch eagle3", {"head_dim": 8}, "head_dim"),
    ("sglang eagle2", {"logits_scaling": 8.0}, "logits_scaling"),
    ("sglang eagle2", {"logit_scale": 0.0625}, "logit_scale"),
    ("sglang eagle2", {"embedding_multiplier": 12}, "embedding_multiplier"),
    ("sglang eagle2", {"residual_multiplier": 0.22}, "residual_multiplier"),
    ("sglang eagle2", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers"),
    ("sglang eagle2", {"layer_types": ["sliding_attention"]}, "layer_types"),
    ("sglang eagle2", {"num_local_experts": 8}, "num_local_experts"),
    ("sglang eagle2", {"draft_vocab_size": 24}, "draft_vocab_size"),
    ("sglang eagle2", {"auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}, "auto_map"),
    ("sglang eagle2", {"key_of_next_year": 0.3}, "key_of_next_year"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "said", "key"), REFUSED)
def test_a_key_that_changes_a_drafters_arithmetic_is_refused_by_name(
    tmp_path: Path, case: str, said: dict[str, Any], key: str
) -> None:
    folder = foreign(tmp_path, case, **said)
    for read in (read_config, lambda folder, capture: read_drafter(folder, SIZES, capture)):
        with raises(CheckpointError, key, folder / "config.json"):
            read(folder, CAPTURE)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("torch eagle3", {"norm_before_residual": False, "fc_norm": None, "norm_before_fc": False, "qk_norm": False}),
        ("torch eagle3", {"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 36}),
        ("torch eagle3", {"eagle_config": None, "target_hidden_size": 16, "num_aux_hidden_states": 3, "head_dim": 4}),
        ("torch eagle3", {"pretraining_tp": 1, "attention_dropout": 0.0, "dtype": "bfloat16", "_name_or_path": "x"}),
        ("torch eagle3", {"hidden_act": "swish", "rope_is_neox_style": True, "layer_types": ["full_attention"]}),
        ("sglang eagle2", {"logits_scaling": 1.0, "embedding_multiplier": 1, "num_nextn_predict_layers": 0}),
        ("sglang eagle2", {"draft_vocab_size": 40, "tie_word_embeddings": True, "partial_rotary_factor": 1.0}),
        ("sglang eagle2", {"key_of_next_year": False, "another": {}, "and_another": None}),
    ],
)
def test_a_key_that_changes_nothing_is_read_over(tmp_path: Path, case: str, said: dict[str, Any]) -> None:
    kind = case.split()[1]
    folder = foreign(tmp_path, case, **said)
    target = make_target()
    drafter = load_drafter(folder, target, torch.float32, CPU, CAPTURE)
    torch.testing.assert_close(outputs(drafter), outputs(make_drafter(kind, target)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda data: data.update(norm_before_residual=True), "norm_before_residual"),
        (lambda data: data["eagle_config"].update(fc_norm=True), "fc_norm"),
        (lambda data: data["eagle_config"].update(quantization_config={"quant_method": "awq"}), "awq"),
    ],
)
def test_keys_of_the_torch_codes_layout(tmp_path: Path, change: Callable[[dict[str, Any]], object], key: str) -> None:
    write(tmp_path, "torch prism", make_drafter("prism", make_target()))
    change_config(tmp_path, change)
    with pytest.raises(CheckpointError, match=key):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda data: data.update(norm_before_residual=True), "norm_before_residual"),
        (lambda data: data["layer"].update(attention_bias=True), "layer.attention_bias"),
    ],
)
def test_keys_of_the_own_layout(tmp_path: Path, change: Callable[[dict[str, Any]], object], key: str) -> None:
    write(tmp_path, "own eagle2", make_drafter("eagle2", make_target()))
    change_config(tmp_path, change)
    with pytest.raises(CheckpointError, match=key):
        read_config(tmp_path)


# --- Which hidden states.


@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 2, 1]])
def test_the_folder_says_which_hidden_states_it_reads(tmp_path: Path, layers: list[int]) -> None:
    """The output of layer i is hidden state i + 1; both engines read it from the same place."""
    folder = foreign(
        tmp_path / "d", eagle_config={"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": layers}
    )
    states = tuple(layer + 1 for layer in layers)
    for capture in ((), (1, 2, 3), (0, 1, 2)):
        assert read_drafter(folder, SIZES, capture).config.aux_hidden_layers == states
    check_capture(folder, states, "mine")
    check_capture(folder, (), "mine")
    with raises(CheckpointError, "layer_ids", [2, 3], "mine"):
        check_capture(folder, (2, 3), "mine")


def test_sglang_captures_what_the_folder_says(tmp_path: Path) -> None:
    larger = dataclasses.replace(SIZES, num_hidden_layers=12)
    said = {"eagle_aux_hidden_state_layer_ids": [0, 4, 7]}
    folder = foreign(tmp_path / "d", eagle_config=said, rope_theta=700000.0)
    described = describe(folder, ResolvedTarget("t", larger, "float32", 64))
    assert described.config.aux_hidden_layers == (1, 5, 8)
    data = json.loads((described.folder / "config.json").read_text())
    assert data["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [0, 4, 7]
    assert data["rope_theta"] == 700000.0


# --- RoPE's base.


@pytest.mark.parametrize(
    ("said", "base"),
    [
        ({"rope_theta": 500000.0}, 500000.0),
        ({"rope_theta": 1000000}, 1000000.0),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, 500000.0),
        ({"rope_theta": None, "rope_scaling": {"type": "default", "rope_theta": 700000.0}}, 700000.0),
        ({"rope_theta": None}, 10000.0),
        ({"rope_theta": 500000.0, "architectures": ["LlamaForCausalLM"]}, 500000.0),
        ({"rope_theta": 500000.0, "architectures": None}, 500000.0),
    ],
)
def test_a_foreign_eagle3_has_its_configs_base(tmp_path: Path, said: dict[str, Any], base: float) -> None:
    target = make_target()
    folder = foreign(tmp_path / "d", **said)
    drafter = load_drafter(folder, target, torch.float32, CPU, CAPTURE)
    assert drafter.config.layer.rope_theta == base
    own = make_drafter("eagle3", target)
    layer = dataclasses.replace(own.config.layer, rope_theta=base)
    same = Drafter(dataclasses.replace(own.config, layer=layer), target)
    same.load_state_dict(own.state_dict())
    torch.testing.assert_close(outputs(drafter), outputs(same), rtol=0, atol=0)
    described = describe(folder, ResolvedTarget("t", dataclasses.replace(SIZES, num_hidden_layers=6), "float32", 64))
    assert described.config.layer.rope_theta == base


def test_the_authors_eagle3_is_known_by_its_place(tmp_path: Path) -> None:
    """As the paper suite names it, for both engines, also where the models folder is a link; nothing else is."""
    from prism_ae.suites.load import load_suite

    suite = load_suite("paper")
    target = suite.target_of("llama-3")
    for scale in suite.scales:
        place = suite.drafters["eagle3"].folder.format(drafters=target.drafter_folder, scale=scale.name, small="")
        assert read_config(foreign(tmp_path / place, rope_theta=5e5), CAPTURE).layer.rope_theta == 10000.0
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "Llama-3-8B-drafter").symlink_to(tmp_path / AUTHORS_PLACE.parent)
    authors = tmp_path / "link" / AUTHORS_PLACE
    assert describe(
        authors, ResolvedTarget("t", dataclasses.replace(SIZES, num_hidden_layers=6), "float32", 64)
    ).config == (dataclasses.replace(read_config(authors, (2, 3, 3))))
    for other in ("Llama-3-8B-drafter/Eagle3-mine", "Llama-3-8B-drafter/Eagle2-800k", "mine/Eagle3-800k"):
        assert read_config(foreign(tmp_path / other, rope_theta=5e5), CAPTURE).layer.rope_theta == 500000.0


# --- Heads over the whole vocabulary, and EAGLE's own folders.


@pytest.mark.parametrize("size", [None, "absent", TARGET.vocab_size])
@pytest.mark.parametrize("tables", [False, True])
def test_an_eagle3_over_the_whole_vocabulary(tmp_path: Path, size: Any, tables: bool) -> None:
    target = make_target()
    torch.manual_seed(2)
    config = dataclasses.replace(make_drafter("eagle3", target).config, draft_vocab_size=TARGET.vocab_size)
    original = Drafter(config, target).eval()
    write(tmp_path, "torch eagle3", original)
    change_config(
        tmp_path, lambda data: data.pop("draft_vocab_size") if size == "absent" else data.update(draft_vocab_size=size)
    )
    if not tables:
        write_state(tmp_path, {name: t for name, t in read_state(tmp_path).items() if name not in ("d2t", "t2d")})
    loaded = load_drafter(tmp_path, target, torch.float32, CPU, CAPTURE)
    assert loaded.config == config
    assert loaded.token_ids(torch.arange(TARGET.vocab_size)).tolist() == list(range(TARGET.vocab_size))
    torch.testing.assert_close(outputs(loaded), outputs(original), rtol=0, atol=0)


def test_half_of_the_tables_or_of_the_head_is_missing(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "d")
    state = read_state(folder)
    for name in ("d2t", "t2d", "lm_head.weight"):
        write_state(folder, {key: tensor for key, tensor in state.items() if key != name})
        with raises(CheckpointError, f"'{name}'"):
            read_drafter(folder, SIZES, CAPTURE)


@pytest.mark.parametrize("said", [{"architectures": ["LlamaForCausalLM"]}, {"architectures": None}, {"bias": True}])
@pytest.mark.parametrize("kind", ["eagle2", "hass2"])
def test_eagles_own_folders(tmp_path: Path, said: dict[str, Any], kind: str) -> None:
    target = make_target()
    write(tmp_path, f"sglang {kind}", make_drafter(kind, target))
    change_config(tmp_path, lambda data: data.update({"architectures": ["LlamaForCausalLM"], **said}))
    assert read_drafter(tmp_path, SIZES).layout == "eagle"
    loaded = load_drafter(tmp_path, target, torch.float32, CPU)
    torch.testing.assert_close(outputs(loaded), outputs(make_drafter(kind, target)), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "LlamaForCausalLMEagle"])
def test_a_fusion_layer_without_bias(tmp_path: Path, architecture: str) -> None:
    target = make_target()
    original = make_drafter("eagle2", target)
    original.modules_[0].fusion.bias.data.zero_()
    write(tmp_path, "sglang eagle2", original)
    write_state(tmp_path, {name: tensor for name, tensor in read_state(tmp_path).items() if name != "fc.bias"})
    for said in ({}, {"bias": True}, {"bias": None}):
        change_config(tmp_path, lambda data, said=said: data.update({"architectures": [architecture], **said}))
        with raises(CheckpointError, "'fc.bias'"):
            read_drafter(tmp_path, SIZES)
    change_config(tmp_path, lambda data: data.update(bias=False))
    loaded = load_drafter(tmp_path, target, torch.float32, CPU)
    torch.testing.assert_close(outputs(loaded), outputs(original), rtol=0, atol=0)


# --- Quantised drafters.


def _packed(state: dict[str, Tensor]) -> None:
    weight = state.pop("midlayer.mlp.up_proj.weight")
    state["midlayer.mlp.up_proj.qweight"] = torch.zeros(2, len(weight), dtype=torch.int32)
    state["midlayer.mlp.up_proj.scales"] = torch.ones(1, len(weight))


def _float8(state: dict[str, Tensor]) -> None:
    state["midlayer.mlp.up_proj.weight"] = state["midlayer.mlp.up_proj.weight"].to(torch.float8_e4m3fn)


def _float8_scaled(state: dict[str, Tensor]) -> None:
    _float8(state)
    state["midlayer.mlp.up_proj.weight_scale"] = torch.ones(1)


def _int8(state: dict[str, Tensor]) -> None:
    state["midlayer.self_attn.q_proj.weight"] = state["midlayer.self_attn.q_proj.weight"].to(torch.int8)


@pytest.mark.parametrize("change", [_packed, _float8, _float8_scaled, _int8])
def test_quantised_tensors_are_called_that(tmp_path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    folder = foreign(tmp_path)
    state = read_state(folder)
    change(state)
    write_state(folder, state)
    with raises(CheckpointError, folder / "model.safetensors", "quantised"):
        read_drafter(folder, SIZES, CAPTURE)


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}, "fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "4"),
    ],
)
def test_a_config_of_quantised_weights_is_called_that(tmp_path: Path, said: dict[str, Any], method: str) -> None:
    folder = foreign(tmp_path, **said)
    with raises(CheckpointError, folder / "config.json", "quantised", method):
        read_config(folder, CAPTURE)
    with raises(CheckpointError, "config.json", "quantised", method):
        LlamaConfig.from_hf({**TARGET.to_hf(), **said}, "config.json")


# --- Configs of targets, as their makers publish them.

_COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "use_cache": True,
    "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-05,
}  # fmt: skip
_LLAMA3 = {
    **_COMMON, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128009,
    "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rope_scaling": None,
    "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.40.0",
    "vocab_size": 128256,
}  # fmt: skip
_LLAMA31_ROPE = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
_LLAMA2 = {
    **_COMMON, "_name_or_path": "meta-llama/Llama-2-7b-chat-hf", "hidden_size": 4096, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.32.0.dev0", "vocab_size": 32000,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-2": _LLAMA2,
    "Llama-2, older": {key: value for key, value in _LLAMA2.items() if key != "num_key_value_heads"}
    | {"max_length": 4096, "pad_token_id": 0, "pretraining_tp": 2},
    "Llama-3": _LLAMA3,
    "Llama-3.1": _LLAMA3
    | {"max_position_embeddings": 131072, "mlp_bias": False, "rope_scaling": _LLAMA31_ROPE}
    | {"eos_token_id": [128001, 128008, 128009]},
    "Llama-3.2": _LLAMA3
    | {"hidden_size": 2048, "head_dim": 64, "num_hidden_layers": 16, "intermediate_size": 8192}
    | {"tie_word_embeddings": True, "mlp_bias": False, "rope_scaling": _LLAMA31_ROPE | {"factor": 32.0}},
    "re-saved by transformers 5": {key: value for key, value in _LLAMA3.items() if "rope" not in key}
    | {"rope_parameters": {**_LLAMA31_ROPE, "rope_theta": 500000.0}, "dtype": "bfloat16", "head_dim": 128}
    | {"pad_token_id": None, "mlp_bias": False},
    "SmolLM2": _COMMON
    | {"attention_bias": False, "attention_dropout": 0.0, "hidden_size": 576, "intermediate_size": 1536}
    | {"is_llama_config": True, "max_position_embeddings": 8192, "num_attention_heads": 9, "num_hidden_layers": 30}
    | {"num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rope_interleaved": False}
    | {"rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}
    | {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}, "vocab_size": 49152},
    "TinyLlama": _COMMON
    | {"attention_bias": False, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 2048}
    | {"num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4, "pretraining_tp": 1}
    | {"rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    | {"transformers_version": "4.35.0", "vocab_size": 32000},
    "Vicuna": _LLAMA2 | {"_name_or_path": "vicuna-7b-v1.5", "pad_token_id": 0, "max_sequence_length": 4096},
    "a fine-tuned one": _LLAMA3 | {"unsloth_fixed": True, "unsloth_version": "2024.9", "_attn_implementation": "sdpa"},
    "an old dump of all keys": _LLAMA2
    | {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "num_beams": 1, "is_decoder": False}
    | {"is_encoder_decoder": False, "add_cross_attention": False, "cross_attention_hidden_size": None}
    | {"chunk_size_feed_forward": 0, "pruned_heads": {}, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    | {"tie_encoder_decoder": False, "return_dict": True, "problem_type": None, "tf_legacy_loss": False},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_targets_are_read(name: str) -> None:
    config = LlamaConfig.from_hf(PUBLISHED[name], "here")
    assert config.hidden_size == PUBLISHED[name]["hidden_size"]
    assert (config.rope_scaling is not None) == (name in ("Llama-3.1", "Llama-3.2", "re-saved by transformers 5"))
    assert config.rope_theta == (PUBLISHED[name].get("rope_theta") or (5e5 if "transformers 5" in name else 1e4))


@pytest.mark.parametrize(
    ("said", "key"),
    [(said, key) for case, said, key in REFUSED if case == "sglang eagle2" and "draft" not in key]
    + [
        ({"sliding_window": 4096}, "sliding_window"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling"),
        ({"qk_norm": True}, "qk_norm"),
        ({"attention_multiplier": 0.0078125}, "attention_multiplier"),
        ({"hidden_act": "relu2"}, "hidden_act"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"no_rope_layers": [0, 1]}, "no_rope_layers"),
    ],
)
def test_a_key_that_changes_a_targets_arithmetic_is_refused_by_name(said: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=f"^here: .*{key}"):
        LlamaConfig.from_hf({**_LLAMA3, **said}, "here")


def test_what_this_project_writes_it_reads(tmp_path: Path) -> None:
    save_target(tmp_path, make_target(), {"bos_token_id": 1, "eos_token_id": 2})
    assert LlamaConfig.from_hf(json.loads((tmp_path / "config.json").read_text()), "here") == TARGET
