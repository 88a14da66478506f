"""Sampling down the tree has exactly the target's distribution; the filters are what they say."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_trees import links
from torch import Tensor

from prism_ae.sglang_prism.stand_ins import tree_sampling
from prism_ae.sglang_prism.stand_ins.tree_sampling import (
    top_k_renorm_prob,
    top_p_renorm_prob,
    tree_speculative_sampling_target_only,
)

PARTS = 6
"""Probabilities are multiples of 1/6: uniform numbers at the middles of 6 equal parts then stand for all numbers."""
FINAL = 60
"""For the last token: what is left after refusals is 1 to 6 of the sixths, and 60 is a multiple of all of these."""

SHARES = [[1, 2, 2, 1], [3, 0, 1, 2], [6, 0, 0, 0], [1, 1, 0, 4]]

TREES = {
    # parents, tokens, depth; siblings have different tokens, others need not
    "chain": ([-1, 0, 1], [0, 2, 1], 2),
    "branches": ([-1, 0, 0, 1, 0, 2], [3, 1, 2, 1, 0, 3], 2),
    "deep": ([-1, 0, 0, 1, 1, 3], [0, 0, 3, 2, 0, 1], 3),
    "cut short": ([-1, 0, 0, 1, 1, 3], [0, 0, 3, 2, 0, 1], 1),
    "alone": ([-1], [0], 2),
}


def _sample(
    parents: list[int], tokens: list[int], depth: int, probs: Tensor, coins: Tensor, last: Tensor, **options: float
) -> list[tuple[int, ...]]:
    """What each of B walks committed, from numbers for the nodes [B, n] and for the last token [B]."""
    rows, n = coins.shape
    index = torch.arange(rows * n).view(rows, n)
    token, sibling = (torch.tensor(values).expand(rows, n) for values in links(parents))
    predicts = torch.full((rows * n,), -1, dtype=torch.int32)
    accept, accepted = torch.full((rows, depth + 1), -1, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
    target = probs.expand(rows, n, -1)
    tree_speculative_sampling_target_only(
        *(predicts, accept, accepted, torch.tensor(tokens).expand(rows, n), index, token, sibling, coins, last, target),
        torch.zeros(0),
        **options,  # type: ignore[arg-type]
    )
    texts = []
    for row, (path, drafts) in enumerate(zip(accept.tolist(), accepted.tolist(), strict=True)):
        nodes = [place - row * n for place in path[: drafts + 1]]
        assert nodes[0] == 0
        assert all(parents[child] == node for node, child in itertools.pairwise(nodes))
        assert path[drafts + 1 :] == [-1] * (depth - drafts)
        text = predicts[path[: drafts + 1]].tolist()
        assert text[:-1] == [tokens[node] for node in nodes[1:]]
        texts.append(tuple(text))
    return texts


def _all_numbers(parents: list[int]) -> tuple[Tensor, Tensor]:
    """Every combination of a sixth for each node with children and a sixtieth for the last token."""
    inner = sorted(set(parents) - {-1})
    grids = [torch.arange(PARTS)] * len(inner) + [torch.arange(FINAL)]
    combinations = torch.cartesian_prod(*grids).view(-1, len(inner) + 1).double()
    coins = torch.full((len(combinations), len(parents)), 0.999, dtype=torch.float64)
    coins[:, inner] = (combinations[:, :-1] + 0.5) / PARTS
    return coins.float(), ((combinations[:, -1] + 0.5) / FINAL).float()


def _closed_form(
    parents: list[int], tokens: list[int], depth: int, sixths: list[list[int]]
) -> dict[tuple[int, ...], Fraction]:
    """Each text's probability: the product of the target's own, as long as the text follows the tree."""
    found: dict[tuple[int, ...], Fraction] = {}

    def walk(node: int, text: tuple[int, ...], reached: Fraction) -> None:
        child = {tokens[n]: n for n in range(len(parents)) if parents[n] == node and len(text) < depth}
        for token, weight in enumerate(sixths[node]):
            if not weight:
                continue
            if token in child:
                walk(child[token], (*text, token), reached * Fraction(weight, PARTS))
            else:
                found[*text, token] = reached * Fraction(weight, PARTS)

    walk(0, (), Fraction(1))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", TREES)
def test_each_text_has_the_targets_probability(name: str, seed: int) -> None:
    parents, tokens, depth = TREES[name]
    dice = random.Random(seed)
    sixths = [dice.sample(dice.choice(SHARES), 4) for _ in parents]
    coins, last = _all_numbers(parents)
    texts = _sample(parents, tokens, depth, torch.tensor(sixths).float() / PARTS, coins, last)
    got = {text: Fraction(count, len(texts)) for text, count in Counter(texts).items()}
    assert got == _closed_form(parents, tokens, depth, sixths)


def test_a_number_of_zero_never_accepts_what_cannot_be() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    assert _sample([-1, 0], [0, 0], 1, probs, torch.zeros(1, 2), torch.zeros(1)) == [(1,)]


def test_numbers_just_below_one() -> None:
    """Children that have all the probability are refused where rounding leaves their sum below 1."""
    almost = torch.tensor([1 - 2**-24])
    probs = torch.tensor([[0.25, 0.75 - 2**-24, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    assert _sample([-1, 0, 0], [0, 0, 1], 1, probs, almost.expand(1, 3), almost) == [(1,)]
    assert _sample([-1], [0], 1, torch.tensor([[0.3, 0.7, 0.0]]), almost.view(1, 1), almost) == [(1,)]


P = torch.tensor([[0.3, 0.2, 0.05, 0.1, 0.15, 0.2], [0.1, 0.4, 0.2, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
WALKS = 100_000


def _chi_square(sample: Callable[[Tensor, Tensor], list[tuple[int, ...]]]) -> float:
    """p-value of the first token of `WALKS` walks under the target's distribution at the root."""
    torch.manual_seed(11)
    texts = sample(torch.rand(WALKS, 3), torch.rand(WALKS))
    counts = torch.bincount(torch.tensor([text[0] for text in texts]), minlength=6).double()
    expected = P[0].double() * WALKS
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor(5 / 2, dtype=torch.float64), statistic / 2))


