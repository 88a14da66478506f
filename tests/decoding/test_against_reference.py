"""The batched engine against decoding by definition: every tree, every accept list, every token.

The reference (`decoding_reference`) keeps no cache and no mask and computes every branch from scratch. Models are fp64,
scores fp32, so two orders differ only where scores are within about 1e-6 of each other; the reference measures the
smallest gap it met, and a round below `TIE` decides nothing.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target
from decoding_reference import Path, Reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prism_ae.cells import TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.cache import KVCache
from prism_ae.decoding.drafting import Drafting
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.decoding.tree import DraftTree
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import Llama

TIE = 1e-5
SEED = 7


class TieError(Exception):
    """The reference met two scores that are too close to order."""


def make_job(number: int, prompt: list[int], count: int, temperature: float) -> GenerationJob:
    return GenerationJob(f"q{number}", 1, lambda _: prompt, temperature, SEED, count, 100)


def paths(tree: DraftTree, row: int) -> set[Path]:
    """The verified drafts of a row, each as the tokens from the root to it."""
    found: list[Path] = [()]
    for token, parent in zip(tree.tokens[row, 1:].tolist(), tree.parents[row, 1:].tolist(), strict=True):
        found.append((*found[parent], token))
    return set(found[1:])


def answer_one(
    target: Llama,
    drafter: Drafter,
    shape: TreeShape,
    job: GenerationJob,
    spoil: Callable[[Batch], object] = lambda _: None,
) -> tuple[GenerationResult, list[set[Path]]]:
    """Answer a job alone; also every round's tree."""
    batch = Batch(
        target, drafter, shape, rows=1, max_seq_len=100, uniforms_per_row=job.max_new_tokens + shape.steps + 1
    )
    spoil(batch)
    assert batch.drafting is not None
    draft, drafted = batch.drafting.draft_tree, []

    def spy(*arguments: object) -> DraftTree:
        tree = draft(*arguments)  # type: ignore[arg-type]
        drafted.append(paths(tree, 0))
        return tree

    batch.drafting.draft_tree = spy  # type: ignore[method-assign]
    (answered,) = generate(batch, [job], (), lambda: False)
    return answered, drafted


def differences(
    target: Llama,
    drafter: Drafter,
    shape: TreeShape,
    job: GenerationJob,
    result: tuple[GenerationResult, list[set[Path]]],
) -> list[str]:
    """What a result has that the reference has not; raises TieError where that is not defined."""
    answered, trees = result
    prompt = list(job.prompt(()))
    answer, accepted, drafts = Reference(target, drafter, shape).answer(
        prompt, job.max_new_tokens, job.temperature, job.seed, job.question_id
    )
    if min(draft.margin for draft in drafts) < TIE:
        raise TieError
    problems = []
    for number, (tree, draft) in enumerate(zip(trees, drafts, strict=False)):
        if tree != draft.paths:
            problems.append(f"round {number}: tree {sorted(tree ^ draft.paths)} differ")
    histogram = tuple(accepted.count(drafts) for drafts in range(shape.steps + 1))
    if answered.sample.histogram != histogram:
        problems.append(f"histogram {answered.sample.histogram}, not {histogram}")
    if answered.answers[0] != tuple(answer[: job.max_new_tokens]):
        problems.append(f"answer {answered.answers[0]}, not {answer}")
    return problems


