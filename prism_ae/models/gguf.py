"""A GGUF file of a Llama-style model becomes a checkpoint folder as any other: config, weights, tokenizer, template.

GGUF is llama.cpp's format, and the one in which small models reach places that have no model hub. The package `gguf`
reads it and undoes its quantisation; nothing of the file is executed. Three things are not as a hub's folder has them:

* llama.cpp rotates neighbouring coordinates of a head, Hugging Face's Llama coordinate i and i + d/2: the rows of q and
  k lie in another order (`_halves`);
* a quantised weight is a number of few bits, a scale and an offset per block: what comes out is float32, exactly what
  llama.cpp computes with, and not what the model's authors published;
* the tokenizer is a vocabulary, merges and the *name* of how texts are split before merging ("pre"). Only a name that
  is known here is taken: a tokenizer that splits otherwise gives other ids without any error.

The file is not trusted: lengths that lead out of it, keys that would change what is computed, and tensors that do not
belong to a plain Llama are refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.io.paths import why_not
from prism_ae.models.config_keys import shown
from prism_ae.models.weights import write_weights

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

PLAIN = "what is read here is a plain Llama with SmolLM's tokenizer; take the model's folder from a hub instead"
_AGAIN = "fetch or make the file again"

_LARGEST = {
    "block_count": 1024,
    "context_length": 1 << 24,
    "embedding_length": 1 << 16,
    "feed_forward_length": 1 << 18,
    "attention.head_count": 1024,
    "attention.head_count_kv": 1024,
}
"""Numbers that must be there, and the most that each may be."""

_VOCABULARY = 1 << 20

_PASSED = ("general.", "GGUF.", "quantize.imatrix.")
"""Beginnings of keys that say where a file comes from and change nothing that is computed."""

_USED = frozenset(
    {
        *(f"llama.{key}" for key in _LARGEST),
        "llama.attention.layer_norm_rms_epsilon",
        "llama.rope.freq_base",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.padding_token_id",
        "tokenizer.chat_template",
    }
)

_PLAIN_VALUES: Mapping[str, tuple[Any, ...]] = {
    "general.architecture": ("llama",),
    "general.alignment": (32,),
    "llama.rope.scaling.type": ("none",),
    "llama.expert_count": (0,),
    "llama.expert_used_count": (0,),
    "split.count": (0, 1),
    "tokenizer.ggml.model": ("gpt2",),
    "tokenizer.ggml.pre": ("smollm",),
    "tokenizer.ggml.add_bos_token": (False,),
    "tokenizer.ggml.add_eos_token": (False,),
    "tokenizer.ggml.add_space_prefix": (False,),
}
"""Key -> the values that a plain Llama with SmolLM's tokenizer has."""

