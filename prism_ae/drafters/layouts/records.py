"""What a drafter's checkpoint is, whatever layout it was written in.

*Stored names* are the project's own names of tensors. Module m, layer l: ``modules.{m}.layers.{l}.<Llama layer names>``
(q, k, v and gate, up apart; the first layer has no input norm), ``modules.{m}.fusion.{weight,bias}``, and
``entry.*`` (PRISM*: 3H -> H with bias; EAGLE-3: without). EAGLE-3 has ``modules.0.{embedding_norm,hidden_norm,…}``,
``norm`` and ``head``. With a draft vocabulary ``draft_ids`` (int64). Embedding and shared head are never stored.

No torch: a plan can ask what a folder holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError
from prism_ae.models.config import HF_ROPE_THETA, named_rope_theta

if TYPE_CHECKING:
    from torch import Tensor

    from prism_ae.drafters.config import DrafterConfig
    from prism_ae.models.config import LlamaConfig

DRAFT_IDS = "draft_ids"

MASK = "t2d"
"""EAGLE-3 beside its offsets ``d2t``: whether a token of the target is in the draft vocabulary, bool [V]."""


@dataclasses.dataclass(frozen=True)
class TargetSizes:
    """What of a target decides whether a drafter fits it."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    rope_theta: float

    @classmethod
    def of(cls, config: LlamaConfig) -> TargetSizes:
        return cls(config.vocab_size, config.hidden_size, config.num_hidden_layers, config.rope_theta)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], where: str) -> TargetSizes:
        """From a Hugging Face ``config.json``; raises CheckpointError for a size that is missing or none."""
        sizes: dict[str, int] = {}
        for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
            if key not in config:
                raise CheckpointError(f"{where}: key '{key}' is missing")
            if type(config[key]) is not int or config[key] < 1:
                raise CheckpointError(f"{where}: {key} is {config[key]!r}, not a positive integer")
            sizes[key] = config[key]
        return cls(**sizes, rope_theta=named_rope_theta(config, where) or HF_ROPE_THETA)


@dataclasses.dataclass(frozen=True)
class StoredDrafter:
    """A drafter as it was read: complete, every shape and dtype checked, bound to no model.

    Attributes:
        config: its sizes.
        state: stored name -> tensor, on the CPU, in the dtype of the file.
        layout: name of the layout it was read from.
        ignored: names in the file of tensors that are not used (the target's embedding, aliases), sorted.
    """

    config: DrafterConfig
    state: dict[str, Tensor]
    layout: str
    ignored: tuple[str, ...]


def layer_shapes(config: LlamaConfig, *, input_norm: bool, input_size: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of one Llama layer; ``input_size`` is what its attention reads."""
    hidden, keys, middle = config.hidden_size, config.key_value_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (hidden, input_size),
        "self_attn.k_proj.weight": (keys, input_size),
        "self_attn.v_proj.weight": (keys, input_size),
        "self_attn.o_proj.weight": (hidden, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (middle, hidden),
        "mlp.up_proj.weight": (middle, hidden),
        "mlp.down_proj.weight": (hidden, middle),
    }
    return shapes | ({"input_layernorm.weight": (hidden,)} if input_norm else {})


def module_shapes(config: DrafterConfig) -> dict[str, tuple[int, ...]]:
    """Name below ``modules.{m}.`` -> shape, of one module of the cell that EAGLE-2, HASS and PRISM share."""
    hidden = config.layer.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"fusion.weight": (hidden, 2 * hidden), "fusion.bias": (hidden,)}
    for number in range(config.layer.num_hidden_layers):
        block = layer_shapes(config.layer, input_norm=number > 0, input_size=hidden)
        shapes |= {f"layers.{number}.{name}": shape for name, shape in block.items()}
    return shapes


def stored_shapes(config: DrafterConfig) -> dict[str, tuple[int, ...]]:
    """Stored name -> shape, of every tensor that a drafter has."""
    hidden = config.layer.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    if config.aux_hidden_layers:
        shapes["entry.weight"] = (hidden, len(config.aux_hidden_layers) * hidden)
    if config.cell == "eagle":
        if config.aux_hidden_layers:
            shapes["entry.bias"] = (hidden,)
        for module in range(config.modules):
            shapes |= {f"modules.{module}.{name}": shape for name, shape in module_shapes(config).items()}
        return shapes if config.draft_vocab_size is None else shapes | {DRAFT_IDS: (config.draft_vocab_size,)}
    assert config.draft_vocab_size is not None
    block = layer_shapes(config.layer, input_norm=False, input_size=2 * hidden)
    block |= {"embedding_norm.weight": (hidden,), "hidden_norm.weight": (hidden,)}
    shapes |= {f"modules.0.{name}": shape for name, shape in block.items()}
    return shapes | {
        "norm.weight": (hidden,),
        "head.weight": (config.draft_vocab_size, hidden),
        DRAFT_IDS: (config.draft_vocab_size,),
    }
