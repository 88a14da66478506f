"""Training drafters: one recipe, any target, data that grows.

A recipe from scratch is trained as one *trunk*: all data in order, at a constant learning rate. Where a scale's data
end, the trunk has seen exactly them; a branch leaves it there and lets the rate fall to zero over a part of the same
data. A recipe with a warm start is trained once per scale, on that scale's data.
"""

from __future__ import annotations

import copy
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
from prism_ae.training.unroll import unroll

Tick = Callable[[int, float], None]
"""Called after each step with 1 and the step's loss."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Training data at nested scales.

    Attributes:
        features: over all examples, in one fixed order.
        ends: number of examples of each scale, ascending; a scale has the first of them.
    """

    features: Features
    ends: tuple[int, ...]

    def first(self, scales: int) -> Data:
        """The same data with the first ``scales`` scales alone."""
        return Data(self.features, self.ends[:scales])

    @property
    def lengths(self) -> list[int]:
        return [len(example.ids) for example in self.features.examples]


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
    """A drafter with random weights; ``examples`` choose EAGLE-3's draft vocabulary."""
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
        drafter.draft_ids = start.draft_ids.clone()
    return drafter.to(target.embedding.weight.device)


def train_trunk(
    recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter, tick: Tick
) -> Iterator[Drafter]:
    """Train from scratch; yields the finished drafter of each entry of ``data.ends``, in order."""
    trunk = _Trainer(recipe, training, data, drafter)
    begin = 0
    for scale, end in enumerate(data.ends):
        for rows in _pass(data, begin, end, training, f"{training.seed} trunk {scale}"):
            tick(1, trunk.step(rows, trunk.warm(training.learning_rate)))
        begin = end
        branch = trunk.branch()
        batches = _pass(data, 0, end, training, f"{training.seed} branch {scale}")
        batches = batches[: max(1, round(training.decay * len(batches)))]
        for number, rows in enumerate(batches):
            rate = training.learning_rate * (1 - number / len(batches))
            tick(1, branch.step(rows, trunk.warm(rate)))
        yield branch.drafter


def train_extra(recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter, tick: Tick) -> Drafter:
    """Train a warm-started drafter on all of ``data``, the rate falling linearly to zero; returns it."""
    trainer = _Trainer(recipe, training, data, drafter)
    total = extra_steps(training, data.ends[-1])
    passes = itertools.chain.from_iterable(
        _pass(data, 0, data.ends[-1], training, f"{training.seed} extra {number}") for number in itertools.count()
    )
    for number, rows in enumerate(itertools.islice(passes, total)):
        rate = training.extra_learning_rate * (1 - number / total)
        tick(1, trainer.step(rows, trainer.warm(rate)))
    return drafter


def trunk_steps(training: DrafterTraining, ends: Sequence[int]) -> int:
    """Optimiser steps of `train_trunk`, branches included."""
    steps, begin = 0, 0
    for end in ends:
        steps += -(-(end - begin) // training.rows) + max(1, round(training.decay * -(-end // training.rows)))
        begin = end
    return steps


def extra_steps(training: DrafterTraining, examples: int) -> int:
    """Optimiser steps of `train_extra`."""
    return max(1, round(training.extra_passes * -(-examples // training.rows)))


def _pass(data: Data, begin: int, end: int, training: DrafterTraining, seed: str) -> list[list[int]]:
    batches = order(data.lengths[begin:end], min(training.rows, end - begin), seed)
    return [[begin + row for row in rows] for rows in batches]


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

    def warm(self, rate: float) -> float:
        return rate * min(1.0, (self.steps + 1) / self.training.warmup)

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

    def branch(self) -> _Trainer:
        """An independent copy of the weights and the optimiser's state."""
        drafter = Drafter(self.drafter.config, self.data.features.target).to(next(self.drafter.parameters()).device)
        drafter.load_state_dict(self.drafter.state_dict())
        other = _Trainer(self.recipe, self.training, self.data, drafter)
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        other.steps = self.steps
        return other
