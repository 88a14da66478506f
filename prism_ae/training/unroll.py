"""The aligned unroll: all draft steps at all positions of whole sequences at once.

At inference, step j of a round reads the keys and values that the steps before it left in the KV cache. Trained on
whole sequences, step j at position t belongs to the round that started at position t - j. It therefore sees the keys
and values that step 0 wrote at positions up to t - j, and those of step i at position t - j + i, for i = 1 … j; its
hidden input is the output of step j - 1 at position t - 1. Rotary positions are t throughout. A position t < j belongs
to no round: its output is meaningless and must be left out of the loss.

"The keys and values that step i wrote" can be read in two ways:

- ``entry``: those of the module that ran step i, as at inference: PRISM's second module reads what the first one wrote.
- ``own``: those that the reading module would have written from the same inputs. The authors' training does this
  (Akemiiii/prism-mlsys-ae at 3b00014, PRISM/): module 1 trains on its own keys and values, and reads module 0's only
  at inference.

Beside them there is ``misrouted``, for stacked layers (HASS-2, HASS-3): how the same training code wires a stack in all
steps but the first. Each layer takes the step's fused input as query and residual, not normed, in place of the output
of the layer below; that output is only what the keys and values of positions ≤ t - j are made of, those of this very
step in place of step 0's. A stack is so trained as a stack in step 0 alone. With one layer it is ``entry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_ae.drafters.model import Drafter, EagleModule
from prism_ae.models.llama import DecoderLayer, Rotation, causal

Context = Literal["entry", "own", "misrouted"]
KeyValue = tuple[Tensor, Tensor]


def unroll(
    drafter: Drafter, embedding: Tensor, features: Tensor, steps: int, *, detach: bool, context: Context = "entry"
) -> list[Tensor]:
    """Outputs of steps 0 … ``steps`` - 1.

    Args:
        drafter: its parameters get gradients.
        embedding: target embedding of token t+1 at position t [B, T, H].
        features: the target's hidden states that the drafter reads, at position t [B, T, n * H].
        steps: forwards.
        detach: whether a step's hidden input is cut from the graph of the step before it.
        context: the keys and values that a step reads, see above.

    Returns:
        Per step the output [B, T, H]; at position t it guesses hidden t+1 and token t+2. Positions t < j of step j
        are meaningless.

    Raises:
        ValueError: "own" for stacked layers, where the inputs of deeper layers are not the module's inputs; "misrouted"
            for another cell or several modules, which the authors do not stack.
    """
    if context == "misrouted":
        return _misrouted(drafter, embedding, features, steps, detach=detach)
    own = context == "own" and drafter.config.modules > 1
    if own and drafter.kv_layers > 1:
        raise ValueError("context 'own' is defined for modules of one layer")
    rotation = drafter.rotary(torch.arange(embedding.shape[1], device=embedding.device)[None])
    hidden = drafter.project_hidden(features)
    written: list[list[KeyValue]] = [[] for _ in range(drafter.kv_layers)]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for step in range(steps):
        if step:
            previous = outputs[-1].detach() if detach else outputs[-1]
            hidden = shift(previous, 1)
        if own:
            inputs.append(hidden)
            module = drafter.modules_[drafter.config.module_of(step)]
            assert isinstance(module, EagleModule)
            memory = [[_key_value(module, embedding, earlier, rotation) for earlier in inputs[:-1]]]
        else:
            memory = written
        outputs.append(drafter.step(step, embedding, hidden, rotation, _Aligned(memory)))
    return outputs


def _key_value(module: EagleModule, embedding: Tensor, hidden: Tensor, rotation: Rotation) -> KeyValue:
    """The keys and values [B, kv_heads, T, D] that ``module`` writes for these inputs; its layer has no input norm."""
    layer = module.layers[0]
    assert isinstance(layer, DecoderLayer)
    _, key, value = layer.attention.project(module.fuse(embedding, hidden), rotation)
    return key, value


def _misrouted(drafter: Drafter, embedding: Tensor, features: Tensor, steps: int, *, detach: bool) -> list[Tensor]:
    """`unroll` as the authors' code does it for a stack; positions t < j reach later ones through the context."""
    (module, *others) = drafter.modules_
    if others or not isinstance(module, EagleModule):
        raise ValueError("context 'misrouted' is defined for one module of EAGLE's cell")
    rotation = drafter.rotary(torch.arange(embedding.shape[1], device=embedding.device)[None])
    hidden = drafter.project_hidden(features)
    fused = [module.fuse(embedding, hidden)]
    outputs = [module(embedding, hidden, rotation, causal)]
    for _ in range(1, steps):
        previous = outputs[-1].detach() if detach else outputs[-1]
        # Nothing comes before position 0: it keeps its input.
        hidden = torch.cat([hidden[:, :1], previous[:, :-1]], dim=1)
        fused.append(module.fuse(embedding, hidden))
        below = fused[0]
        for layer in module.layers:
            assert isinstance(layer, DecoderLayer)
            project = layer.attention.project
            query = project(fused[-1], rotation)[0]
            memory = [project(layer.input_norm(below), rotation)[1:], *(project(x, rotation)[1:] for x in fused[1:])]
            mixed = aligned_attention(query, memory)
            x = fused[-1] + layer.attention.o(mixed.transpose(1, 2).flatten(2))
            below = x + layer.mlp(layer.mlp_norm(x))
        outputs.append(below)
    return outputs


class _Aligned:
    """`Attend` for one step: reads and extends ``memory[layer]``, the keys and values of the steps so far."""

    def __init__(self, memory: Sequence[list[KeyValue]]) -> None:
        self.memory = memory

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.memory[layer].append((key, value))
        if len(self.memory[layer]) == 1:
            return causal(layer, query, key, value)
        return aligned_attention(query, self.memory[layer])


def aligned_attention(query: Tensor, memory: Sequence[KeyValue]) -> Tensor:
    """Attention of step j = len(memory) - 1: softmax over step 0's keys up to t - j and step i's at t - j + i.

    Args:
        query: [B, heads, T, D].
        memory: key and value [B, kv_heads, T, D] of steps 0 … j.

    Returns:
        [B, heads, T, D].
    """
    batch, heads, length, size = query.shape
    context_key, context_value = memory[0]
    kv_heads, step = context_key.shape[1], len(memory) - 1
    query = query.view(batch, kv_heads, heads // kv_heads, length, size) * size**-0.5
    later = [(shift(k, step - i), shift(v, step - i)) for i, (k, v) in enumerate(memory[1:], start=1)]
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril(-step)
    context = (query @ context_key.unsqueeze(2).transpose(-1, -2)).masked_fill(~seen, -torch.inf)
    branch = [(query * key.unsqueeze(2)).sum(-1, keepdim=True) for key, _ in later]
    for number, scores in enumerate(branch, start=1):
        scores[..., : step - number, :] = -torch.inf  # there is no position t - j + i < 0
    weights = torch.cat([context, *branch], dim=-1).softmax(-1)
    mixed = weights[..., :length] @ context_value.unsqueeze(2)
    for index, (_, value) in enumerate(later):
        mixed = mixed + weights[..., length + index, None] * value.unsqueeze(2)
    return mixed.reshape(batch, heads, length, size)


def shift(x: Tensor, by: int) -> Tensor:
    """``x`` [..., T, D] moved to later positions, zeros in front: position t holds what t - ``by`` held."""
    return F.pad(x, (0, 0, by, 0))[..., : x.shape[-2], :] if by else x
