"""Verification draws from the distribution of SGLang's sampler: closed forms, and inside SGLang."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_process import needs_sglang, run
from torch import Tensor

from prism_ae.sglang_prism.sampling import verification_probs
from prism_ae.sglang_prism.stand_ins import tree_sampling


def _filters(top_k: list[int], top_p: list[float], min_p: list[float]) -> Any:
    return SimpleNamespace(
        top_ks=torch.tensor(top_k, dtype=torch.int32),
        top_ps=torch.tensor(top_p, dtype=torch.float64),
        min_ps=torch.tensor(min_p, dtype=torch.float64),
        need_top_k_sampling=any(k < 1 << 30 for k in top_k),
        need_top_p_sampling=any(p < 1 for p in top_p),
        need_min_p_sampling=any(p > 0 for p in min_p),
    )


def _left(weights: list[Fraction], k: int, p: Fraction, least: Fraction) -> list[Fraction]:
    """All filters on the same distribution of different weights, normalised."""
    total, largest = sum(weights), max(weights)
    left = []
    for weight in weights:
        likelier = [other for other in weights if other > weight]
        stays = len(likelier) < k and Fraction(sum(likelier), total) < p and weight >= largest * least
        left.append(weight if stays else Fraction(0))
    return [weight / sum(left) for weight in left]


def _rows(values: list[list[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in values], dtype=torch.float64)


WEIGHTS = st.lists(st.integers(1, 99), min_size=2, max_size=7, unique=True)
# A denominator no sum of weights divides: no filter's border falls on a token, where rounding would decide.
SHARE = st.integers(1, 100).map(lambda number: Fraction(number, 100) + Fraction(1, 10_007))


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 8), SHARE, st.integers(0, 60).map(lambda number: Fraction(number, 89)))
def test_pytorch_filters_the_targets_own_distribution(weights: list[int], k: int, p: Fraction, least: Fraction) -> None:
    whole = [Fraction(weight) for weight in weights]
    probs = _rows([[weight / sum(whole) for weight in whole]])
    got = verification_probs(probs.unsqueeze(0), _filters([k], [float(p)], [float(least)]), "pytorch")
    torch.testing.assert_close(got[0], _rows([_left(whole, k, p, least)]))


@pytest.fixture
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sgl_kernel", tree_sampling)


@pytest.mark.usefixtures("_kernels")
def test_flashinfer_filters_jointly_without_min_p() -> None:
    @settings(max_examples=200, deadline=None)
    @given(WEIGHTS, st.integers(1, 8), SHARE)
    def check(weights: list[int], k: int, p: Fraction) -> None:
        whole = [Fraction(weight) for weight in weights]
        probs = _rows([[weight / sum(whole) for weight in whole]])
        got = verification_probs(probs.unsqueeze(0), _filters([k], [float(p)], [0.0]), "flashinfer")
        torch.testing.assert_close(got[0], _rows([_left(whole, k, p, Fraction(0))]))

    check()


@pytest.mark.usefixtures("_kernels")
def test_flashinfer_filters_in_turn_with_min_p() -> None:
    @settings(max_examples=200, deadline=None)
    @given(WEIGHTS, st.integers(1, 8), SHARE, st.integers(1, 60).map(lambda number: Fraction(number, 89)))
    def check(weights: list[int], k: int, p: Fraction, least: Fraction) -> None:
        whole = [Fraction(weight) for weight in weights]
        probs = _rows([[weight / sum(whole) for weight in whole]])
        got = verification_probs(probs.unsqueeze(0), _filters([k], [float(p)], [float(least)]), "flashinfer")
        everything = Fraction(2)
        expected = _left(_left(whole, k, everything, Fraction(0)), 99, p, Fraction(0))
        torch.testing.assert_close(got[0], _rows([_left(expected, 99, everything, least)]))

    check()


@pytest.mark.usefixtures("_kernels")
def test_filtering_in_turn_and_at_once_are_different_distributions() -> None:
    """The question of one prompt: top-k leaves 0.8; 0.4 of the whole are 0.5 of that."""
    probs = torch.tensor([[[0.4, 0.3, 0.1, 0.1, 0.1]]], dtype=torch.float64)
    in_turn = tree_sampling.top_p_renorm_prob(tree_sampling.top_k_renorm_prob(probs[0], 2), 0.5)
    at_once = _rows([[Fraction(4, 7), Fraction(3, 7), Fraction(0), Fraction(0), Fraction(0)]])
    assert in_turn[0].tolist() == [1, 0, 0, 0, 0]
    for backend in ("pytorch", "flashinfer"):
        torch.testing.assert_close(verification_probs(probs, _filters([2], [0.5], [0.0]), backend)[0], at_once)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("backend", ["pytorch", "flashinfer"])
def test_every_node_of_a_request_has_the_requests_filters(backend: str) -> None:
    torch.manual_seed(0)
    probs = torch.rand(3, 4, 9, dtype=torch.float64)
    probs /= probs.sum(dim=-1, keepdim=True)
    together = verification_probs(probs, _filters([2, 1 << 30, 5], [1.0, 0.5, 0.7], [0.0] * 3), backend)
    for row, (k, p) in enumerate([(2, 1.0), (1 << 30, 0.5), (5, 0.7)]):
        for node in range(4):
            alone = verification_probs(probs[row, node].view(1, 1, -1), _filters([k], [p], [0.0]), backend)
            torch.testing.assert_close(together[row, node], alone[0, 0])
    assert (together[0] > 0).sum(dim=-1).tolist() == [2] * 4


def test_nothing_to_filter() -> None:
    probs = torch.rand(1, 2, 3)
    assert verification_probs(probs, _filters([1 << 30], [1.0], [0.0]), "ascend") is probs


def test_an_unknown_backend_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="sampling_backend='ascend'"):
        verification_probs(torch.rand(1, 2, 3), _filters([2], [1.0], [0.0]), "ascend")


@needs_sglang
def test_inside_sglang() -> None:
    """Random numbers: 20 000 trees; a p-value below 10^-4 says that the distribution is not the sampler's."""
    found = json.loads(run("stand_in_sampling_oracle.py").splitlines()[-1])
    assert found["largest difference"] < 1e-6
    assert all(p > 1e-4 for p in found["hooked"])
    plain, both, least = found["stock"]
    assert plain > 1e-4  # without filters, stock SGLang's distribution is right where it samples
    assert max(both, least) < 1e-4  # not with top-k and top-p, nor with min-p
    assert found["likeliest on a CPU"] == [0, 20_000, *[0] * 6] == found["greedy"]
    assert "speculative_use_rejection_sampling" in found["rejection sampling"]
    assert "ascend" in found["backend"]
    assert found["restored"]
    assert found["page size"] == 16
    assert found["target"]