@st.composite
def shapes(draw: st.DrawFn) -> TreeShape:
    steps, branch = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    most = 1 + branch + branch * branch * (steps - 1)
    return TreeShape(steps, branch, most if branch == 1 else draw(st.integers(2, most)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shapes(),
    st.lists(st.integers(0, 28), min_size=1, max_size=9),
    st.sampled_from([0.0, 1.0, 0.6]),
    st.integers(0, 3),
)
@torch.inference_mode()
def test_trees_and_accepts_equal_the_reference(
    kind: str, shape: TreeShape, prompt: list[int], temperature: float, seed: int
) -> None:
    target = make_target(seed, kv_heads=(4, 2)[seed % 2])
    drafter = make_drafter(kind, target, seed)
    job = make_job(seed, prompt, 9, temperature)
    try:
        problems = differences(target, drafter, shape, job, answer_one(target, drafter, shape, job))
    except TieError:
        assume(False)
    assert problems == []


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_crowded_batch_equals_the_reference(kind: str) -> None:
    """Rows of different lengths and temperatures, that end at different times and are refilled."""
    target = make_target(3)
    drafter, shape = make_drafter(kind, target), TreeShape(3, 3, 8)
    prompts = [torch.randint(0, 29, (length,)).tolist() for length in (5, 1, 12, 2, 7, 3)]
    jobs = [make_job(n, prompt, 5 + 2 * n, float(n % 2)) for n, prompt in enumerate(prompts)]
    batch = Batch(target, drafter, shape, rows=3, max_seq_len=100, uniforms_per_row=40)
    done = {answered.index: answered for answered in generate(batch, jobs, (), lambda: False)}
    assert len(done) == len(jobs)
    for number, job in enumerate(jobs):
        assert differences(target, drafter, shape, job, (done[number], [])) == []


# --- The reference must notice what could go wrong. Each mutation spoils one thing.


class _Shifted(nn.Module):
    """Rotary positions off by one, for the beams of the draft steps only."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.beams = inner, False

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(positions + int(self.beams))


def _siblings_in_beam(batch: Batch) -> None:
    assert batch.drafting
    batch.drafting._own.zero_()


def _beam_positions(batch: Batch) -> None:
    assert batch.drafting
    drafter = copy.copy(batch.drafting.drafter)
    drafter._modules = dict(drafter._modules)
    shifted = drafter._modules["rotary"] = _Shifted(drafter.rotary)
    batch.drafting.drafter = drafter
    read = batch.drafting._read

    def read_and_mark(*arguments: object) -> Tensor:
        shifted.beams = False
        out = read(*arguments)  # type: ignore[arg-type]
        shifted.beams = True
        return out

    batch.drafting._read = read_and_mark  # type: ignore[method-assign]


def _modules(*mapping: int) -> Callable[[Batch], None]:
    def spoil(batch: Batch) -> None:
        assert batch.drafting
        drafter = copy.copy(batch.drafting.drafter)
        drafter.config = dataclasses.replace(drafter.config, step_mapping=mapping)
        batch.drafting.drafter = drafter

    return spoil


def _spoiled_method(owner: type, name: str, change: Callable[..., tuple[object, ...]]) -> Callable[[Batch], None]:
    """Change the arguments of a method of the batch's own object."""

    def spoil(batch: Batch) -> None:
        instance = batch.cache if owner is KVCache else batch.drafting
        method = getattr(instance, name)
        setattr(instance, name, lambda *arguments: method(*change(*arguments)))

    return spoil


def _see_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    visible = batch_module.visible

    def leaky(parents: Tensor, depth: int) -> Tensor:
        return visible(parents, depth) | (parents.unsqueeze(1) == parents.unsqueeze(2))

    monkeypatch.setattr(batch_module, "visible", leaky)


def _late_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = Batch._verify_all

    def late(self: Batch, tree: DraftTree, length: Tensor, answered: Tensor, prefix: Tensor) -> object:
        shifted = dataclasses.replace(tree, depths=tree.depths + (tree.depths > 0))
        return verify(self, shifted, length, answered, prefix)

    monkeypatch.setattr(Batch, "_verify_all", late)


BATCH_MUTATIONS = {
    "a beam sees its siblings": _siblings_in_beam,
    "beams one position late": _beam_positions,
    "modules swapped": _modules(1, 0),
    "module index one late": _modules(0, 0, 1),
    "another node's keys kept": _spoiled_method(KVCache, "commit", lambda source, to: (source + (source < 5), to)),
    "keys kept one slot late": _spoiled_method(KVCache, "commit", lambda source, to: (source, to + 1)),
    "features of the wrong node": _spoiled_method(
        Drafting, "commit", lambda features, tokens, counts: (features.roll(1, 1), tokens, counts)
    ),
    "following token one early": _spoiled_method(
        Drafting, "commit", lambda features, tokens, counts: (features, tokens.roll(1, 1), counts)
    ),
}
MODULE_MUTATIONS = {"a node sees its siblings": _see_siblings, "drafts one position late": _late_depths}


def _caught(spoil: Callable[[Batch], object]) -> bool:
    target = make_target(1)
    drafter, shape = make_drafter("prism", target, 1), TreeShape(3, 3, 9)
    jobs = [make_job(n, [3 + n, 5, 9, 2 * n], 16, float(n % 2)) for n in range(4)]
    return any(differences(target, drafter, shape, job, answer_one(target, drafter, shape, job, spoil)) for job in jobs)


@torch.inference_mode()
def test_nothing_is_caught_where_nothing_is_wrong() -> None:
    assert not _caught(lambda _: None)


@pytest.mark.parametrize("name", BATCH_MUTATIONS)
@torch.inference_mode()
def test_the_reference_catches(name: str) -> None:
    assert _caught(BATCH_MUTATIONS[name])


@pytest.mark.parametrize("name", MODULE_MUTATIONS)
@torch.inference_mode()
def test_the_reference_catches_in_the_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MODULE_MUTATIONS[name](monkeypatch)
    assert _caught(lambda _: None)
