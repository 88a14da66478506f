"""Half precision on the real engine: counts are a cell's own, honest texts part by ties alone, faults are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from sglang_prism.sglang_models import QUESTIONS, Place, make_place
from torch import Tensor

from prism_ae.analysis.results import Measured
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import Cell, Point, Result, Sample
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.sampling import sample_tokens
from prism_ae.decoding.tree import DraftTree, visible
from prism_ae.engines import torch_engine
from prism_ae.engines.torch_engine import TorchEngine

DRAFTERS = ("vanilla", "prism", "eagle3")
TREE = "5,4,16"
SEEDS = range(3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("models"))


def cells_of(place: Place, drafter: str, dtype: str = "bfloat16", **changes: Any) -> list[Cell]:
    """Both benchmarks at T = 0 and T = 1, and T = 1 with other seeds, too."""
    asked = [(benchmark, 0.0, 0) for benchmark in QUESTIONS]
    asked += [(benchmark, 1.0, seed) for benchmark in QUESTIONS for seed in SEEDS]
    return [
        place.cell(
            drafter, None if drafter == "vanilla" else TREE, engine="torch", dtype=dtype, benchmark=benchmark,
            temperature=temperature, seed=seed, max_new_tokens=64, **changes,
        )
        for benchmark, temperature, seed in asked
    ]  # fmt: skip


def engine(place: Place) -> TorchEngine:
    return TorchEngine(place.suite, place.folder, "cpu", 1)


def measured(result: Result) -> Measured:
    return Measured("0" * 16, result.samples, result.wall_seconds, {}, "2026-11-26T00:00:00+00:00", "CPU")


def sweep(place: Place) -> dict[Point, Measured]:
    found: dict[Point, Measured] = {}
    engine_ = engine(place)
    for drafter in DRAFTERS:
        cells = cells_of(place, drafter)
        results = place.measure(engine_, cells)
        found |= {cell.point: measured(result) for cell, result in zip(cells, results, strict=True)}
    return found


def samples_of(found: Mapping[Point, Measured]) -> list[Sample]:
    return [sample for result in found.values() for sample in result.samples]


def without_seconds(results: list[Result]) -> list[list[Sample]]:
    return [
        [dataclasses.replace(sample, prefill_seconds=0.0, decode_seconds=0.0) for sample in result.samples]
        for result in results
    ]


@pytest.fixture(scope="module")
def honest(place: Place) -> dict[Point, Measured]:
    return sweep(place)


def test_an_honest_verifier_has_ties_and_no_faults(honest: dict[Point, Measured]) -> None:
    texts = compare(honest)
    assert texts.compared == 12 * (1 + len(SEEDS))
    assert texts == Texts(texts.compared, texts.differing, ties=texts.differing)
    assert texts.ties > 0
    samples = samples_of(honest)
    assert {sample.faults for sample in samples} == {0}
    assert not any(sample.problem() for sample in samples)
    near, tokens = sum(len(sample.near_ties) for sample in samples), sum(sample.generated_tokens for sample in samples)
    print(f"{texts}; {near} near ties in {tokens} tokens")
    assert 0 < near < 0.2 * tokens


Spoil = Callable[[pytest.MonkeyPatch], None]


def accepts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """At T > 0 a draft is accepted with probability min(1, 1.05 p): the upper edge of its interval is moved."""
    real = Batch._sampler

    def sampler(self: Batch, tree: DraftTree, hidden: Tensor, answered: Tensor) -> Callable[[Tensor, int], Tensor]:
        honest, every = real(self, tree, hidden, answered), torch.arange(len(answered))

        def sample(node: Tensor, level: int) -> Tensor:
            token = honest(node, level)
            temperature, uniform = self._temperature[: len(node)], self._uniforms[every, answered + level]
            scale = torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)
            p = (self.target.head(hidden[every, node]).double() / scale).softmax(-1)
            before = p.cumsum(-1) - p
            number = uniform.unsqueeze(1)
            wide = (number >= before) & (number < before + 1.05 * p)
            child = (tree.parents == node.unsqueeze(1)) & wide.gather(1, tree.tokens)
            drafted = tree.tokens.gather(1, child.int().argmax(1, keepdim=True)).squeeze(1)
            return torch.where(child.any(1) & (temperature > 0), drafted, token)

        return sample

    monkeypatch.setattr(Batch, "_sampler", sampler)


def takes_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one token in a hundred the second best, also at T > 0."""
    generator = torch.Generator().manual_seed(3)

    def sample(logits: Tensor, uniforms: Tensor, temperature: Tensor) -> Tensor:
        seldom = torch.rand(uniforms.shape, generator=generator) < 0.01
        return torch.where(seldom, logits.topk(2).indices[..., 1], sample_tokens(logits, uniforms, temperature))

    monkeypatch.setattr(batch_module, "sample_tokens", sample)


def sees_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target verifies with a wrong tree mask: its logits are wrong, and its tokens are theirs."""

    def mask(parents: Tensor, depth: int) -> Tensor:
        seen = visible(parents, depth)
        seen[:, 2:, 1:2] = True
        return seen

    monkeypatch.setattr(batch_module, "visible", mask)


@pytest.mark.parametrize("spoil", [accepts_more, takes_the_second])
def test_a_token_that_the_target_did_not_choose_is_a_fault(
    place: Place, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch)
    found = sweep(place)
    texts = compare(found)
    print(f"{texts} of {sum(sample.generated_tokens for sample in samples_of(found))} tokens")
    assert texts.wrong_tokens > 8
    assert texts.faults > 4
    assert texts.unexamined == 0


def test_texts_of_a_wrong_pass_part_elsewhere_than_at_ties(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is wrong for the logits that the verifier saw: only the texts show it."""
    sees_siblings(monkeypatch)
    texts = compare(sweep(place))
    print(texts)
    assert texts.wrong_tokens == 0
    assert texts.faults > 4


def test_a_cell_counts_the_same_whatever_was_measured_before_and_beside_it(place: Place) -> None:
    cells = cells_of(place, "prism")
    after = engine(place)
    place.measure(after, cells_of(place, "eagle2"))
    together = place.measure(after, cells)
    assert not after._written
    alone = [place.measure(engine(place), [cell])[0] for cell in cells]
    assert without_seconds(together) == without_seconds(alone)
    assert [result.settings.to_json()["expected_texts"] for result in together] == [False] * len(cells)


def test_what_float32_shares_would_change_a_cell_in_half_precision(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above has power."""
    cells = cells_of(place, "prism")
    alone = [place.measure(engine(place), [cell])[0] for cell in cells]
    monkeypatch.setattr(torch_engine._Loaded, "exact", property(lambda self: True))
    after = engine(place)
    place.measure(after, cells_of(place, "eagle2"))
    shared = place.measure(after, cells)
    counts = [[[sample.output_sha256, sample.histogram] for sample in result.samples] for result in shared]
    assert counts != [[[sample.output_sha256, sample.histogram] for sample in result.samples] for result in alone]


def test_float32_and_timed_cells_are_not_examined(place: Place) -> None:
    for changes in ({"dtype": "float32"}, {"batch": 2}):
        cells = cells_of(place, "prism", **changes)[:2]  # type: ignore[arg-type]
        for result in place.measure(engine(place), cells[:1] if "batch" in changes else cells):
            assert {(sample.faults, sample.near_ties) for sample in result.samples} == {(None, ())}
