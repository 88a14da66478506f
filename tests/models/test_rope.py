"""Rotary positions: stretched RoPE against transformers, tables that grow, and what a config may say about them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prism_ae.drafters.checkpoint import load_drafter, save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.config import Llama3Rope, LlamaConfig
from prism_ae.models.llama import Llama, Rotary, cast_parameters, rotary_frequencies

CPU = torch.device("cpu")
PLAIN = LlamaConfig(
    vocab_size=40, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=256,
)  # fmt: skip
STRETCH = Llama3Rope(8.0, 1.0, 4.0, 64)
STRETCHED = dataclasses.replace(PLAIN, rope_scaling=STRETCH)


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize(
    "stretch",
    [STRETCH, Llama3Rope(8.0, 1.0, 4.0, 8192), Llama3Rope(32.0, 1.0, 4.0, 8192), Llama3Rope(2.5, 0.5, 9.0, 100)],
)
def test_stretched_frequencies_are_those_of_transformers(theta: float, stretch: Llama3Rope) -> None:
    from transformers import LlamaConfig as HfConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours = dataclasses.replace(PLAIN, hidden_size=512, rope_theta=theta, rope_scaling=stretch)
    theirs, factor = ROPE_INIT_FUNCTIONS["llama3"](HfConfig(**ours.to_hf()), device="cpu")
    assert factor == 1.0
    torch.testing.assert_close(rotary_frequencies(ours), theirs, rtol=1e-6, atol=0)
    plain = rotary_frequencies(dataclasses.replace(ours, rope_scaling=None))
    assert not torch.allclose(rotary_frequencies(ours), plain, rtol=1e-3, atol=0)


def test_a_stretched_target_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    target = Llama(STRETCHED)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.normal_(0, 0.2)
    save_target(tmp_path, target)
    loaded = load_target(tmp_path, torch.float32, CPU)
    assert loaded.config == STRETCHED
    ids = torch.randint(0, 40, (2, 200))
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(ids).logits
    ours = loaded.head(loaded(ids, torch.arange(200)[None])[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_scaling"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    plain = load_target(tmp_path, torch.float32, CPU)
    assert not torch.allclose(plain.head(plain(ids, torch.arange(200)[None])[0]), theirs, rtol=1e-2, atol=1e-2)


_VALUES = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "said",
    [
        {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **_VALUES}},
        {"rope_theta": 500000, "rope_scaling": {"type": "llama3", **_VALUES}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, **_VALUES}},
        {"rope_theta": 500000.0, "rope_scaling": None, "rope_parameters": {"type": "llama3", **_VALUES}},
        {"rope_scaling": {"type": "llama3", "rope_type": "llama3", "rope_theta": 500000.0, **_VALUES}},
    ],
)
def test_every_spelling_of_stretched_rope(said: dict[str, Any]) -> None:
    config = {key: value for key, value in PLAIN.to_hf().items() if key != "rope_theta"}
    assert LlamaConfig.from_hf(config | said, "here") == STRETCHED


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.*'linear'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling.*'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_parameters.*'yarn'"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling.*'longrope'"),
        ({"rope_scaling": {"type": "default", "factor": 2.0}}, "rope_scaling.factor"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters.full_attention"),
        ({"rope_scaling": {"rope_type": "llama3", **_VALUES, "low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3", **_VALUES, "factor": "8"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "llama3", **_VALUES, "attention_factor": 2.0}}, "attention_factor"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": "500000"}, "rope_theta"),
        ({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 500000.0}}, "rope_parameters.rope_theta"),
        ({"rope_parameters": {"type": "default"}, "rope_scaling": {"type": "llama3", **_VALUES}}, "rope_scaling"),
    ],
)
def test_rope_that_is_refused(said: dict[str, Any], key: str) -> None:
    config = {key: value for key, value in PLAIN.to_hf().items() if key != "rope_theta"}
    with pytest.raises(CheckpointError, match=f"^here: .*{key}"):
        LlamaConfig.from_hf(config | said, "here")


@pytest.mark.parametrize("config", [PLAIN, STRETCHED])
def test_a_table_that_grows_has_the_values_of_a_larger_one(config: LlamaConfig) -> None:
    rotary = Rotary(config)
    cast_parameters(rotary, torch.bfloat16)
    rotary.reserve(100)
    assert len(rotary.table) == 256
    rotary.reserve(1000)
    large = Rotary(dataclasses.replace(config, max_position_embeddings=1000))
    assert torch.equal(rotary.table, large.table)
    assert rotary(torch.tensor([[999]]))[0].dtype == torch.bfloat16
    assert not [name for name in rotary.state_dict() if name]


def test_a_drafter_keeps_its_own_stretching(tmp_path: Path) -> None:
    target = Llama(PLAIN)
    layer = dataclasses.replace(STRETCHED, num_hidden_layers=1)
    save_drafter(tmp_path, Drafter(DrafterConfig("eagle", layer), target))
    assert load_drafter(tmp_path, target, torch.float32, CPU).config.layer == layer


def test_configs_without_stretching_are_written_as_before() -> None:
    assert "rope_scaling" not in PLAIN.to_hf()
    assert "rope_scaling" not in PLAIN.fields()
    assert "rope_scaling" not in DrafterConfig("eagle", PLAIN).fields()["layer"]
    assert LlamaConfig.from_fields(PLAIN.fields(), "here") == PLAIN
    assert LlamaConfig.from_fields(STRETCHED.fields(), "here") == STRETCHED
