"""Tiny targets and drafters with random weights, for tests of decoding.

Purely random drafters never guess right. Here a target's next token depends mostly, not only, on its last token, and
a draft head passes that token's embedding on, so that drafts are accepted several levels deep.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import torch

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter, EagleModule
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama

M = TypeVar("M", bound=torch.nn.Module)

KINDS = ("eagle2", "hass2", "prism", "prism_star", "prism3", "eagle3")


def make_target(
    seed: int = 0,
    vocab: int = 29,
    kv_heads: int = 2,
    positions: int = 128,
    dtype: torch.dtype = torch.float64,
    certainty: float = 2.5,
) -> Llama:
    """A target of 3 layers; ``certainty`` is the standard deviation of its logits."""
    torch.manual_seed(seed)
    target = _randomise(Llama(LlamaConfig(vocab, 32, 48, 3, 4, kv_heads, 1e-5, 10000.0, positions)), 0.5)
    target.embedding.weight.normal_()
    target.head.weight.normal_(0, certainty * 32**-0.5)
    return _settle(target, dtype)


def make_drafter(kind: str, target: Llama, seed: int = 1, positions: int | None = None) -> Drafter:
    torch.manual_seed(seed)
    base = target.config
    layer = dataclasses.replace(
        base, num_hidden_layers=1, max_position_embeddings=positions or base.max_position_embeddings
    )
    two = dataclasses.replace(layer, num_hidden_layers=2)
    config = {
        "eagle2": DrafterConfig("eagle", layer),
        "hass2": DrafterConfig("eagle", two),
        "prism": DrafterConfig("eagle", layer, 2, (0, 1)),
        "prism_star": DrafterConfig("eagle", layer, 2, (0, 1), (1, 2, 3)),
        "prism3": DrafterConfig("eagle", layer, 3, (0, 1, 2), (0, 2, 3)),
        "eagle3": DrafterConfig(
            "eagle3", layer, aux_hidden_layers=(0, 1, 2), draft_vocab_size=base.vocab_size * 5 // 6
        ),
    }[kind]
    drafter = _randomise(Drafter(config, target), 0.5)
    for module in drafter.modules_:
        if isinstance(module, EagleModule):
            module.fusion.weight[:, : base.hidden_size] += torch.eye(base.hidden_size)
    if config.draft_vocab_size:
        drafter.draft_ids = torch.randperm(base.vocab_size)[: config.draft_vocab_size]
    return _settle(drafter, target.head.weight.dtype)


def _randomise(model: M, scale: float) -> M:
    model.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.normal_(0, scale * parameter.shape[1] ** -0.5)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _settle(model: M, dtype: torch.dtype) -> M:
    model = model.to(dtype)
    return model.eval().requires_grad_(False)
