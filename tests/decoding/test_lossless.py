"""T = 1: the first tokens are distributed as the target's samples, over a small vocabulary, in a test that has power.

The expected joint distribution of the first three tokens is computed exactly, by the target's forward pass over all
prefixes. The same statistics, applied to verifiers that are wrong by 3 % or forget to renormalise, must fail: that
is what shows that passing means something.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from decoding_models import make_drafter, make_target
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, generate
from prism_ae.decoding.tree import DraftTree
from prism_ae.decoding.verify import Walk
from prism_ae.models.llama import Llama, causal

VOCAB, PROMPT, COUNT, SHAPE = 7, [1, 4, 2], 30_000, TreeShape(2, 3, 6)


def _models() -> tuple[Llama, Batch]:
    target = make_target(6, vocab=VOCAB, certainty=2.0)
    return target, Batch(target, make_drafter("prism", target), SHAPE, rows=3000, max_seq_len=20, uniforms_per_row=6)


def _expected(target: Llama) -> Tensor:
    """Exact probability of each first three tokens [V, V, V]."""
    firsts = [torch.tensor(PROMPT)[None]]
    probabilities = torch.ones(1, dtype=torch.float64)
    for _ in range(3):
        ids = firsts[-1]
        hidden, _ = target(ids, torch.arange(ids.shape[1])[None], causal)
        following = target.head(hidden[:, -1]).double().softmax(-1)
        probabilities = (probabilities[:, None] * following).flatten()
        tokens = torch.arange(VOCAB).repeat(len(ids))[:, None]
        firsts.append(torch.cat([ids.repeat_interleave(VOCAB, 0), tokens], dim=1))
    return probabilities.view(VOCAB, VOCAB, VOCAB)


def _counts(batch: Batch) -> Tensor:
    """How often each first three tokens were written, over independent questions [V, V, V]."""
    jobs = [GenerationJob(f"q{number}", 1, lambda _: PROMPT, 1.0, 3, 3, 20) for number in range(COUNT)]
    counts = torch.zeros(VOCAB, VOCAB, VOCAB, dtype=torch.float64)
    answers = torch.tensor([answered.answers[0] for answered in generate(batch, jobs, (), lambda: False)])
    return counts.index_put_(tuple(answers.T), torch.ones(COUNT, dtype=torch.float64), accumulate=True)


def _deviation(counts: Tensor, expected: Tensor) -> float:
    """The largest chi-square statistic, in standard deviations, of tokens, of neighbours and of all three."""
    worst = float("-inf")
    for gone in ((1, 2), (0, 2), (0, 1), (2,), (0,), ()):
        seen, mean = (counts.sum(gone), expected.sum(gone) * COUNT) if gone else (counts, expected * COUNT)
        keep = mean > 5  # where the normal approximation holds
        statistic = ((seen - mean)[keep] ** 2 / mean[keep]).sum()
        freedom = int(keep.sum())
        worst = max(worst, float((statistic - freedom) / (2 * freedom) ** 0.5))
    return worst


def _sequential(factor: float, renormalise: bool) -> Callable[[DraftTree, int, Callable[[Tensor, int], Tensor]], Walk]:
    """EAGLE-2's rule written out: try the children in turn, with its own random numbers.

    ``factor`` multiplies each acceptance probability, and without ``renormalise`` a refused child stays in the
    distribution: both must be noticed.
    """
    generator = torch.Generator().manual_seed(1)

    def walk(tree: DraftTree, depth: int, distribution: Callable[[Tensor, int], Tensor]) -> Walk:
        rows, nodes = tree.tokens.shape
        every = torch.arange(rows)
        node, accepted = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
        going = torch.ones(rows, dtype=torch.bool)
        visited, committed = [node], []
        for level in range(depth + 1):
            p = distribution(node, level)
            chosen = torch.full((rows,), -1)
            for child in range(1, nodes):
                token = tree.tokens[:, child]
                tried = going & (chosen < 0) & (tree.parents[:, child] == node)
                taken = tried & (torch.rand(rows, generator=generator, dtype=p.dtype) < factor * p[every, token])
                chosen[taken] = child
                if renormalise:
                    refused = (tried & ~taken).nonzero().squeeze(1)
                    p[refused, token[refused]] = 0
                    p[refused] /= p[refused].sum(-1, keepdim=True)
            bonus = torch.multinomial(p, 1, generator=generator).squeeze(1)
            descends = going & (chosen >= 0)
            committed.append(torch.where(descends, tree.tokens[every, chosen.clamp(min=0)], bonus))
            node = torch.where(descends, chosen, node)
            going, accepted = descends, accepted + descends
            visited.append(node)
        return Walk(torch.stack(visited[: depth + 1], 1), torch.stack(committed, 1), accepted)

    return walk


def _use_sequential(monkeypatch: pytest.MonkeyPatch, batch: Batch, factor: float, renormalise: bool) -> None:
    def sampler(tree: DraftTree, hidden: Tensor, answered: Tensor) -> Callable[[Tensor, int], Tensor]:
        every = torch.arange(len(answered))
        return lambda node, level: batch.target.head(hidden[every, node]).double().softmax(-1)

    monkeypatch.setattr(batch, "_sampler", sampler)
    monkeypatch.setattr(batch_module, "walk", _sequential(factor, renormalise))


def test_the_first_tokens_are_distributed_as_the_targets() -> None:
    target, batch = _models()
    assert _deviation(_counts(batch), _expected(target)) < 4


def test_eagle2s_sequential_rule_gives_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    target, batch = _models()
    _use_sequential(monkeypatch, batch, 1.0, True)
    assert _deviation(_counts(batch), _expected(target)) < 4


@pytest.mark.parametrize(("factor", "renormalise"), [(1.03, True), (1.0, False)])
def test_a_verifier_that_is_wrong_by_3_percent_fails(
    factor: float, renormalise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, batch = _models()
    _use_sequential(monkeypatch, batch, factor, renormalise)
    assert _deviation(_counts(batch), _expected(target)) > 6
