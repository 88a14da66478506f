"""Training as it is defined, in one piece: the whole batch, every score, torch's own differentiation of one number.

What the suites of small models were trained by before the trainer learnt about large vocabularies: the trainer must
give its very bytes where a recipe asks for nothing else.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from prism_ae.drafters.model import Drafter
from prism_ae.recipes.file import DrafterRecipe, DrafterTraining
from prism_ae.training.drafter import Data, training_steps
from prism_ae.training.examples import order
from prism_ae.training.target import schedule
from prism_ae.training.unroll import unroll


def train_plainly(recipe: DrafterRecipe, training: DrafterTraining, data: Data, drafter: Drafter) -> list[float]:
    """Train ``drafter``; returns the losses."""
    parameters, total = list(drafter.parameters()), training_steps(recipe, training, data)
    optimizer = torch.optim.AdamW(
        parameters, lr=0.0, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    lengths, stage = [len(example.ids) for example in data.examples], training.stage(recipe)
    kind = "extra" if recipe.start else "scratch"
    passes = (order(lengths, min(training.rows, data.count), f"{training.seed} {kind} {n}") for n in itertools.count())
    losses = []
    for number, rows in enumerate(itertools.islice(itertools.chain.from_iterable(passes), total)):
        loss = _loss(recipe, data, drafter, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * schedule(number, total, training.warmup, stage.decay)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _loss(recipe: DrafterRecipe, data: Data, drafter: Drafter, rows: list[int]) -> torch.Tensor:
    features = data.features.read(rows, drafter.config.aux_hidden_layers)
    answer, hidden = features.batch.answer, features.hidden
    batch, last = answer.shape[0], answer.shape[1] - 1
    with torch.no_grad():
        embedding = drafter.embed(features.batch.ids[:, 1:])
        counted = torch.zeros(batch, last, dtype=torch.bool)
        counted[:, : last - 1] = answer[:, 2:]
        index = counted.flatten().nonzero().squeeze(1)
        goal = hidden[:, 1:].reshape(batch * last, -1)[index]
        logits = data.features.target.head(goal)
        if drafter.own_head is not None:
            inside = torch.isin(logits.argmax(-1), drafter.draft_ids)
            index, goal, logits = index[inside], goal[inside], logits[inside][:, drafter.draft_ids]
        probability = logits.softmax(-1)
    outputs = unroll(
        drafter, embedding, features.aux_hidden[:, :-1], recipe.forwards, detach=recipe.detach, context=recipe.context
    )
    total = outputs[0].new_zeros(())
    for step, output in enumerate(outputs):
        valid = index % last >= step
        if not valid.any():
            continue
        guess, value = output.flatten(0, 1)[index[valid]], outputs[0].new_zeros(())
        if recipe.feature_weight:
            value = value + recipe.feature_weight * F.smooth_l1_loss(guess, goal[valid])
        if recipe.soft_weight:
            log_q = drafter.logits(guess).log_softmax(-1)
            value = value - recipe.soft_weight * (probability[valid] * log_q).sum(-1).mean()
        total = total + recipe.step_decay**step * value
    return total
