"""The drafters' loss: its hidden state against the target's, its distribution against the target's.

Formulas after the authors' code (EAGLE-2's and HASS's before it): per forward
``feature_weight * SmoothL1 + soft_weight * CE + top_k_weight * top-K CE``, the mean over the counted positions. Only
those are computed.

With a vocabulary of a real target the scores of a batch are most of its memory and of its time. So a batch may come in
parts, a part's positions in spans, and the labels from the rows of the head that a draft vocabulary needs:
`backpropagate` adds the gradient of each span, weighted by its share of all counted positions, and keeps no scores of
the span before. What comes out is the gradient of the mean over all of them.

A draft vocabulary that is a part of the target's: the target's distribution is renormalised over it, and a position
whose most likely token lies outside is left out, as EAGLE-3 does: there is nothing right that the drafter could say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

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
        probability: its distribution of token t+2, over the draft vocabulary [n, V]; None where it is computed span by
            span.
    """

    index: Tensor
    position: Tensor
    hidden: Tensor
    probability: Tensor | None

    def counts(self, steps: int) -> list[int]:
        """Positions that each of so many steps counts."""
        return [int((self.position >= step).sum()) for step in range(steps)]


@torch.no_grad()
def labels(drafter: Drafter, answer: Tensor, hidden: Tensor, head: torch.nn.Module) -> Labels:
    """Labels for positions t whose token t+2 is learnt from, with the target's distributions.

    Args:
        drafter: for its draft vocabulary.
        answer: whether a token is learnt from [B, L].
        hidden: the target's final hidden states [B, L, H].
        head: the target's.
    """
    index, goal = _counted(answer, hidden)
    logits = head(goal)
    if len(drafter.draft_ids):
        inside = torch.isin(logits.argmax(-1), drafter.draft_ids)
        index, goal, logits = index[inside], goal[inside], logits[inside][:, drafter.draft_ids]
    return Labels(index, index % (answer.shape[1] - 1), goal, logits.float().softmax(-1))


def lean_labels(answer: Tensor, hidden: Tensor, inside: Tensor | None) -> Labels:
    """`labels` without distributions.

    Args:
        inside: whether the target's most likely token after a position is one of the draft vocabulary [B, L]; None
            where that is the target's.
    """
    if inside is not None:
        answer = torch.cat([answer[:, :1], answer[:, 1:] & inside[:, :-1]], dim=1)
    index, goal = _counted(answer, hidden)
    return Labels(index, index % (answer.shape[1] - 1), goal, None)


def _counted(answer: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Flat positions t whose token t+2 counts, ascending [n], and the hidden state at t+1 of each [n, H]."""
    batch, length = answer.shape
    last = length - 1
    counted = torch.zeros(batch, last, dtype=torch.bool, device=answer.device)
    counted[:, : last - 1] = answer[:, 2:]
    index = counted.flatten().nonzero().squeeze(1)
    return index, hidden[:, 1:].reshape(batch * last, -1)[index]


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How guesses are scored.

    Attributes:
        weights: of the loss's terms.
        rows: the target's head over the draft vocabulary [V, H], for labels without distributions.
        span: most positions whose scores are held at once; 0: all.
    """

    weights: LossWeights
    rows: Tensor | None = None
    span: int = 0


def backpropagate(
    drafter: Drafter, outputs: Sequence[Tensor], truth: Labels, scoring: Scoring, totals: Sequence[int]
) -> Tensor:
    """Add the gradient of this part's share of the loss to the parameters' gradients.

    The loss is the weighted sum over steps of the mean over counted positions t >= step (0 without any).

    Args:
        outputs: of each step [B, T, H] (`unroll`).
        truth: of this part.
        totals: counted positions of each step, over all parts of the batch.

    Returns:
        This part's share of the loss, a scalar: the parts' sum is the loss.
    """
    weights = scoring.weights
    guesses: list[Tensor] = []
    gradients: list[Tensor] = []
    shares = [outputs[0].new_zeros((), dtype=torch.float32)]
    # The last step first: torch's own order, in which parameters that all steps use sum their gradients.
    for step, output in reversed(list(enumerate(outputs))):
        counted = _from_step(truth, step)
        if not len(counted.index):
            continue
        guess = output.flatten(0, 1)[counted.index]
        found: list[Tensor] = []
        for span in _spans(counted, scoring.span):
            leaf = guess.detach()[span].float().requires_grad_()
            part = _part(counted, span)
            weight = weights.step_decay**step * (len(part.index) / totals[step])
            term = _step(drafter, leaf, part, scoring) * weight
            if term.requires_grad:
                term.backward()
            shares.append(term.detach())
            found.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
        if guess.requires_grad:
            guesses.append(guess)
            gradients.append((found[0] if len(found) == 1 else torch.cat(found)).to(guess.dtype))
    if guesses:
        torch.autograd.backward(guesses, gradients)
    total = shares[0]
    for share in reversed(shares[1:]):
        total = total + share
    return total


def _from_step(truth: Labels, step: int) -> Labels:
    """What ``step`` counts of it."""
    if not step or not bool((truth.position < step).any()):
        return truth
    return _part(truth, truth.position >= step)


def _part(truth: Labels, which: Tensor | slice) -> Labels:
    probability = None if truth.probability is None else truth.probability[which]
    return Labels(truth.index[which], truth.position[which], truth.hidden[which], probability)


def _spans(truth: Labels, size: int) -> Iterator[slice]:
    count = len(truth.index)
    for start in range(0, count, size or count):
        yield slice(start, start + (size or count))


def _step(drafter: Drafter, guess: Tensor, truth: Labels, scoring: Scoring) -> Tensor:
    """A step's mean over these positions, not yet weighted by the step."""
    weights = scoring.weights
    total = guess.new_zeros((), dtype=torch.float32)
    if weights.feature:
        total = total + weights.feature * F.smooth_l1_loss(guess, truth.hidden.float())
    if weights.soft or weights.top_k:
        probability = truth.probability
        if probability is None:
            assert scoring.rows is not None
            with torch.no_grad():
                probability = F.linear(truth.hidden.to(scoring.rows.dtype), scoring.rows).float().softmax(-1)
        log_q = drafter.logits(guess).float().log_softmax(-1)
        if weights.soft:
            total = total - weights.soft * (probability * log_q).sum(-1).mean()
        if weights.top_k:
            best, token = probability.topk(weights.top_k_size, dim=-1)
            total = total - weights.top_k * (best * log_q.gather(-1, token)).sum(-1).mean()
    return total
