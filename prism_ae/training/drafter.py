"""Training drafters: one recipe, any target, any amount of data.

Every amount of data is a training of its own, over as many passes as the recipe says: what a scale adds is data, and
never only steps of a longer training.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.mini.recipes import DrafterRecipe, DrafterTraining
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.training.examples import Example, order
from prism_ae.training.features import Features
from prism_ae.training.losses import LossWeights, labels, loss
from prism_ae.training.target import schedule
from prism_ae.training.unroll import unroll

Tick = Callable[[int, float], None]
"""Called after each step with 1 and the step's loss."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What one drafter learns from: the first ``count`` examples of ``features``, as often as training scale ``scale``
    sees its own."""

    features: Features
    count: int
    scale: str

    @property
    def examples(self) -> Sequence[Example]:
        return self.features.examples[: self.count]


def drafter_config(recipe: DrafterRecipe, target: LlamaConfig, aux_hidden_layers: Sequence[int]) -> DrafterConfig:
    """Sizes of the drafter that ``recipe`` describes, for a target of these sizes."""
    return DrafterConfig(
        cell=recipe.cell,
        layer=dataclasses.replace(target, num_hidden_layers=recipe.layers, tie_word_embeddings=False),
        modules=len(set(recipe.step_mapping)),
        step_mapping=tuple(recipe.step_mapping),
        aux_hidden_layers=tuple(aux_hidden_layers),
        draft_vocab_size=min(recipe.draft_vocabulary, target.vocab_size) if recipe.draft_vocabulary else None,
    )


def frequent_tokens(examples: Sequence[Example], count: int, vocabulary: int) -> torch.Tensor:
    """The ``count`` most frequent answer tokens, ascending [count]; of equally frequent ones the smaller ids."""
    seen = Counter(
        token for example in examples for token, said in zip(example.ids, example.is_answer(), strict=True) if said
    )
    best = sorted(range(vocabulary), key=lambda token: (-seen[token], token))[:count]
    return torch.tensor(sorted(best))


def new_drafter(
    recipe: DrafterRecipe, target: Llama, aux_hidden_layers: Sequence[int], examples: Sequence[Example], seed: int
) -> Drafter:
    """A drafter with random weights; ``examples`` choose its draft vocabulary, if it has one."""
    torch.manual_seed(seed)
    drafter = Drafter(drafter_config(recipe, target.config, aux_hidden_layers), target)
    if drafter.config.draft_vocab_size is not None:
        ids = frequent_tokens(examples, drafter.config.draft_vocab_size, target.config.vocab_size)
        drafter.draft_ids = ids
    return drafter.to(target.embedding.weight.device)


def warm_started(recipe: DrafterRecipe, target: Llama, start: Drafter) -> Drafter:
    """A drafter whose modules are all copies of ``start``'s module 0."""
    drafter = Drafter(drafter_config(recipe, target.config, start.config.aux_hidden_layers), target)
    for module in drafter.modules_:
        module.load_state_dict(start.modules_[0].state_dict())
    drafter.hidden_proj.load_state_dict(start.hidden_proj.state_dict())
    if drafter.own_head is not None and start.own_head is not None:
        drafter.own_head.load_state_dict(start.own_head.state_dict())
        drafter.norm.load_state_dict(start.norm.state_dict())
    if drafter.config.draft_vocab_size != start.config.draft_vocab_size:
        raise CheckpointError(
            f"a drafter of {drafter.config.vocabulary} draft tokens cannot start from one of {start.config.vocabulary}",
            "give both recipes the same draft_vocabulary",
        )
    drafter.draft_ids = start.draft_ids.clone()
    return drafter.to(target.embedding.weight.device)


def train(recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter, tick: Tick) -> None:
    """Train ``drafter``, which is new or warm-started as its recipe says.

    The rate rises in the first steps, stays, and falls linearly to zero in the last part of all.
    """
    trainer, stage = _Trainer(recipe, training, data, drafter), training.stage(recipe)
    total = training_steps(recipe, training, data)
    kind = "extra" if recipe.start else "scratch"
    for number, rows in enumerate(itertools.islice(_batches(data, training, kind), total)):
        rate = stage.learning_rate * schedule(number, total, training.warmup, stage.decay)
        tick(1, trainer.step(rows, rate))


def training_steps(recipe: DrafterRecipe, training: DrafterTraining, data: Data) -> int:
    """Optimiser steps of `train`."""
    return max(1, round(training.stage(recipe).passes[data.scale] * -(-data.count // training.rows)))


def _batches(data: Data, training: DrafterTraining, kind: str) -> Iterator[list[int]]:
    """Batches of pass after pass, each in another order, without end."""
    lengths = [len(example.ids) for example in data.examples]
    for number in itertools.count():
        yield from order(lengths, min(training.rows, data.count), f"{training.seed} {kind} {number}")


class _Trainer:
    """A drafter with its optimiser."""

    def __init__(self, recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter) -> None:
        self.recipe, self.training, self.data, self.drafter = recipe, training, data, drafter
        self.weights = LossWeights(
            recipe.feature_weight, recipe.soft_weight, recipe.top_k_weight, recipe.top_k, recipe.step_decay
        )
        self.steps = 0
        self.parameters = list(drafter.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )

    def step(self, rows: Sequence[int], rate: float) -> float:
        """One optimiser step; returns the loss."""
        features, recipe = self.data.features.read(rows, self.drafter.config.aux_hidden_layers), self.recipe
        with torch.no_grad():
            embedding = self.drafter.embed(features.batch.ids[:, 1:])
        truth = labels(self.drafter, features.batch.answer, features.hidden, self.data.features.target.head)
        outputs = unroll(
            self.drafter,
            embedding,
            features.aux_hidden[:, :-1],
            recipe.forwards,
            detach=recipe.detach,
            context=recipe.context,
        )
        value = loss(self.drafter, outputs, truth, self.weights)
        if not torch.isfinite(value):
            raise CheckpointError(
                f"step {self.steps + 1} of training has a loss that is not finite ({value.item()})",
                "the target's weights are damaged, or its hidden states too large for this recipe's rates",
            )
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        return value.item()
