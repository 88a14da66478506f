"""Training drafters: one recipe, any target, any amount of data.

Every amount of data is a training of its own, over as many passes as the recipe says: what a scale adds is data, and
never only steps of a longer training.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter, EagleModule
from prism_ae.errors import CheckpointError
from prism_ae.io.digests import digest, plain
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.recipes.file import DrafterRecipe, DrafterTraining
from prism_ae.training.examples import Example, batches_by_tokens, order, order_by_tokens
from prism_ae.training.features import FeatureBatch, Features
from prism_ae.training.losses import Labels, LossWeights, Scoring, backpropagate, labels, lean_labels
from prism_ae.training.mapped import content_digest
from prism_ae.training.ranks import ALONE, Ranks
from prism_ae.training.state import TrainingState
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
    if recipe.layers_from_target:
        _begin_as_target(drafter, target)
    return drafter.to(target.embedding.weight.device)


@torch.no_grad()
def _begin_as_target(drafter: Drafter, target: Llama) -> None:
    """The layers as the target's last ones, which read what a drafter reads first: nearly final hidden states.

    The fusion begins as the hidden state it is given, beside little of the embedding's half.
    """
    (module,) = drafter.modules_
    assert isinstance(module, EagleModule)
    for layer, theirs in zip(module.layers, target.layers[-len(module.layers) :], strict=True):
        state = theirs.state_dict()
        layer.load_state_dict({name: state[name] for name in layer.state_dict()})
    size = module.fusion.out_features
    module.fusion.weight[:, size:] = torch.eye(size)
    module.fusion.bias.zero_()


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


@dataclasses.dataclass(frozen=True)
class Course:
    """With whom a training runs, and what it goes on from: neither changes what comes out, but by rounding.

    Attributes:
        ranks: the processes that train together, each with the same data.
        state: file that the training is continued from and, every ``every`` seconds, kept in; None: it begins anew.
            It stays when the training ends: whoever publishes the drafter deletes it then.
    """

    ranks: Ranks = ALONE
    state: Path | None = None
    every: float = 120.0


IN_ONE_GO = Course()


def train(
    recipe: DrafterRecipe,
    training: DrafterTraining,
    data: Data,
    drafter: Drafter,
    tick: Tick,
    *,
    course: Course = IN_ONE_GO,
) -> None:
    """Train ``drafter``, which is new or warm-started as its recipe says.

    The rate rises in the first steps, stays, and falls linearly to zero in the last part of all.

    Raises:
        CheckpointError: the loss is not finite, or the course's state is damaged or of another training.
        StoreError: the state cannot be written.
    """
    trainer, stage = _Trainer(recipe, training, data, drafter, course.ranks), training.stage(recipe)
    total = training_steps(recipe, training, data)
    kind = "extra" if recipe.start else "scratch"
    keeper = _Keeper(course, trainer, total) if course.state else None
    if done := keeper.continued() if keeper else 0:
        tick(done, trainer.loss)
    for number, rows in enumerate(itertools.islice(_batches(data, training, kind), done, total), start=done):
        rate = stage.learning_rate * schedule(number, total, training.warmup, stage.decay)
        tick(1, trainer.step(rows, rate))
        if keeper:
            keeper.keep()


def training_steps(recipe: DrafterRecipe, training: DrafterTraining, data: Data) -> int:
    """Optimiser steps of `train`."""
    by_tokens, by_rows = training.tokens, -(-data.count // training.rows)
    a_pass = batches_by_tokens(_lengths(data), by_tokens) if by_tokens else by_rows
    return max(1, round(training.stage(recipe).passes[data.scale] * a_pass))


def training_tokens(recipe: DrafterRecipe, training: DrafterTraining, data: Data) -> int:
    """Tokens that `train` reads, about: for a rate. Rows that fill up a pass's last batch are not counted."""
    return round(training.stage(recipe).passes[data.scale] * sum(_lengths(data)))


def _lengths(data: Data) -> list[int]:
    return [len(example.ids) for example in data.examples]


def _batches(data: Data, training: DrafterTraining, kind: str) -> Iterator[list[int]]:
    """Batches of pass after pass, each in another order, without end."""
    lengths = _lengths(data)
    for number in itertools.count():
        seed = f"{training.seed} {kind} {number}"
        if training.tokens:
            yield from order_by_tokens(lengths, training.tokens, seed)
        else:
            yield from order(lengths, min(training.rows, data.count), seed)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some rows of a batch that are computed together."""

    features: FeatureBatch
    truth: Labels


class _Unrolled(nn.Module):
    """`unroll` as a module's call, so that it can be called with other weights."""

    def __init__(self, drafter: Drafter) -> None:
        super().__init__()
        self.drafter = drafter

    def forward(self, embedding: Tensor, features: Tensor, steps: int, **told: Any) -> list[Tensor]:
        return unroll(self.drafter, embedding, features, steps, **told)


