"""The drafters' loss: its hidden state against the target's, its distribution against the target's.

Formulas after the authors' code (EAGLE-2's and HASS's before it): per forward
``feature_weight * SmoothL1 + soft_weight * CE + top_k_weight * top-K CE``, the mean over the counted positions. Only
those are computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_ae.drafters.model import Drafter


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of a forward's terms; step j's sum counts ``step_decay`` ** j."""

    feature: float
    soft: float
    top_k: float
    top_k_size: int
    step_decay: float


@dataclasses.dataclass(frozen=True)
class Labels:
    """The target's values at the n counted positions.

    Attributes:
        index: flat position row * T + t of each, ascending [n].
        position: t of each [n]; step j counts where t >= j.
        hidden: the target's final hidden state at t+1 [n, H].
        probability: its distribution of token t+2, over the draft vocabulary [n, V].
    """

    index: Tensor
    position: Tensor
    hidden: Tensor
    probability: Tensor


@torch.no_grad()
def labels(drafter: Drafter, answer: Tensor, hidden: Tensor, head: torch.nn.Module) -> Labels:
    """Labels for positions t whose token t+2 belongs to the answer.

    Args:
        drafter: for its draft vocabulary. Where that is a part of the target's, probabilities are renormalised over
            it, and positions whose most likely token lies outside are left out, as in EAGLE-3.
        answer: whether a token belongs to an answer [B, L].
        hidden: the target's final hidden states [B, L, H].
        head: the target's.
    """
    batch, length = answer.shape
    last = length - 1
    counted = torch.zeros(batch, last, dtype=torch.bool, device=answer.device)
    counted[:, : last - 1] = answer[:, 2:]
    index = counted.flatten().nonzero().squeeze(1)
    goal = hidden[:, 1:].reshape(batch * last, -1)[index]
    logits = head(goal)
    if drafter.config.draft_vocab_size is not None:
        inside = torch.isin(logits.argmax(-1), drafter.draft_ids)
        index, goal, logits = index[inside], goal[inside], logits[inside][:, drafter.draft_ids]
    return Labels(index, index % last, goal, logits.softmax(-1))


def loss(drafter: Drafter, outputs: Sequence[Tensor], truth: Labels, weights: LossWeights) -> Tensor:
    """The weighted sum over steps of the mean loss over counted positions t >= step (0 without any), a scalar.

    Args:
        outputs: of each step [B, T, H] (`unroll`).
    """
    total = outputs[0].new_zeros(())
    for step, output in enumerate(outputs):
        index, goal, probability = truth.index, truth.hidden, truth.probability
        if step and bool((truth.position < step).any()):
            valid = truth.position >= step
            index, goal, probability = index[valid], goal[valid], probability[valid]
        if len(index):
            guess = output.flatten(0, 1)[index]
            total = total + weights.step_decay**step * _step(drafter, guess, goal, probability, weights)
    return total


def _step(drafter: Drafter, guess: Tensor, goal: Tensor, probability: Tensor, weights: LossWeights) -> Tensor:
    total = guess.new_zeros(())
    if weights.feature:
        total = total + weights.feature * F.smooth_l1_loss(guess, goal)
    if weights.soft or weights.top_k:
        log_q = drafter.logits(guess).log_softmax(-1)
        if weights.soft:
            total = total - weights.soft * (probability * log_q).sum(-1).mean()
        if weights.top_k:
            best, token = probability.topk(weights.top_k_size, dim=-1)
            total = total - weights.top_k * (best * log_q.gather(-1, token)).sum(-1).mean()
    return total