def _noncentrality(wrong: Tensor) -> float:
    """Of the statistic where the first token has another distribution; with 5 degrees of freedom and a threshold of
    10^-4 (25.7), 80 is found with a probability above 0.9999."""
    return float(WALKS * ((wrong.double() - P[0].double()) ** 2 / P[0].double()).sum())


def test_chi_square_of_random_numbers() -> None:
    assert _chi_square(lambda coins, last: _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last)) > 1e-4


def test_chi_square_finds_an_acceptance_off_by_three_percent() -> None:
    children = torch.tensor([True, True, False, False, False, False])
    accepted = P[0].where(children, 0) * 1.03
    refused = P[0].where(~children, 0)
    assert _noncentrality(accepted + refused / refused.sum() * (1 - accepted.sum())) > 80
    wrong = {"threshold_acc": 1 / 1.03}
    assert _chi_square(lambda coins, last: _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last, **wrong)) < 1e-4


def test_chi_square_finds_a_missing_renormalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = tree_sampling._draw
    monkeypatch.setattr(
        tree_sampling,
        "_draw",
        lambda probs, tokens, refused, last: draw(probs, tokens, torch.zeros_like(refused), last),
    )
    children = torch.tensor([True, True, False, False, False, False])
    assert _noncentrality(P[0].where(children, 0) + (1 - P[0][children].sum()) * P[0]) > 80
    assert _chi_square(lambda coins, last: _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last)) < 1e-4


def test_a_child_above_the_single_threshold_is_accepted_at_once() -> None:
    coins, last = torch.full((1, 3), 0.99), torch.zeros(1)
    assert _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last, threshold_single=0.3) == [(0, 0)]
    assert _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last, threshold_single=0.31) == [(2,)]
    assert _sample([-1, 0, 0], [0, 0, 1], 1, P, coins, last, threshold_single=0.0) == [(0, 0)]


WEIGHTS = st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(lambda weights: sum(weights) > 0)


def _normalised(weights: list[int], stays: Callable[[int], bool]) -> list[float]:
    """The weights that stay, by closed form in whole numbers; ties stay or go together."""
    left = [weight if stays(weight) else 0 for weight in weights]
    return [float(Fraction(weight, sum(left))) for weight in left]


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 9))
def test_top_k(weights: list[int], k: int) -> None:
    probs = torch.tensor([weights], dtype=torch.float64) / sum(weights)
    expected = _normalised(weights, lambda weight: sum(other > weight for other in weights) < k)
    for value in (k, torch.tensor([k], dtype=torch.int32)):
        torch.testing.assert_close(top_k_renorm_prob(probs, value)[0], torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 20))
def test_top_p(weights: list[int], twentieths: int) -> None:
    total = sum(weights)
    # A little less than p, for p itself may be a sum that is rounded; at 20 it is 1 and all stay.
    less = Fraction(twentieths, 20) - (Fraction(1, 1000) if twentieths < 20 else 0)
    probs = torch.tensor([weights], dtype=torch.float64) / total
    expected = _normalised(weights, lambda weight: Fraction(sum(o for o in weights if o > weight), total) < less)
    for value in (float(less), torch.tensor([float(less)], dtype=torch.float64)):
        torch.testing.assert_close(top_p_renorm_prob(probs, value)[0], torch.tensor(expected, dtype=torch.float64))


def test_a_filter_per_row() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2]] * 3)
    got = top_k_renorm_prob(probs, torch.tensor([1, 3, 1 << 30]))
    torch.testing.assert_close(got, torch.tensor([[1, 0, 0], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    got = top_p_renorm_prob(probs, torch.tensor([0.4, 0.6, 1.0]))
    torch.testing.assert_close(got, torch.tensor([[1, 0, 0], [0.625, 0.375, 0], [0.5, 0.3, 0.2]]))


def test_p_of_one_keeps_what_rounding_would_drop() -> None:
    """In float32 these sum to 1 before the last."""
    probs = torch.tensor([[0.6, 0.4, 1e-9]])
    assert (top_p_renorm_prob(probs, 1.0) > 0).all()
