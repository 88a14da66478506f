"""Sizes and settings of a Llama-style model. No torch: a plan asks what a folder holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from prism_ae.errors import CheckpointError
from prism_ae.models.config_keys import check_keys, refused, shown


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """How Llama-3.1 stretches RoPE beyond the context it was trained with first, named after the Hugging Face config.

    Frequencies with fewer than ``low_freq_factor`` turns in ``original_max_position_embeddings`` positions are divided
    by ``factor``, those with more than ``high_freq_factor`` stay, and those between are interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a Llama-style model, named after the Hugging Face config where that has a name.

    ``rope_scaling`` is None where RoPE is not stretched. Raises ValueError for sizes that no Llama has: JSON may hold
    anything in their place.
    """

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
    rope_scaling: Llama3Rope | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {shown(value)}, not a positive integer")
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= LARGEST:
                raise ValueError(f"{name} is {shown(value)}, not a positive number")
        heads, keys = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads or heads % keys or self.head_dim % 2:
            raise ValueError(f"{heads} heads and {keys} for keys do not divide hidden size {self.hidden_size}")
        if self.max_position_embeddings > MOST_POSITIONS:
            raise ValueError(
                f"max_position_embeddings is {self.max_position_embeddings}; no model has more than {MOST_POSITIONS:,}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def key_value_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], where: str, used: Collection[str] = ()) -> LlamaConfig:
        """From a Hugging Face ``config.json``; raises CheckpointError for what this class cannot express.

        ``used``: keys that the caller reads itself.
        """
        architectures = config.get("architectures") or ["LlamaForCausalLM"]
        if architectures != ["LlamaForCausalLM"]:
            raise CheckpointError(f"{where}: architecture {architectures} is not LlamaForCausalLM")
        check_keys(config, where, used)
        theta, scaling = read_rope(config, where)
        if (activation := config.get("hidden_act")) not in (None, "silu", "swish"):  # two names of one function
            raise refused("hidden_act", activation, where)
        for key in ("attention_bias", "mlp_bias"):
            if config.get(key):
                raise refused(key, config[key], where)
        # Some configs write null for what has a default.
        heads, keys = config["num_attention_heads"], config.get("num_key_value_heads")
        made = cls(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=heads if keys is None else keys,
            rms_norm_eps=config["rms_norm_eps"],
            rope_theta=theta or HF_ROPE_THETA,
            max_position_embeddings=config["max_position_embeddings"],
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            rope_scaling=scaling,
        )
        if config.get("head_dim") not in (None, made.head_dim):
            raise CheckpointError(f"{where}: head_dim times num_attention_heads is not hidden_size")
        return made

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], where: str) -> LlamaConfig:
        """What `fields` says; raises TypeError for a key that is missing or unknown, CheckpointError as `from_hf`."""
        scaling = read_rope({"rope_scaling": fields.get("rope_scaling")}, where)[1]
        return cls(**{**fields, "rope_scaling": scaling})

    def fields(self) -> dict[str, Any]:
        """Its fields as JSON, under their Hugging Face names; without ``rope_scaling`` where there is none."""
        fields = dataclasses.asdict(self)
        del fields["rope_scaling"]
        if self.rope_scaling is not None:
            fields["rope_scaling"] = {"rope_type": "llama3", **dataclasses.asdict(self.rope_scaling)}
        return fields

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
            **self.fields(),
        }


_COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings",
)  # fmt: skip

LARGEST = 3.4e38
"""Rounded down: the largest number of the arithmetic that uses them, float32."""

MOST_POSITIONS = 2**24
"""Four times the longest context that a published Llama has."""


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""Names of a Llama's tensors."""

HF_ROPE_THETA = 10000.0
"""What Hugging Face's Llama takes where a config names no base; Llama-2's own config names none."""

_ROPE_OBJECTS = ("rope_parameters", "rope_scaling")
"""Keys of a Hugging Face config that hold RoPE's type: since transformers 5, and before."""

_PLAIN_ROPE = {"rope_type", "type", "rope_theta"}


def read_rope(config: Mapping[str, Any], where: str) -> tuple[float | None, Llama3Rope | None]:
    """RoPE's base and stretching as a Hugging Face config says them, in any of the places they can be in.

    Args:
        config: with ``rope_theta``, ``rope_parameters``, ``rope_scaling``, or none of them.
        where: its file, for messages.

    Returns:
        The base, None where none is named; and the stretching, None where there is none.

    Raises:
        CheckpointError: a type that is not supported, a value that makes no sense, or two places that disagree.
    """
    bases, scalings = _named_bases(config, where), {}
    for key in _ROPE_OBJECTS:
        if rope := config.get(key):
            if not isinstance(rope, Mapping):
                raise CheckpointError(f"{where}: {key} is {rope!r}, not an object")
            scalings[key] = _read_scaling(rope, key, where)
    for said in (bases, scalings):
        if len(set(said.values())) > 1:
            first, second = list(said)[:2]
            raise CheckpointError(f"{where}: {first} and {second} do not say the same RoPE")
    return next(iter(bases.values()), None), next(iter(scalings.values()), None)


def named_rope_theta(config: Mapping[str, Any], where: str) -> float | None:
    """The base alone, of a model of any architecture, whatever type of RoPE it has; arguments as `read_rope`.

    Raises:
        CheckpointError: it is not a positive number.
    """
    return next(iter(_named_bases(config, where).values()), None)


def _named_bases(config: Mapping[str, Any], where: str) -> dict[str, float]:
    """Place in the config -> the base that is named there."""
    places = {"": config} | {f"{key}.": config.get(key) for key in _ROPE_OBJECTS}
    return {
        f"{place}rope_theta": _positive(rope["rope_theta"], f"{place}rope_theta", where)
        for place, rope in places.items()
        if isinstance(rope, Mapping) and rope.get("rope_theta") is not None
    }


def _read_scaling(rope: Mapping[str, Any], key: str, where: str) -> Llama3Rope | None:
    kinds = {rope[name] for name in ("rope_type", "type") if rope.get(name) is not None} or {"default"}
    kind = kinds.pop()
    if kinds or kind not in ("default", "llama3"):
        raise CheckpointError(
            f"{where}: {key}: rope type '{kind}' is not supported; default and llama3 are",
            "--engine sglang measures targets of every type that SGLang knows; a drafter must be of one of these two",
        )
    names = [field.name for field in dataclasses.fields(Llama3Rope)] if kind == "llama3" else []
    for name, value in rope.items():
        if name not in {*_PLAIN_ROPE, *names} and value is not None:
            if name == "partial_rotary_factor" and value == 1:
                continue
            raise CheckpointError(f"{where}: {key}.{name} is {value!r}, which is not supported for rope type '{kind}'")
    if kind == "default":
        return None
    missing = [name for name in names if rope.get(name) is None]
    if missing:
        raise CheckpointError(f"{where}: {key}.{missing[0]} is missing, which rope type 'llama3' needs")
    values = {name: _positive(rope[name], f"{key}.{name}", where) for name in names}
    if values["low_freq_factor"] >= values["high_freq_factor"]:
        raise CheckpointError(f"{where}: {key}.low_freq_factor is not below {key}.high_freq_factor")
    original = rope["original_max_position_embeddings"]
    if type(original) is not int:
        raise CheckpointError(f"{where}: {key}.original_max_position_embeddings is {original!r}, not an integer")
    return Llama3Rope(values["factor"], values["low_freq_factor"], values["high_freq_factor"], original)


def _positive(value: Any, key: str, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= LARGEST:
        raise CheckpointError(f"{where}: {key} is {shown(value)}, not a positive number")
    return float(value)
