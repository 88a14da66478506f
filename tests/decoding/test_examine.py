"""The margin of a token is exactly how far the target's logits have to move until it is another one."""

from __future__ import annotations

import pytest
import torch
from decoding_models import make_drafter, make_target
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.examine import FAULT, NEAR_TIE, STEPS, SURE, examined, margins
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.decoding.sampling import question_uniforms, sample_tokens
from prism_ae.drafters.model import Drafter
from prism_ae.io.digests import digest
from prism_ae.models.llama import Llama, cast_parameters

ROWS, VOCAB = 400, 17
TEMPERATURES = (0.0, 0.5, 1.0, 1.7)


def drawn(temperature: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, uniform numbers and temperatures."""
    torch.manual_seed(seed)
    logits = 3 * torch.randn(ROWS, VOCAB, dtype=torch.float64)
    return logits, torch.rand(ROWS, dtype=torch.float64), torch.full((ROWS,), temperature, dtype=torch.float64)


def worst(logits: Tensor, tokens: Tensor, shift: Tensor, *, lower: bool, greedy: bool) -> Tensor:
    """The logits, each moved by ``shift`` [m], as they move most against the tokens at one edge of their intervals."""
    places, chosen = torch.arange(VOCAB), tokens.unsqueeze(1)
    # At T > 0 the tokens before gain what the others lose, or the other way round.
    up = places != chosen if greedy else places < chosen if lower else places > chosen
    return logits + torch.where(up, 1.0, -1.0) * shift.unsqueeze(1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_token_changes_where_logits_move_by_half_its_margin_and_not_before(temperature: float) -> None:
    logits, uniforms, warm = drawn(temperature)
    tokens = sample_tokens(logits, uniforms, warm)
    margin = margins(logits, tokens, uniforms, warm)
    assert bool((margin > 0).all())
    changed = {}
    for share in (0.999, 1.001):
        found = [
            sample_tokens(
                worst(logits, tokens, share * margin / 2, lower=lower, greedy=temperature == 0), uniforms, warm
            )
            for lower in (True, False)
        ]
        changed[share] = (found[0] != tokens) | (found[1] != tokens)
    assert not bool(changed[0.999].any())
    assert bool(changed[1.001].all())


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_no_movement_within_the_margin_changes_a_token(temperature: float) -> None:
    logits, uniforms, warm = drawn(temperature, seed=1)
    tokens = sample_tokens(logits, uniforms, warm)
    margin = margins(logits, tokens, uniforms, warm)
    for _ in range(50):
        moved = logits + (2 * torch.rand_like(logits) - 1) * 0.999 * margin.unsqueeze(1) / 2
        assert torch.equal(sample_tokens(moved, uniforms, warm), tokens)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_every_other_token_has_a_negative_margin(temperature: float) -> None:
    """And the least movement that would give it is larger by half of that."""
    logits, uniforms, warm = drawn(temperature, seed=2)
    tokens = sample_tokens(logits, uniforms, warm)
    for other in range(VOCAB):
        found = margins(logits, torch.full_like(tokens, other), uniforms, warm)
        assert torch.equal(found < 0, tokens != other)


def test_the_ends_of_the_distribution_have_no_edge() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [40.0, 0.0], [0.0, -800.0]], dtype=torch.float64)
    uniforms = torch.tensor([0.0, 1 - 2.0**-53, 0.9, 0.5], dtype=torch.float64)
    tokens = torch.tensor([0, 1, 0, 0])
    found = margins(logits, tokens, uniforms, torch.ones(4, dtype=torch.float64))
    assert found[0] == torch.inf
    assert found[1].isfinite()
    assert found[1] > 36
    assert float(found[2]) == pytest.approx(40 - float(torch.logit(uniforms[2])))
    assert found[3] == torch.inf
    wrong = margins(logits, 1 - tokens, uniforms, torch.ones(4, dtype=torch.float64))
    assert bool((wrong < 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_near_tie_lies_within_the_rounding_of_the_dtype(dtype: torch.dtype, temperature: float) -> None:
    logits, uniforms, warm = drawn(temperature, seed=3)
    logits = (4 * logits).to(dtype)
    tokens = sample_tokens(logits, uniforms, warm)
    margin, found = margins(logits, tokens, uniforms, warm), examined(logits, tokens, uniforms, warm)
    step = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}[dtype]
    near = margin <= STEPS * step * logits.double().abs().amax(1)
    assert torch.equal(found == NEAR_TIE, near)
    assert torch.equal(found == SURE, ~near)
    assert bool(near.any()) or dtype == torch.float16


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_that_was_not_the_targets_is_a_fault_however_near(temperature: float) -> None:
    """The verifier saw these very logits: no rounding of theirs explains another token."""
    logits = torch.tensor([[5.0, 5.0 - 2.0**-5, 0.0]], dtype=torch.bfloat16)
    uniforms, warm = torch.tensor([0.49]), torch.tensor([temperature])
    found = [examined(logits, torch.tensor([token]), uniforms.double(), warm.double()).item() for token in range(3)]
    assert found == [NEAR_TIE, FAULT, FAULT]


def test_what_is_no_number_is_a_fault() -> None:
    logits = torch.tensor([[float("nan"), 1.0]], dtype=torch.bfloat16)
    one = torch.ones(1, dtype=torch.float64)
    assert examined(logits, torch.tensor([1]), one / 2, one).tolist() == [FAULT]


SHAPE = TreeShape(3, 3, 9)


def half(rows: int = 4, *, at_once: bool = False, shape: TreeShape | None = SHAPE) -> list[GenerationResult]:
    """Answers of a bfloat16 target that is examined, at T = 0 and T = 1."""
    target: Llama = make_target(4, dtype=torch.float32)
    drafter: Drafter | None = make_drafter("prism", target) if shape else None
    for model in (target, drafter):
        if model is not None:
            cast_parameters(model, torch.bfloat16)
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randint(0, 29, (1 + number % 9,), generator=generator).tolist() for number in range(20)]
    jobs = [
        GenerationJob(f"q{n}", 2, lambda _, text=text: text, float(n % 2), 3, 30, 90) for n, text in enumerate(texts)
    ]
    batch = Batch(target, drafter, shape, rows=rows, max_seq_len=100, uniforms_per_row=40)
    batch.examine_tokens()
    batch.sample_at_once = at_once
    return sorted(generate(batch, jobs, (3, 17), lambda: False), key=lambda answered: answered.index)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("shape", [None, SHAPE, TreeShape(3, 1, 4)])
def test_an_honest_verifier_has_near_ties_and_no_faults(shape: TreeShape | None, at_once: bool) -> None:
    samples = [answered.sample for answered in half(at_once=at_once, shape=shape)]
    assert {sample.faults for sample in samples} == {0}
    assert sum(len(sample.near_ties) for sample in samples) > 10
    assert not any(sample.problem() for sample in samples)


def test_a_near_tie_names_its_place() -> None:
    for answered in half():
        for turn, place, before, token in answered.sample.near_ties:
            assert answered.answers[turn][place] == token
            assert digest([*answered.answers[:turn], answered.answers[turn][:place]])[:8] == before


def test_every_committed_token_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that takes the worst token at one position, anywhere in an answer, has one fault there."""
    honest = {answered.index: answered.sample for answered in half(rows=1)}
    for place in (0, 1, 2, 5, 7):

        def spoiled(logits: Tensor, uniforms: Tensor, temperature: Tensor, place: int = place) -> Tensor:
            token = sample_tokens(logits, uniforms, temperature)
            return torch.where(torch.isin(uniforms, marked(place)), logits.argmin(-1), token)

        monkeypatch.setattr(batch_module, "sample_tokens", spoiled)
        for answered in half(rows=1):
            expected = sum(len(answer) > place for answer in answered.answers)
            assert answered.sample.faults == expected
            assert honest[answered.index].faults == 0


def marked(place: int) -> Tensor:
    """The uniform numbers of that position of every answer."""
    numbers = [question_uniforms(3, f"q{n}", turn, 40)[place] for n in range(20) for turn in range(2)]
    return torch.tensor(numbers, dtype=torch.float64)
