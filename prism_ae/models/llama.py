"""The Llama transformer, once: the same layer serves targets and drafters, in training and in decoding.

What differs between training a drafter on its own outputs, prefilling a prompt and verifying a draft tree is only
which keys and values a query may see. So a layer computes queries, keys and values (rotated), hands them to an
``attend`` callback that owns memory and mask, and goes on with what it returns. Whoever calls a model chooses the
callback: `causal` here for whole sequences, the KV cache in `prism_ae.decoding`, the aligned unroll in
`prism_ae.training`.

Parameters are held fused (q|k|v, gate|up): one matrix product where the published layout has three or two. The
published tensors are their rows: `published_state` takes them out, `fill` puts them in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import kaiming_uniform_, normal_
from torch.overrides import TorchFunctionMode

from prism_ae.errors import CheckpointError
from prism_ae.models.config import EMBEDDING, HEAD, LlamaConfig


class Attend(Protocol):
    """Owner of keys, values and mask.

    Called once per layer with the rotated ``query`` [B, heads, T, D] and the new ``key``, ``value``
    [B, kv_heads, T, D]; returns the attention output [B, heads, T, D].
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


def causal(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every position sees itself and all before it; nothing is kept."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1])


Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of positions' angles [B or 1, 1, T, D]. Of each pair of dimensions, i and i + D / 2, the sine of the
first is negated: so `rotate` multiplies by it alone."""


def rotary_frequencies(config: LlamaConfig) -> Tensor:
    """Angle per position of each pair of a head's dimensions: fp32 [head_dim / 2], on the CPU."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


class LeanModule(nn.Module):
    """A module whose call costs little: it runs no hooks, and its own modules are found like any attribute.

    A pass over few tokens of a small model spends as much on calls as on numbers. Parameters are looked up at each
    call: a move to another device replaces them.
    """

    def __call__(self, *arguments: Any) -> Any:
        return self.forward(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self.__dict__[name] = value


class Linear(LeanModule, nn.Linear):
    """A matrix product without bias: ``x`` [..., inputs] -> [..., outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._parameters["weight"])  # type: ignore[arg-type]


class Rotary(nn.Module):
    """Rotary position embedding: half-split convention of Llama.

    Angles, sines and cosines are computed and kept in fp32, whatever the model's dtype; only the result is rounded to
    it, as transformers does. (A bf16 table would be wrong from a few hundred positions on.)

    The table has rows for ``max_position_embeddings`` positions; `reserve` adds more.
    """

    table: Tensor
    """fp32 [positions, 2 D]: cosine and sine side by side, each as `Rotation` has them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self._config = config
        self.register_buffer("table", _rotary_table(config, config.max_position_embeddings), persistent=False)
        self.dtype = torch.float32

    def reserve(self, positions: int) -> None:
        """Make room for positions 0 to ``positions`` - 1; a table that has it already stays as it is."""
        if positions > len(self.table):
            self.table = _rotary_table(self._config, positions).to(self.table.device)

    def forward(self, positions: Tensor) -> Rotation:
        """``positions`` [B, T] or [1, T] -> their rotation, in the model's dtype."""
        cosine, sine = F.embedding(positions, self.table).unsqueeze(1).to(self.dtype).chunk(2, dim=-1)
        return cosine, sine


def _rotary_table(config: LlamaConfig, positions: int) -> Tensor:
    """`Rotary.table`. Computed on the CPU, wherever the model is: the same table everywhere."""
    angle = torch.arange(positions, dtype=torch.float32, device="cpu")[:, None] * rotary_frequencies(config)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([cosine, cosine, -sine, sine], dim=-1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """``x`` [B, heads, T, D] turned by its positions' angles."""
    cosine, sine = rotation
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * sine


class RMSNorm(LeanModule):
    """``x`` [..., size], divided by the root of its mean square and scaled by a learnt weight [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.shape, self.eps = (size,), eps

    def forward(self, x: Tensor) -> Tensor:
        return torch.rms_norm(x, self.shape, self._parameters["weight"], self.eps)


class Attention(LeanModule):
    """Grouped-query attention without biases. ``input_size`` is 2H in EAGLE-3's layer, H elsewhere."""

    def __init__(self, config: LlamaConfig, input_size: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.qkv = Linear(input_size, config.hidden_size + 2 * config.key_value_size)
        self.o = Linear(config.hidden_size, config.hidden_size)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` [B, T, input], or flat [B T, input] -> rotated query [B, heads, T, D], rotated key and value
        [B, kv_heads, T, D]."""
        length = rotation[0].shape[2]
        mixed = self.qkv(x).view(-1, length, self.heads + 2 * self.kv_heads, self.head_dim).transpose(1, 2)
        turned, value = mixed.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), 1)
        query, key = rotate(turned, rotation).split_with_sizes((self.heads, self.kv_heads), 1)
        return query, key, value

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend, layer: int) -> Tensor:
        mixed = attend(layer, *self.project(x, rotation))
        return self.o(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1))


class MLP(LeanModule):
    """Gated feed-forward network: ``x`` [..., H] -> down(silu(gate(x)) * up(x)) [..., H]."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class DecoderLayer(LeanModule):
    """One pre-norm layer; a draft cell's first layer has no input norm (``input_norm=False``).

    Its input may be flat, [B T, H] for [B, T, H], with the rotation of [B, T]: a product of matrices then computes with
    what it is called with. The output has the input's shape.
    """

    def __init__(self, config: LlamaConfig, *, input_norm: bool = True) -> None:
        super().__init__()
        self.input_norm = RMSNorm(config.hidden_size, config.rms_norm_eps) if input_norm else nn.Identity()
        self.attention = Attention(config, config.hidden_size)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend, layer: int) -> Tensor:
        x = x + self.attention(self.input_norm(x), rotation, attend, layer)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    """A target: embedding, layers, final norm, head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.head.weight = self.embedding.weight
        self.rotary = Rotary(config)

    def forward(
        self, ids: Tensor, positions: Tensor, attend: Attend = causal, aux_hidden_layers: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states of a forward pass; logits are ``self.head`` of the first result.

        Args:
            ids: token ids [B, T].
            positions: their positions [B, T] (or [1, T], the same for all rows).
            attend: owner of keys, values and mask.
            aux_hidden_layers: layers whose outputs to return as auxiliary hidden states: 0 is the embedding, i the
                i-th layer counted from 1 (the numbering of Hugging Face's ``hidden_states``, before the final norm).

        Returns:
            The last layer's output after the final norm [B, T, H], and the auxiliary hidden states side by side
            [B, T, len(aux_hidden_layers) * H], or None where none are asked for.
        """
        x = self.embedding(ids.flatten())
        rotation = self.rotary(positions)
        states = {0: x} if 0 in aux_hidden_layers else {}
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, rotation, attend, number - 1)
            if number in aux_hidden_layers:
                states[number] = x
        hidden = self.norm(x).view(*ids.shape, -1)
        if not aux_hidden_layers:
            return hidden, None
        aux_hidden = torch.cat([states[index] for index in aux_hidden_layers], dim=-1)
        return hidden, aux_hidden.view(*ids.shape, -1)


_FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "gate_up": ("gate_proj", "up_proj"),
}
"""Fused parameter -> the published names it holds, stacked by rows."""


def _rows(config: LlamaConfig, fused: str) -> list[int]:
    if fused == "qkv":
        return [config.hidden_size, config.key_value_size, config.key_value_size]
    return [config.intermediate_size, config.intermediate_size]


LAYER_NAMES = {
    "input_norm.weight": "input_layernorm.weight",
    "attention.qkv.weight": "self_attn.qkv.weight",
    "attention.o.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate_up.weight": "mlp.gate_up.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
"""A layer's parameter here -> its published name (fused ones keep ours until `_published`)."""


def _published(stored: str, tensor: Tensor, config: LlamaConfig) -> dict[str, Tensor]:
    """Published name -> what of ``tensor`` it is; ``stored`` is its name with fused names kept."""
    prefix, _, last = stored.removesuffix(".weight").rpartition(".")
    if last not in _FUSED:
        return {stored: tensor}
    parts = tensor.split(_rows(config, last))
    return {f"{prefix}.{name}.weight": part for name, part in zip(_FUSED[last], parts, strict=True)}


def target_names(config: LlamaConfig) -> dict[str, str]:
    """Parameter of `Llama` -> published name (fused names kept)."""
    names = {"embedding.weight": EMBEDDING, "norm.weight": "model.norm.weight"}
    if not config.tie_word_embeddings:
        names["head.weight"] = HEAD
    for layer in range(config.num_hidden_layers):
        for ours, published in LAYER_NAMES.items():
            names[f"layers.{layer}.{ours}"] = f"model.layers.{layer}.{published}"
    return names


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Parameters to ``dtype``, and rotary results with them; the rotary tables stay in fp32."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    for part in module.modules():
        if isinstance(part, Rotary):
            part.dtype = dtype


Module = TypeVar("Module", bound=nn.Module)


class _WithoutValues(TorchFunctionMode):
    """Leaves parameters as their memory happens to be."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func in (normal_, kaiming_uniform_) else func(*args, **kwargs)


def unfilled(make: Callable[[], Module], dtype: torch.dtype, device: torch.device) -> Module:
    """The module that ``make`` makes, in ``dtype`` on ``device``, its parameters without values: for `fill`.

    Random values would take four seconds per billion parameters; fp32 on the host, twice the memory of half precision.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _WithoutValues(), device:
            module = make()
    finally:
        torch.set_default_dtype(before)
    cast_parameters(module, dtype)
    return module.to(device)


def fill(module: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], config: LlamaConfig) -> None:
    """Fill ``module`` from published tensors, one after the other: nothing is held twice.

    Args:
        module: its parameters are overwritten (cast to their dtype, on their device).
        state: published name -> tensor of the shape that ``config`` implies: linear weights [out, in], norms [H].
        names: parameter -> published name (fused names kept), for every parameter of ``module``.
        config: sizes of its layers.
    """
    places = _places(module, names, config)
    assert places.keys() == state.keys()
    for name, place in places.items():
        place.copy_(state[name])


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], config: LlamaConfig, where: str
) -> None:
    """`fill`, from a file that may hold anything; ``where`` names it in messages.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or of another shape.
    """
    places = _places(module, names, config)
    missing = sorted(places.keys() - state.keys())
    unexpected = sorted(state.keys() - places.keys())
    if missing:
        raise CheckpointError(f"{where}: tensor '{missing[0]}' is missing ({len(missing)} in all)")
    if unexpected:
        raise CheckpointError(f"{where}: tensor '{unexpected[0]}' is unexpected ({len(unexpected)} in all)")
    for name, place in places.items():
        if state[name].shape != place.shape:
            found, expected = list(state[name].shape), list(place.shape)
            raise CheckpointError(f"{where}: '{name}' has shape {found}, expected {expected}")
    fill(module, state, names, config)


def _places(module: nn.Module, names: Mapping[str, str], config: LlamaConfig) -> dict[str, Tensor]:
    """Published name -> the part of a parameter that it fills."""
    parameters = dict(module.named_parameters())
    assert parameters.keys() == names.keys()
    places: dict[str, Tensor] = {}
    for ours, stored in names.items():
        places |= _published(stored, parameters[ours].data, config)
    return places


def published_state(module: nn.Module, names: Mapping[str, str], config: LlamaConfig) -> dict[str, Tensor]:
    """The tensors to write for ``module``: published names, unfused, contiguous, on the CPU, sharing no memory."""
    parameters = dict(module.named_parameters())
    state: dict[str, Tensor] = {}
    for ours, stored in names.items():
        state |= _published(stored, parameters[ours].detach().cpu(), config)
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
