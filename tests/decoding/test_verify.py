"""Verification and sampling: closed form, EAGLE-2's sequential rule, and a walk written out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_ae.decoding.sampling import question_uniforms, sample_tokens
from prism_ae.decoding.tree import DraftTree
from prism_ae.decoding.verify import walk

WEIGHTS = st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(lambda weights: sum(weights) > 0)


def _sequential(p: list[Fraction], children: list[int]) -> dict[tuple[int, bool], Fraction]:
    """EAGLE-2's rule, exactly: probability of each (token committed, was it an accepted child)."""
    outcome: dict[tuple[int, bool], Fraction] = {}
    reached, left = Fraction(1), list(p)
    for child in children:
        outcome[child, True] = reached * left[child]
        reached *= 1 - left[child]
        left[child] = Fraction(0)
        total = sum(left)
        if total == 0:
            return outcome
        left = [value / total for value in left]
    for token, value in enumerate(left):
        if token not in children:
            outcome[token, False] = reached * value
    return outcome


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.data())
def test_eagle2s_sequential_rule_commits_each_token_with_its_own_probability(
    weights: list[int], data: st.DataObject
) -> None:
    p = [Fraction(weight, sum(weights)) for weight in weights]
    children = data.draw(st.lists(st.sampled_from(range(len(p))), unique=True))
    outcome = _sequential(p, children)
    for token, probability in enumerate(p):
        assert outcome.get((token, token in children), Fraction(0)) == probability
    assert sum(outcome.values()) == 1


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(0, 999))
def test_sample_tokens_inverts_the_cumulative_distribution(weights: list[int], thousandth: int) -> None:
    number = (thousandth + 0.5) / 1000
    logits = torch.tensor(weights, dtype=torch.float64).log().unsqueeze(0)
    got = int(sample_tokens(logits, torch.tensor([number], dtype=torch.float64), torch.ones(1, dtype=torch.float64)))
    cumulative = np.cumsum([Fraction(weight, sum(weights)) for weight in weights])
    expected = next(token for token, total in enumerate(cumulative) if total > Fraction(number))
    assert got == expected


def test_sample_tokens_mixes_temperatures_in_one_batch() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(3, 3)
    numbers = torch.full((3,), 0.999999, dtype=torch.float64)
    # p at T = 1: .04, .84, .12; at T = 100 nearly equal. The last row's number lies below the first token's share.
    numbers[2] = 0.2
    got = sample_tokens(logits, numbers, torch.tensor([0.0, 1.0, 100.0], dtype=torch.float64))
    assert got.tolist() == [1, 2, 0]


@pytest.mark.parametrize("shape", [(7,), (5, 3), (0,)])
def test_rows_are_sampled_alike_in_parts_and_at_once(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision with many equal logits; greedy rows take the first of the largest."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(-3, 4, (*shape, 29), generator=generator).to(torch.bfloat16)
    numbers = torch.rand(shape, dtype=torch.float64, generator=generator)
    temperature = torch.randint(0, 3, shape, generator=generator).double()
    expected = []
    for row, number, warmth in zip(logits.view(-1, 29), numbers.flatten(), temperature.flatten(), strict=True):
        p = (row.double() / (warmth or 1.0)).softmax(-1)
        total = p.cumsum(-1) if warmth else (row == row.max()).double().cumsum(-1)
        expected.append(int((total > (number * total[-1] if warmth else 0)).nonzero()[0]))
    for at_once in (1, 60, 1 << 18):
        monkeypatch.setattr("prism_ae.decoding.sampling._FP64_NUMBERS", at_once)
        assert sample_tokens(logits, numbers, temperature).flatten().tolist() == expected


def test_numbers_at_the_ends_choose_tokens_that_can_occur() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]] * 2)
    numbers = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert sample_tokens(logits, numbers, torch.ones(2, dtype=torch.float64)).tolist() == [1, 2]


def test_uniforms_belong_to_seed_question_turn_and_position() -> None:
    numbers = question_uniforms(42, "q", 0, 4000)
    assert np.array_equal(numbers[:10], question_uniforms(42, "q", 0, 10))
    for other in (
        question_uniforms(43, "q", 0, 10),
        question_uniforms(42, "r", 0, 10),
        question_uniforms(42, "q", 1, 10),
    ):
        assert not np.isin(other, numbers).any()
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts = np.bincount((numbers * 10).astype(int), minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 28  # 9 degrees of freedom: passes with probability 0.999
    # The same on every machine: the first number by hand from the definition of Philox 4x64-10.
    assert numbers[0] == pytest.approx(_philox_first(b"42\0q\0" + b"0"), abs=0)


def _philox_first(name: bytes) -> float:
    """First output of Philox 4x64-10 with counter 1 (numpy steps before it draws), from its definition."""
    import hashlib

    key = hashlib.sha256(name).digest()
    k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")]
    c, mask = [1, 0, 0, 0], 2**64 - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(second >> 64) ^ c[1] ^ k[0], second & mask, (first >> 64) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return (c[0] >> 11) * 2.0**-53


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Tokens, parents and depths; siblings have different tokens."""
    tokens, parents, depths = [9], [-1], [0]
    for _ in range(draw(st.integers(0, 9))):
        parent = draw(st.integers(0, len(tokens) - 1))
        taken = {token for token, above in zip(tokens, parents, strict=True) if above == parent}
        free = [token for token in range(4) if token not in taken]
        if free:
            tokens.append(draw(st.sampled_from(free)))
            parents.append(parent)
            depths.append(depths[parent] + 1)
    return tokens, parents, depths


@settings(max_examples=200, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3), st.data())
def test_walk_follows_the_targets_tokens(
    rows: list[tuple[list[int], list[int], list[int]]], data: st.DataObject
) -> None:
    size = max(len(tokens) for tokens, _, _ in rows)
    depth = max(max(depths) for _, _, depths in rows) + data.draw(st.integers(0, 1))
    # Rows of one batch have equally many nodes: pad with copies of a node that no walk can reach.
    padded = [
        [values + [fill] * (size - len(values)) for values, fill in zip(row, (99, 0, 1), strict=True)] for row in rows
    ]
    tree = DraftTree(*(torch.tensor([row[part] for row in padded]) for part in range(3)))
    at_node = torch.tensor([[data.draw(st.integers(0, 3)) for _ in range(size)] for _ in rows])
    levels: list[int] = []

    def sample(node: torch.Tensor, level: int) -> torch.Tensor:
        levels.append(level)
        return at_node.gather(1, node.unsqueeze(1)).squeeze(1)

    done = walk(tree, depth, sample)
    assert levels == list(range(len(levels)))
    for row, (tokens, parents, _) in enumerate(rows):
        node, visited, committed = 0, [0], []
        while True:
            token = int(at_node[row, node])
            committed.append(token)
            children = [n for n in range(1, len(tokens)) if parents[n] == node and tokens[n] == token]
            if not children:
                break
            node = children[0]
            visited.append(node)
        accepted = int(done.accepted[row])
        assert accepted == len(visited) - 1
        assert done.nodes[row, : accepted + 1].tolist() == visited
        assert done.tokens[row, : accepted + 1].tolist() == committed
        assert done.nodes.shape == done.tokens.shape == (len(rows), depth + 1)
