"""Random models that accept each other's drafts by chance: they take a second to make, and nothing of them is learnt.

A target's hidden state is mostly its last token's embedding, and drafters are fitted to that for a few steps: so drafts
are often, but not always, right.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import Llama, causal

FIT = 40
"""Steps of optimisation that a drafter gets."""


def scale_layers(model: torch.nn.Module, factor: float) -> None:
    """Random layers of greater influence: the text then depends on what came before, and varies."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and ("layers" in name or "modules_" in name):
                parameter *= factor


def make_drafter(config: DrafterConfig, target: Llama, texts: Tensor, fit: int = FIT) -> Drafter:
    """Fitted for a second, so that some of its drafts are right at every depth."""
    drafter = Drafter(config, target)
    if config.draft_vocab_size is not None:
        ids = torch.randperm(target.config.vocab_size)[: config.draft_vocab_size].sort().values
        drafter.draft_ids.copy_(ids)
    if drafter.own_head is not None:
        with torch.no_grad():
            drafter.own_head.weight.copy_(target.head.weight[ids])
    positions = torch.arange(texts.shape[1] - 1)[None]
    rotation = drafter.rotary(positions)
    own_vocabulary = torch.arange(config.draft_vocab_size or target.config.vocab_size)
    with torch.no_grad():
        hidden, captured = target(texts[:, :-1], positions, aux_hidden_layers=config.aux_hidden_layers)
        wanted = target.head(hidden[:, 1:])[..., drafter.token_ids(own_vocabulary)]
    optimiser = torch.optim.Adam(drafter.parameters(), 3e-3)
    for _ in range(fit):
        guess = drafter.project_hidden(captured if captured is not None else hidden)
        loss = torch.zeros(())
        for step in range(3):
            embedding = drafter.embed(texts[:, 1:])
            guess = drafter.step(step, embedding, guess, rotation, causal)
            # The guess at t is of hidden t + 1; the next step reads it there.
            loss = loss + torch.nn.functional.cross_entropy(
                drafter.logits(guess[:, :-1]).flatten(0, 1), wanted.softmax(-1).flatten(0, 1)
            )
            guess = guess.roll(1, dims=1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return drafter


def make_small(target: Llama, layers: int) -> Llama:
    """A separate model that mostly agrees with the target: its first layers, with noise."""
    small = Llama(dataclasses.replace(target.config, num_hidden_layers=layers))
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            value = target.get_parameter(name)
            parameter.copy_(value + 0.1 * value.std() * torch.randn_like(value) if value.dim() > 1 else value)
    return small


def written(target: Llama, rows: int, length: int) -> Tensor:
    """What the target writes after a random token [rows, length]."""
    ids = torch.randint(3, target.config.vocab_size, (rows, 1))
    with torch.no_grad():
        while ids.shape[1] < length:
            hidden, _ = target(ids, torch.arange(ids.shape[1])[None])
            ids = torch.cat([ids, target.head(hidden[:, -1]).softmax(-1).multinomial(1)], dim=1)
    return ids
