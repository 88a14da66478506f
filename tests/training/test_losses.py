"""Losses and labels against a loop over every position, and against torch's own definitions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.training.losses import Labels, LossWeights, Scoring, backpropagate, labels, lean_labels


def loss(drafter: Drafter, outputs: list[torch.Tensor], truth: Labels, weights: LossWeights) -> torch.Tensor:
    """Of a batch in one part."""
    return backpropagate(drafter, outputs, truth, Scoring(weights), truth.counts(len(outputs)))


SIZES = LlamaConfig(17, 8, 12, 3, 2, 2, 1e-5, 100.0, 32)


def _bound(eagle3: bool) -> tuple[Llama, Drafter]:
    torch.manual_seed(1)
    target = Llama(SIZES)
    config = (
        DrafterConfig(
            "eagle3", dataclasses.replace(SIZES, num_hidden_layers=1), aux_hidden_layers=(0, 1, 2), draft_vocab_size=9
        )
        if eagle3
        else DrafterConfig("eagle", SIZES)
    )
    drafter = Drafter(config, target)
    if eagle3:
        drafter.draft_ids = torch.tensor([0, 2, 3, 5, 7, 8, 11, 13, 16])
    return target, drafter


def _by_hand(
    target: Llama, drafter: Drafter, answer: torch.Tensor, hidden: torch.Tensor, outputs: list[torch.Tensor],
    weights: LossWeights,
) -> float:  # fmt: skip
    """The definition, one position and one vocabulary entry at a time."""
    ids = drafter.draft_ids.tolist() if drafter.own_head is not None else list(range(SIZES.vocab_size))
    total = 0.0
    for step, output in enumerate(outputs):
        features, softs, tops = [], [], []
        for row in range(answer.shape[0]):
            for t in range(step, answer.shape[1] - 2):
                logits = target.head(hidden[row, t + 1])
                if not answer[row, t + 2] or int(logits.argmax()) not in ids:
                    continue
                scores = [math.exp(logits[i].item()) for i in ids]
                p = [score / sum(scores) for score in scores]
                guessed = [math.exp(x) for x in drafter.logits(output[row, t]).tolist()]
                q = [score / sum(guessed) for score in guessed]
                difference = (output[row, t] - hidden[row, t + 1]).tolist()
                features.append(sum(0.5 * d * d if abs(d) < 1 else abs(d) - 0.5 for d in difference) / len(difference))
                terms = [-a * math.log(b) for a, b in zip(p, q, strict=True)]
                softs.append(sum(terms))
                best = sorted(range(len(p)), key=lambda i: -p[i])[: weights.top_k_size]
                tops.append(sum(terms[i] for i in best))
        mean = (weights.feature * sum(features) + weights.soft * sum(softs) + weights.top_k * sum(tops)) / len(features)
        total += weights.step_decay**step * mean
    return total


@pytest.mark.parametrize("eagle3", [False, True])
@pytest.mark.parametrize(
    "weights", [LossWeights(1, 0, 0, 1, 1), LossWeights(0, 1, 0, 1, 0.8), LossWeights(0.3, 0.2, 0.7, 3, 0.5)]
)
def test_the_loss_equals_its_definition(eagle3: bool, weights: LossWeights) -> None:
    target, drafter = _bound(eagle3)
    hidden = 2 * torch.randn(3, 7, SIZES.hidden_size)
    answer = torch.rand(3, 7) < 0.6
    answer[0] = True  # positions t < step are in the mask: they must be left out
    outputs = [torch.randn(3, 6, SIZES.hidden_size) for _ in range(3)]
    truth = labels(drafter, answer, hidden, target.head)
    value = loss(drafter, outputs, truth, weights)
    assert value.item() == pytest.approx(_by_hand(target, drafter, answer, hidden, outputs, weights), rel=1e-4)
    assert eagle3 == (len(truth.index) < int(answer[:, 2:].sum()))


def test_the_definition_notices_labels_of_another_position() -> None:
    target, drafter = _bound(False)
    hidden, answer = torch.randn(2, 6, SIZES.hidden_size), torch.ones(2, 6, dtype=torch.bool)
    outputs = [torch.randn(2, 5, SIZES.hidden_size)]
    weights = LossWeights(1, 1, 0, 1, 1)
    shifted = labels(drafter, answer, hidden.roll(1, dims=1), target.head)
    wrong = loss(drafter, outputs, shifted, weights).item()
    assert wrong != pytest.approx(_by_hand(target, drafter, answer, hidden, outputs, weights), rel=1e-3)


def test_a_drafter_that_is_the_target_has_the_least_loss() -> None:
    target, drafter = _bound(False)
    hidden, answer = torch.randn(2, 6, SIZES.hidden_size), torch.ones(2, 6, dtype=torch.bool)
    truth = labels(drafter, answer, hidden, target.head)
    perfect = hidden[:, 1:]
    entropy = -(truth.probability * truth.probability.log()).sum(-1).mean().item()
    assert loss(drafter, [perfect], truth, LossWeights(1, 1, 0, 1, 1)).item() == pytest.approx(entropy, rel=1e-5)


def test_a_batch_without_an_answer_costs_nothing() -> None:
    target, drafter = _bound(False)
    truth = labels(drafter, torch.zeros(1, 5, dtype=torch.bool), torch.randn(1, 5, SIZES.hidden_size), target.head)
    assert isinstance(truth, Labels)
    assert loss(drafter, [torch.randn(1, 4, 8)], truth, LossWeights(1, 1, 0, 1, 1)).item() == 0


@pytest.mark.parametrize("eagle3", [False, True])
@pytest.mark.parametrize("span", [1, 4, 100])
@pytest.mark.parametrize("weights", [LossWeights(1, 0.1, 0, 1, 1), LossWeights(0.3, 0.2, 0.7, 3, 0.5)])
def test_spans_and_parts_give_the_gradient_of_the_whole(eagle3: bool, span: int, weights: LossWeights) -> None:
    """Labels without distributions, some positions at a time, in two parts of different sizes."""
    target, drafter = _bound(eagle3)
    hidden, answer = 2 * torch.randn(5, 7, SIZES.hidden_size), torch.rand(5, 7) < 0.6
    answer[0] = True
    outputs = [torch.randn(5, 6, SIZES.hidden_size) for _ in range(3)]

    def gradients(parts: list[slice], lean: bool) -> tuple[float, list[torch.Tensor]]:
        drafter.zero_grad()
        leaves = [output.clone().requires_grad_() for output in outputs]
        inside = torch.isin(target.head(hidden).argmax(-1), drafter.draft_ids) if eagle3 else None
        rows = target.head.weight.detach()[drafter.draft_ids] if eagle3 else target.head.weight.detach()
        found = [
            lean_labels(answer[part], hidden[part], None if inside is None else inside[part])
            if lean
            else labels(drafter, answer[part], hidden[part], target.head)
            for part in parts
        ]
        totals = [sum(counts) for counts in zip(*(one.counts(3) for one in found), strict=True)]
        scoring = Scoring(weights, rows, span) if lean else Scoring(weights)
        value = sum(
            backpropagate(drafter, [leaf[part] for leaf in leaves], truth, scoring, totals).item()
            for part, truth in zip(parts, found, strict=True)
        )
        own = [parameter.grad.clone() for parameter in drafter.parameters() if parameter.grad is not None]
        return value, [*(leaf.grad for leaf in leaves if leaf.grad is not None), *own]

    whole, expected = gradients([slice(0, 5)], lean=False)
    value, found = gradients([slice(0, 2), slice(2, 5)], lean=True)
    assert value == pytest.approx(whole, rel=1e-6)
    assert len(found) == len(expected) == 3 + 2 * eagle3
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_parts_that_each_take_their_own_mean_are_noticed() -> None:
    """The comparison above sees the usual mistake: a mean over parts in place of one over positions."""
    target, drafter = _bound(False)
    hidden, answer = torch.randn(3, 7, SIZES.hidden_size), torch.ones(3, 7, dtype=torch.bool)
    answer[0, 3:] = False
    outputs, weights = [torch.randn(3, 6, SIZES.hidden_size)], LossWeights(1, 1, 0, 1, 1)
    whole = loss(drafter, outputs, labels(drafter, answer, hidden, target.head), weights).item()
    parts = [slice(0, 1), slice(1, 3)]
    means = [
        loss(drafter, [outputs[0][part]], labels(drafter, answer[part], hidden[part], target.head), weights).item()
        for part in parts
    ]
    assert sum(means) / 2 != pytest.approx(whole, rel=1e-3)
