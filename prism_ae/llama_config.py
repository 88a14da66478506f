"""Sizes and settings of a Llama-style model. No torch: a plan asks what a folder holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prism_ae.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama-style model, named after the Hugging Face config where that has a name."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tie_word_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def key_value_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], where: str) -> LlamaConfig:
        """From a Hugging Face ``config.json``; raises CheckpointError for what this class cannot express."""
        architectures = config.get("architectures") or ["LlamaForCausalLM"]
        if architectures != ["LlamaForCausalLM"]:
            raise CheckpointError(f"{where}: architecture {architectures} is not LlamaForCausalLM")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise CheckpointError(f"{where}: rope type '{kind}' is not supported; only the default one is")
        if (activation := config.get("hidden_act", "silu")) != "silu":
            raise CheckpointError(f"{where}: hidden_act '{activation}' is not supported; only silu is")
        heads = config["num_attention_heads"]
        # Some configs write null for what has a default.
        if (config.get("head_dim") or config["hidden_size"] // heads) * heads != config["hidden_size"]:
            raise CheckpointError(f"{where}: head_dim times num_attention_heads is not hidden_size")
        if config.get("attention_bias") or config.get("mlp_bias"):
            raise CheckpointError(f"{where}: biases in attention or MLP are not supported")
        return cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            rms_norm_eps=config["rms_norm_eps"],
            rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            max_position_embeddings=config["max_position_embeddings"],
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        )

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` that transformers and SGLang read."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "head_dim": self.head_dim,
            "torch_dtype": "float32",
            **dataclasses.asdict(self),
        }