class _Trainer:
    """A drafter with its optimiser."""

    def __init__(
        self, recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter, ranks: Ranks = ALONE
    ) -> None:
        self.recipe, self.training, self.data, self.drafter = recipe, training, data, drafter
        self.ranks, self.steps, self.loss = ranks, 0, float("nan")
        self.device = data.features.target.embedding.weight.device
        weights = LossWeights(
            recipe.feature_weight, recipe.soft_weight, recipe.top_k_weight, recipe.top_k, recipe.step_decay
        )
        self.scoring = Scoring(weights)
        if training.positions:
            rows = data.features.target.head.weight.detach().to(self.dtype)
            rows = rows[drafter.draft_ids] if len(drafter.draft_ids) else rows
            self.scoring = Scoring(weights, rows, training.positions)
        self.parameters = list(drafter.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.training.dtype == "bfloat16" else torch.float32

    def step(self, rows: Sequence[int], rate: float) -> float:
        """One optimiser step; returns the loss."""
        parts = [self._part(few) for few in _divided(self.ranks.mine(rows), self.training.accumulate)]
        totals = self._summed([part.truth.counts(self.recipe.forwards) for part in parts])
        value = torch.zeros((), device=self.device)
        for part in parts:
            value = value + self._backpropagate(part, totals)
        self._add_up_gradients(value)
        if not torch.isfinite(value):
            raise CheckpointError(
                f"step {self.steps + 1} of training has a loss that is not finite ({value.item()})",
                "the target's weights are damaged, or its hidden states too large for this recipe's rates",
            )
        nn.utils.clip_grad_norm_(self.parameters, self.training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self.loss = value.item()
        return self.loss

    @torch.no_grad()
    def _part(self, rows: Sequence[int]) -> _Part:
        features = self.data.features.read(rows, self.drafter.config.aux_hidden_layers)
        batch, head = features.batch, self.data.features.target.head
        learnt = batch.answer
        if self.recipe.counted == "all":
            places = torch.arange(learnt.shape[1], device=learnt.device)
            learnt = places < batch.lengths[:, None].to(learnt.device)
        if not self.training.positions:
            return _Part(features, labels(self.drafter, learnt, features.hidden, head))
        inside = None
        if len(self.drafter.draft_ids):
            asked = torch.zeros_like(learnt)
            asked[:, 1:-1] = learnt[:, 2:]
            inside = torch.isin(self.data.features.best(rows, features, asked), self.drafter.draft_ids)
        return _Part(features, lean_labels(learnt, features.hidden, inside))

    def _summed(self, counts: Sequence[Sequence[int]]) -> list[int]:
        """Positions of each step over all parts of all processes."""
        mine = [sum(part) for part in zip(*counts, strict=True)] or [0] * self.recipe.forwards
        if self.ranks.world == 1:
            return mine
        summed = torch.tensor(mine, dtype=torch.int64, device=self.device)
        self.ranks.add_up(summed)
        return [int(count) for count in summed.tolist()]

    def _backpropagate(self, part: _Part, totals: Sequence[int]) -> Tensor:
        """Add the part's gradient; returns its share of the loss."""
        features = part.features
        with torch.no_grad():
            embedding = self.drafter.embed(features.batch.ids[:, 1:])
        outputs = self._outputs(embedding, features.aux_hidden[:, :-1])
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return backpropagate(self.drafter, outputs, part.truth, self.scoring, totals)

    def _outputs(self, embedding: Tensor, features: Tensor) -> list[Tensor]:
        """`unroll` in the training's dtype, of rounded weights; gradients reach the weights themselves."""
        run, recipe = _Unrolled(self.drafter), self.recipe
        told = {"steps": recipe.forwards, "detach": recipe.detach, "context": recipe.context}
        if self.dtype == torch.float32:
            return run(embedding.float(), features.float(), **told)
        rounded = {name: weight.to(self.dtype) for name, weight in run.named_parameters()}
        rotary = self.drafter.rotary
        before, rotary.dtype = rotary.dtype, self.dtype
        try:
            return functional_call(run, rounded, (embedding.to(self.dtype), features.to(self.dtype)), told)
        finally:
            rotary.dtype = before

    def _add_up_gradients(self, value: Tensor) -> None:
        """Gradients and the loss as sums over all processes."""
        if self.ranks.world == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = torch.cat([value.reshape(1), *(gradient.flatten() for gradient in gradients)])
        self.ranks.add_up(flat)
        value.copy_(flat[0])
        for gradient, summed in zip(gradients, flat[1:].split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU, of weights and the optimiser's numbers."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.drafter.named_parameters():
            found[f"weight.{name}"] = parameter
            found |= {f"{key}.{name}": value for key, value in self.optimizer.state[parameter].items()}
        return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; raises KeyError, RuntimeError."""
        for name, parameter in self.drafter.named_parameters():
            parameter.copy_(tensors[f"weight.{name}"])
            # The step counts of torch's fused optimiser lie where the parameter does.
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }


def _divided(rows: Sequence[int], parts: int) -> list[list[int]]:
    """The rows in so many parts of nearly equal numbers, none of them empty."""
    ends = [len(rows) * part // parts for part in range(parts + 1)]
    return [list(rows[start:end]) for start, end in itertools.pairwise(ends) if end > start]


class _Keeper:
    """Writes a training's state now and then."""

    def __init__(self, course: Course, trainer: _Trainer, total: int) -> None:
        assert course.state is not None
        self._path, self._course, self._trainer = course.state, course, trainer
        ids = content_digest(torch.tensor(example.ids) for example in trainer.data.examples)
        start = content_digest([*trainer.drafter.parameters(), trainer.drafter.draft_ids])
        self._training = digest([plain(trainer.recipe), plain(trainer.training), total, ids, start])
        self._last = time.monotonic()

    def continued(self) -> int:
        """Steps that were taken before; the trainer has what they taught."""
        found = TrainingState.load(self._path, self._training)
        if found is None:
            return 0
        try:
            self._trainer.restore(found.tensors)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{self._path} is no state of this training: {error}") from error
        self._trainer.steps, self._trainer.loss = found.steps, found.loss
        return found.steps

    def keep(self) -> None:
        """If it is time to; raises StoreError."""
        if self._course.ranks.rank or time.monotonic() - self._last < self._course.every:
            return
        trainer = self._trainer
        TrainingState(self._training, trainer.steps, trainer.loss, trainer.state()).save(self._path)
        self._last = time.monotonic()