_REQUIRED = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMAL, _CONTROL = 1, 3
"""Kinds of tokens, as the format numbers them."""


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What a Llama's tensors follow from; sizes in numbers, not bytes."""

    layers: int
    context: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads

    def tensors(self, *, tied: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
        """GGUF's name -> Hugging Face's, and the shape [out, in]; ``tied``: the head is the embedding."""
        hidden, kv = self.hidden, self.kv_heads * self.head
        shapes = {
            "attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden),
            "attn_output": (hidden, hidden), "ffn_norm": (hidden,), "ffn_gate": (self.inner, hidden),
            "ffn_up": (self.inner, hidden), "ffn_down": (hidden, self.inner),
        }  # fmt: skip
        found: dict[str, tuple[str, tuple[int, ...]]] = {
            "token_embd.weight": ("model.embed_tokens.weight", (self.vocabulary, hidden)),
            "output_norm.weight": ("model.norm.weight", (hidden,)),
        }
        if not tied:
            found["output.weight"] = ("lm_head.weight", (self.vocabulary, hidden))
        for layer in range(self.layers):
            for part, name in _LAYER.items():
                found[f"blk.{layer}.{part}.weight"] = (f"model.layers.{layer}.{name}.weight", shapes[part])
        return found


def convert_gguf(source: Path, folder: Path) -> None:
    """Write a model's files into a folder that exists: float32 weights, and the tokenizer with its chat template.

    Args:
        source: a GGUF file of architecture llama with SmolLM's byte-level BPE, quantised or not.
        folder: receives config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json.

    Raises:
        MissingError: there is no such file.
        CheckpointError: it is no such model, or damaged.
        StoreError: the folder cannot be written.
    """
    _check_lengths(source)
    try:
        from gguf import GGUFReader

        reader = GGUFReader(source)
        values = {key: field.contents() for key, field in reader.fields.items()}
    except OSError as error:
        raise _unreadable(source, error) from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise CheckpointError(f"{source} is damaged: {error}", _AGAIN) from error
    _check_keys(values, source)
    tokenizer, special = _tokenizer(values, source)
    shape = _shape(values, source)
    config = _config(values, shape, source)
    config["tie_word_embeddings"] = tied = "output.weight" not in {tensor.name for tensor in reader.tensors}
    state = dict(_weights(reader, shape, source, tied=tied))
    import torch

    write_weights(folder, {name: torch.from_numpy(weight) for name, weight in state.items()})
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
    special["model_max_length"] = shape.context
    texts = {
        "config.json": json.dumps(config, indent=1) + "\n",
        "generation_config.json": json.dumps(ends, indent=1) + "\n",
        "tokenizer.json": tokenizer.to_str(pretty=False) + "\n",
        "tokenizer_config.json": json.dumps(special, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {folder / name}: {error.strerror}", "free some space, run again") from error


def _check_keys(values: Mapping[str, Any], source: Path) -> None:
    """Raises CheckpointError for a key that says something which would be left out."""
    for key in _REQUIRED:
        if key not in values:
            raise CheckpointError(f"{source}: the key {key} is missing", PLAIN)
    for key, value in values.items():
        if key in _PLAIN_VALUES:
            if not any(type(value) is type(good) and value == good for good in _PLAIN_VALUES[key]):
                raise _refused(source, key, value)
        elif key not in _USED and key not in _DERIVED and not key.startswith(_PASSED):
            raise _refused(source, key, value)


_DERIVED = (
    "llama.vocab_size",
    "llama.rope.dimension_count",
    "llama.attention.key_length",
    "llama.attention.value_length",
)
"""Keys that say again what follows from others; `_shape` checks that they do."""


def _refused(source: Path, key: str, value: Any) -> CheckpointError:
    return CheckpointError(f"{source}: {key} is {shown(value)}, which is not supported", PLAIN)


def _shape(values: Mapping[str, Any], source: Path) -> _Shape:
    numbers = []
    for key, most in _LARGEST.items():
        value = values.get(f"llama.{key}")
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{source}: llama.{key} must be a number from 1 to {most:,}, got {shown(value)}", PLAIN
            )
        numbers.append(value)
    layers, context, hidden, inner, heads, kv_heads = numbers
    shape = _Shape(layers, context, hidden, inner, heads, kv_heads, len(values["tokenizer.ggml.tokens"]))
    if hidden % heads or heads % kv_heads or shape.head % 2:
        raise CheckpointError(
            f"{source}: {heads} heads and {kv_heads} key heads do not divide {hidden} hidden units", PLAIN
        )
    for key in _DERIVED:
        expected = shape.vocabulary if key == "llama.vocab_size" else shape.head
        if values.get(key, expected) != expected:
            raise _refused(source, key, values[key])
    return shape


def _config(values: Mapping[str, Any], shape: _Shape, source: Path) -> dict[str, Any]:
    """A Hugging Face config, but for whether the head is tied."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": _number(values, "llama.attention.layer_norm_rms_epsilon", source),
        "rope_theta": _number(values, "llama.rope.freq_base", source),
        "bos_token_id": values["tokenizer.ggml.bos_token_id"],
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float32",
    }


def _number(values: Mapping[str, Any], key: str, source: Path) -> float:
    """A number of single precision as it was written: 1e-05, not 9.999999747378752e-06."""
    import numpy as np

    value = values.get(key)
    if type(value) is not float or not 0 < value < 1e12:
        raise CheckpointError(f"{source}: {key} must be a number greater than 0, got {shown(value)}", PLAIN)
    return float(str(np.float32(value)))


def _weights(
    reader: GGUFReader, shape: _Shape, source: Path, *, tied: bool
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Hugging Face's name -> float32 [out, in] or [hidden]; raises CheckpointError."""
    import numpy as np
    from gguf.quants import dequantize

    expected = shape.tensors(tied=tied)
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name in found:
        if name not in expected:
            raise CheckpointError(f"{source}: tensor '{name}' belongs to no plain Llama", PLAIN)
    for name, (known, size) in expected.items():
        if name not in found:
            raise CheckpointError(f"{source}: tensor '{name}' is missing", PLAIN)
        tensor = found[name]
        if (stored := tuple(int(length) for length in reversed(tensor.shape))) != size:
            raise CheckpointError(f"{source}: tensor '{name}' is {list(stored)}, expected is {list(size)}", PLAIN)
        try:
            weight = np.require(dequantize(tensor.data, tensor.tensor_type), np.float32, ["C", "W"]).reshape(size)
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            kind = getattr(tensor.tensor_type, "name", tensor.tensor_type)
            raise CheckpointError(f"{source}: tensor '{name}' ({kind}) cannot be read: {error}", PLAIN) from error
        if not np.isfinite(weight).all():
            raise CheckpointError(f"{source}: tensor '{name}' holds values that are no numbers", _AGAIN)
        if known.endswith(("q_proj.weight", "k_proj.weight")):
            weight = _halves(weight, shape.heads if known.endswith("q_proj.weight") else shape.kv_heads)
        yield known, weight


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k [heads * d, in] from pairs that are rotated together, side by side, to Hugging Face's order: the
    first of every pair, then the second."""
    import numpy as np

    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def _tokenizer(values: Mapping[str, Any], source: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, and what tokenizer_config.json says of it.

    "smollm" splits every digit off, then as GPT-2 does, into bytes. A byte that the vocabulary lacks (those that no
    text in UTF-8 has, and a few more) gives no token, as in the model's own tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds, merges = (_listed(values, key, source) for key in ("tokens", "token_type", "merges"))
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens) or not 0 < len(tokens) <= _VOCABULARY:
        raise CheckpointError(f"{source}: the vocabulary has {len(tokens):,} tokens, not each once with a kind", PLAIN)
    for text, kind in zip(tokens, kinds, strict=True):
        if kind not in (_NORMAL, _CONTROL):
            raise CheckpointError(f"{source}: token {shown(text)} is of kind {kind}, which is not supported", PLAIN)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    known = set(tokens)
    for pair in pairs:
        if len(pair) != 2 or not {*pair, "".join(pair)} <= known:
            raise CheckpointError(f"{source}: merge {shown(' '.join(pair))} is not one of two tokens to a third", PLAIN)
    tokenizer = Tokenizer(models.BPE({text: number for number, text in enumerate(tokens)}, pairs))
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    special = [text for text, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    said = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, required in (("bos", True), ("eos", True), ("unknown", False), ("padding", False)):
        number = values.get(f"tokenizer.ggml.{role}_token_id")
        if number is None and not required:
            continue
        if type(number) is not int or not 0 <= number < len(tokens):
            raise CheckpointError(
                f"{source}: tokenizer.ggml.{role}_token_id is {shown(number)}, which is no token", PLAIN
            )
        said[f"{ {'unknown': 'unk', 'padding': 'pad'}.get(role, role) }_token"] = tokens[number]
    template = values.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise _refused(source, "tokenizer.chat_template", template)
    more = {} if template is None else {"chat_template": template}
    return tokenizer, {**said, "clean_up_tokenization_spaces": False, **more}


def _listed(values: Mapping[str, Any], key: str, source: Path) -> list[Any]:
    kind = int if key == "token_type" else str
    value = values.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not all(type(each) is kind for each in value):
        raise CheckpointError(f"{source}: tokenizer.ggml.{key} is missing or of another kind", PLAIN)
    return value


# --- Before the file is read by a library that believes its numbers: whether everything it announces fits into it.

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by the format's number of its kind."""

_TEXT, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_DIMENSIONS = 4096, 1 << 16, 4
_LONGEST_KEY = 1 << 16


class _Header:
    """The numbers at the beginning of a file, read one after the other; ValueError for one that leads out of it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def number(self, form: str) -> int:
        data = self._file.read(struct.calcsize(form))
        if len(data) != struct.calcsize(form):
            raise ValueError("it is cut off")
        return int(struct.unpack(form, data)[0])

    def count(self, what: str, most: int) -> int:
        found = self.number("<Q")
        if found > most:
            raise ValueError(f"it announces {found:,} {what}")
        return found

    def skip(self, length: int) -> None:
        if length > self._size - self._file.tell():
            raise ValueError(f"it announces {length:,} bytes that it has not")
        self._file.seek(length, 1)

    def value(self, kind: int, *, nested: bool = False) -> None:
        if kind == _TEXT:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY and not nested:
            of, length = self.number("<I"), self.number("<Q")
            if of in _SIZES:
                self.skip(length * _SIZES[of])
                return
            if length > self._size // 8:
                raise ValueError(f"it announces {length:,} values in one key")
            for _ in range(length):
                self.value(of, nested=True)
        elif kind in _SIZES:
            self.skip(_SIZES[kind])
        else:
            raise ValueError(f"a value has the unknown kind {kind}")


def _check_lengths(source: Path) -> None:
    """Raises CheckpointError for a file that is no GGUF or whose lengths lead out of it, MissingError for none."""
    try:
        with source.open("rb") as file:
            header = _Header(file, source.stat().st_size)
            if file.read(4) != b"GGUF":
                raise ValueError("it is no GGUF file")
            if (version := header.number("<I")) not in (2, 3):
                raise ValueError(f"its format has version {version}; 2 and 3 are read, in this order of bytes")
            tensors, keys = header.count("tensors", _MOST_TENSORS), header.count("keys", _MOST_KEYS)
            for _ in range(keys):
                header.skip(header.count("bytes of a key", _LONGEST_KEY))
                header.value(header.number("<I"))
            for _ in range(tensors):
                header.skip(header.count("bytes of a name", _LONGEST_KEY))
                if (dimensions := header.number("<I")) > _MOST_DIMENSIONS:
                    raise ValueError(f"a tensor has {dimensions} dimensions")
                header.skip(8 * dimensions + 4 + 8)
    except OSError as error:
        raise _unreadable(source, error) from error
    except ValueError as error:
        raise CheckpointError(f"{source} is damaged: {error}", _AGAIN) from error


def _unreadable(source: Path, error: OSError) -> MissingError | CheckpointError:
    kind = MissingError if isinstance(error, FileNotFoundError) else CheckpointError
    return kind(f"cannot read {source}: {why_not(error, source)}", _AGAIN)
