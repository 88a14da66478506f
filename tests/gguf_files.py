"""A tiny Llama with a byte-level tokenizer, and the GGUF file that llama.cpp's own conversion would make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
ZOO = (
    "What is 12 + 345?\n\n1. First  2 things\n\n10) x=3.14",
    "<|im_start|>user\nHello 2024<|im_end|>\n",
    "def f(x):\n    return x ** 2\n",
    "naïve 日本 emoji 🙂",
    "a  b\t\tc\r\n\r\nd   7",
    "[INST] it's don't WE'RE they'LL",
    " leading, trailing  ",
    "0.1.2.3 ½ ² ٣ 1e-5 007",
    "",
)
_PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def make_tokenizer() -> Tokenizer:
    """As SmolLM's card has it: digits one by one, GPT-2's split, bytes; and with merges that would join digits."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*ZOO, "the user and the things that are there in the year 2024 12 345"] * 3, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    return tokenizer


def make_llama(*, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=make_tokenizer().get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
        tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # far from where they begin: a mistake must show
        for parameter in model.parameters():
            parameter.normal_(0.3 if parameter.ndim == 1 else 0.0, 0.3)
    return model


@dataclasses.dataclass(frozen=True)
class Changes:
    """How a file differs from the right one.

    Attributes:
        keys: instead of a value, None leaves the key out.
        tensors: likewise, by GGUF's names.
        kind: how matrices are stored.
    """

    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tensors: Mapping[str, NDArray[np.float32] | None] = dataclasses.field(default_factory=dict)
    kind: GGMLQuantizationType = GGMLQuantizationType.F32


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, changes: Changes = Changes()) -> None:
    """Write a GGUF file of a Llama."""
    writer = GGUFWriter(path, "llama")
    for key, value in (_keys(model, tokenizer) | dict(changes.keys)).items():
        if value is not None and key != "general.architecture":  # the writer's own
            _add(writer, key, value)
    tied = model.config.tie_word_embeddings
    state = {_name(name): value.detach().numpy() for name, value in model.state_dict().items()}
    if tied:
        del state["output.weight"]
    for name, weight in (_ordered(state, model) | dict(changes.tensors)).items():
        if weight is None:
            continue
        if weight.ndim == 2 and changes.kind is not GGMLQuantizationType.F32:
            writer.add_tensor(name, quantize(weight, changes.kind), raw_dtype=changes.kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _keys(model: LlamaForCausalLM, tokenizer: Tokenizer) -> dict[str, Any]:
    import json

    c, merges = model.config, json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    return {
        "general.name": "tiny",
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100000.0,
        "llama.rope.dimension_count": c.hidden_size // c.num_attention_heads,
        "llama.vocab_size": c.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _name(name: str) -> str:
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_PARTS[part]}.weight"


def _ordered(state: dict[str, NDArray[np.float32]], model: LlamaForCausalLM) -> dict[str, NDArray[np.float32]]:
    """q and k row by row: row 2i of a head is its row i, row 2i + 1 its row i + d/2."""
    found = {}
    for name, weight in state.items():
        if ".attn_q." in name or ".attn_k." in name:
            size = model.config.hidden_size // model.config.num_attention_heads
            moved = np.empty_like(weight)
            for row in range(len(weight)):
                head, at = divmod(row, size)
                half, pair = divmod(at, size // 2)
                moved[head * size + 2 * pair + half] = weight[row]
            weight = moved
        found[name] = weight
    return found
