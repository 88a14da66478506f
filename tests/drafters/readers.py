"""Who reads drafters' folders, as data: the tensors that each loads and the keys of config.json that each looks at.

Spelled out from their code, apart from the records that this project writes by. Most of them load with torch's
``strict=False`` or skip names: a tensor that is missing keeps the random numbers it was made with, without a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from prism_ae.drafters.config import DrafterConfig

Shapes = dict[str, tuple[int, ...]]
Keys = dict[str, tuple[Any, Any]]
"""Key, with dots for what is nested -> (what it takes where the key is absent, what it has to find)."""

REQUIRED = object()
"""Instead of what is taken where a key is absent: it is an error there."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """
    Attributes:
        source: whose code, and which.
        form: of `write.FORMS` that is written for it.
        kinds: names of the drafters in `published.DRAFTERS` that it reads.
        tensors: what it loads from the folder, with shapes.
        ignored: names that it passes over on purpose.
        keys: what it looks at in config.json.
        missing: what becomes of a tensor that is not there.
        embedding: where it takes the embedding from.
        files: the weight files that it looks for, in its order; the first that exists counts.
    """

    source: str
    form: str
    kinds: tuple[str, ...]
    tensors: Callable[[DrafterConfig], Shapes]
    ignored: tuple[str, ...]
    keys: Callable[[DrafterConfig], Keys]
    missing: str
    embedding: str
    files: tuple[str, ...]


def _layer(config: DrafterConfig, where: str, norm: bool, reads: int = 1) -> Shapes:
    """A Llama layer's tensors; its attention reads ``reads`` hidden vectors side by side."""
    layer = config.layer
    hidden, middle = layer.hidden_size, layer.intermediate_size
    keys = layer.num_key_value_heads * (hidden // layer.num_attention_heads)
    found: Shapes = {
        "self_attn.q_proj.weight": (hidden, reads * hidden),
        "self_attn.k_proj.weight": (keys, reads * hidden),
        "self_attn.v_proj.weight": (keys, reads * hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (middle, hidden),
        "mlp.up_proj.weight": (middle, hidden),
        "mlp.down_proj.weight": (hidden, middle),
        "post_attention_layernorm.weight": (hidden,),
    }
    if norm:
        found["input_layernorm.weight"] = (hidden,)
    return {f"{where}.{name}": shape for name, shape in found.items()}


def _linear(where: str, size: int, reads: int) -> Shapes:
    return {f"{where}.weight": (size, reads * size), f"{where}.bias": (size,)}


def _llama(config: DrafterConfig, inside: str = "") -> Keys:
    """Keys of a Llama's config as EAGLE's code takes them; its defaults are those of a 7B model."""
    layer = config.layer
    keys: Keys = {
        "vocab_size": (32000, layer.vocab_size),
        "hidden_size": (4096, layer.hidden_size),
        "intermediate_size": (11008, layer.intermediate_size),
        "num_hidden_layers": (32, layer.num_hidden_layers),
        "num_attention_heads": (32, layer.num_attention_heads),
        "num_key_value_heads": (None, layer.num_key_value_heads),
        "hidden_act": ("silu", "silu"),
        "max_position_embeddings": (2048, layer.max_position_embeddings),
        "rms_norm_eps": (1e-6, layer.rms_norm_eps),
        "pretraining_tp": (1, 1),
        "rope_theta": (10000.0, layer.rope_theta),
        "rope_scaling": (None, None),
        "pad_token_id": (None, None),
    }
    return {f"{inside}{key}": value for key, value in keys.items()}


# --- The authors' torch code, and EAGLE's.


def _large_drafter(config: DrafterConfig) -> Shapes:
    hidden = config.layer.hidden_size
    found: Shapes = {"embed_tokens.weight": (config.layer.vocab_size, hidden)}
    if config.aux_hidden_layers:
        found |= _linear("fusion_layer", hidden, 3)
    for module in range(config.modules):
        found |= _linear(f"stepFCs.{module}", hidden, 2)
        for layer in range(config.layer.num_hidden_layers):
            found |= _layer(config, f"stepModels.{module}.{layer}", norm=layer > 0)
    return found


def _large_drafter_keys(config: DrafterConfig) -> Keys:
    steps = len(config.step_mapping)
    return {
        "bias": (True, True),  # of stepFCs and, in PRISM, fusion_layer; at the top, not in eagle_config
        "num_steps": (REQUIRED, steps),
        "num_step_models": (REQUIRED, config.modules),
        **{f"step_mapping.{step}": (REQUIRED, config.module_of(step)) for step in range(steps)},
        "use_adapter": (False, False),
        "moe_config": (None, None),
        **_llama(config, "eagle_config."),
    }


def _eagle3(config: DrafterConfig) -> Shapes:
    hidden, own = config.layer.hidden_size, config.draft_vocab_size
    assert own is not None
    return {
        "fc.weight": (hidden, 3 * hidden),
        **_layer(config, "midlayer", norm=True, reads=2),
        "midlayer.hidden_norm.weight": (hidden,),
        "norm.weight": (hidden,),
        "lm_head.weight": (own, hidden),
        "d2t": (own,),
        "t2d": (config.layer.vocab_size,),
    }


def _eagle3_embedded(config: DrafterConfig) -> Shapes:
    return _eagle3(config) | {"embed_tokens.weight": (config.layer.vocab_size, config.layer.hidden_size)}


def _eagle3_keys(config: DrafterConfig) -> Keys:
    return _llama(config) | {"draft_vocab_size": (REQUIRED, config.draft_vocab_size)}


def _eagle3_from_target_keys(config: DrafterConfig) -> Keys:
    return _eagle3_keys(config) | {"target_hidden_size": (None, None)}  # absent: the target's embedding is looked for


def _eagle3_embedded_keys(config: DrafterConfig) -> Keys:
    return _eagle3_keys(config) | {"target_hidden_size": (None, config.layer.hidden_size)}


def _eagle2(config: DrafterConfig) -> Shapes:
    found = _linear("fc", config.layer.hidden_size, 2)
    for layer in range(config.layer.num_hidden_layers):
        found |= _layer(config, f"layers.{layer}", norm=layer > 0)
    return found


def _eagle2_keys(config: DrafterConfig) -> Keys:
    return _llama(config) | {"bias": (True, True)}


# --- SGLang, stock and the authors' fork.


def _sglang_keys(architecture: str, config: DrafterConfig) -> Keys:
    layer = config.layer
    return {
        "architectures": (REQUIRED, [architecture]),
        "model_type": (REQUIRED, "llama"),  # by which transformers chooses the class of the config
        "vocab_size": (REQUIRED, layer.vocab_size),
        "hidden_size": (REQUIRED, layer.hidden_size),
        "intermediate_size": (REQUIRED, layer.intermediate_size),
        "num_hidden_layers": (REQUIRED, layer.num_hidden_layers),
        "num_attention_heads": (REQUIRED, layer.num_attention_heads),
        "num_key_value_heads": (None, layer.num_key_value_heads),
        "head_dim": (None, layer.hidden_size // layer.num_attention_heads),
        "max_position_embeddings": (8192, layer.max_position_embeddings),
        "rms_norm_eps": (1e-6, layer.rms_norm_eps),
        "hidden_act": ("silu", "silu"),
        "rope_theta": (10000.0, layer.rope_theta),
        "rope_scaling": (None, None),
        "attention_bias": (False, False),
        "bias": (False, False),  # of attention: such a drafter has none
        "mlp_bias": (False, False),
        "tie_word_embeddings": (False, False),  # the head would be the drafter's own embedding
        "hot_vocab_size": (None, None),
        "quantization_config": (None, None),
        "target_hidden_size": (None, None),
        "torch_dtype": (REQUIRED, "float32"),
    }


def _sglang_eagle3_keys(config: DrafterConfig) -> Keys:
    return _sglang_keys("LlamaForCausalLMEagle3", config) | {
        "draft_vocab_size": (None, config.draft_vocab_size),
        "eagle_config.use_aux_hidden_state": (True, True),
        "eagle_config.eagle_aux_hidden_state_layer_ids": (None, [state - 1 for state in config.aux_hidden_layers]),
        "num_aux_hidden_states": (None, None),
        "norm_before_fc": (False, False),
        "eagle_config.norm_before_fc": (False, False),
        "fc_norm": (None, None),
        "use_aux_norm": (False, False),
        "norm_output": (False, False),
    }


def _fork(config: DrafterConfig) -> Shapes:
    """Two modules, whatever the config says; for PRISM* a fusion layer of three states."""
    hidden = config.layer.hidden_size
    found: Shapes = _linear("fusion_layer", hidden, 3) if config.aux_hidden_layers else {}
    for module in range(2):
        found |= _linear(f"fc{module}", hidden, 2) | _layer(config, f"midlayer.{module}", norm=False)
    return found


_RANDOM = "keeps random numbers, without a word"
_PYTORCH_FIRST = ("pytorch_model.bin", "model.safetensors")
_SAFETENSORS_FIRST = ("*.safetensors", "*.bin", "*.pt")

READERS = {
    "LDModel": Reader(
        source="the authors' LD/large_drafter.py in PRISM (PRISM*) and PRISM_legacy (one hidden state)",
        form="huggingface",
        kinds=("eagle2", "hass2", "prism", "prism_star", "prism3"),
        tensors=_large_drafter,
        ignored=(),
        keys=_large_drafter_keys,
        missing=_RANDOM,
        embedding="the folder: it is built with load_emb=False",
        files=_PYTORCH_FIRST,
    ),
    "Eagle3": Reader(
        source="the authors' Eagle3/model/{ea_model,cnets}.py, and EAGLE's, of which they are a copy",
        form="huggingface",
        kinds=("eagle3",),
        tensors=_eagle3,
        ignored=(),
        keys=_eagle3_from_target_keys,
        missing=_RANDOM,
        embedding="the target: its model.safetensors.index.json, then its pytorch_model.bin.index.json",
        files=_PYTORCH_FIRST,
    ),
    "Eagle3, embedding in the folder": Reader(
        source="the same, where config.json has target_hidden_size",
        form="huggingface",
        kinds=("eagle3",),
        tensors=_eagle3_embedded,
        ignored=(),
        keys=_eagle3_embedded_keys,
        missing=_RANDOM,
        embedding="the folder",
        files=_PYTORCH_FIRST,
    ),
    "EAGLE": Reader(
        source="EAGLE's eagle/model/{ea_model,cnets1}.py with use_eagle3=False",
        form="sglang",
        kinds=("eagle2", "hass2"),
        tensors=_eagle2,
        ignored=(),
        keys=_eagle2_keys,
        missing=_RANDOM,
        embedding="the target: its model.safetensors.index.json, then its pytorch_model.bin.index.json",
        files=_PYTORCH_FIRST,
    ),
    "SGLang EAGLE": Reader(
        source="stock SGLang 0.5.17: models/llama_eagle.py, models/llama.py, speculative/eagle_worker_v2.py",
        form="sglang",
        kinds=("eagle2", "hass2"),
        tensors=_eagle2,
        ignored=(),
        keys=lambda config: _sglang_keys("LlamaForCausalLMEagle", config),
        missing="keeps what was in its memory, without a word",
        embedding="the target, and the head",
        files=_SAFETENSORS_FIRST,
    ),
    "SGLang EAGLE3": Reader(
        source="stock SGLang 0.5.17: models/llama_eagle3.py, speculative/eagle_worker_v2.py",
        form="sglang",
        kinds=("eagle3",),
        tensors=lambda config: {name: shape for name, shape in _eagle3(config).items() if name != "t2d"},
        ignored=("t2d",),
        keys=_sglang_eagle3_keys,
        missing="keeps what was in its memory, without a word; without d2t draft ids are taken for the target's",
        embedding="the target",
        files=_SAFETENSORS_FIRST,
    ),
    "fork LD": Reader(
        source="the authors' fork of SGLang 0.4.6: models/llama_ld.py, speculative/ld_worker.py",
        form="sglang",
        kinds=("prism",),
        tensors=_fork,
        ignored=(),
        keys=lambda config: _sglang_keys("LlamaForCausalLMLD", config),
        missing="keeps what was in its memory, without a word",
        embedding="the target, and the head",
        files=_SAFETENSORS_FIRST,
    ),
    "fork PRISM": Reader(
        source="the authors' fork of SGLang 0.4.6: models/llama_prism.py, speculative/ld_worker.py",
        form="sglang",
        kinds=("prism_star",),
        tensors=_fork,
        ignored=(),
        keys=lambda config: _sglang_keys("LlamaForCausalLMPRISM", config),
        missing="keeps what was in its memory, without a word",
        embedding="the target, and the head",
        files=_SAFETENSORS_FIRST,
    ),
}
