"""float16 ends at 65,504: a rejected draft may overflow it, which must not change any other number."""

from __future__ import annotations

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target

from prism_ae.cells import TreeShape
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama, cast_parameters

LETTER, OFTEN = 28, 7
SHAPES = (TreeShape(3, 4, 12), TreeShape(4, 5, 30), TreeShape(1, 6, 7))


def overflowing(strength: float) -> Llama:
    """A target whose first MLP, for one letter, computes ``strength`` squared; the letter is never the likeliest."""
    target = make_target(4, dtype=torch.float32)
    embedding, mlp = target.embedding.weight.data, target.layers[0].mlp  # type: ignore[union-attr]
    alone = torch.linalg.svd(embedding[:LETTER])[2][-1]
    embedding[LETTER] = 30 * alone
    target.head.weight.data[LETTER] = 0.95 * target.head.weight.data[OFTEN]
    middle = target.config.intermediate_size
    for row in (0, middle):
        mlp.gate_up.weight.data[row] = strength / 32**0.5 * alone
    mlp.down.weight.data[:, 0] = 1e-7
    target.layers[0].mlp_norm.weight.data[:] = 1  # type: ignore[union-attr]
    cast_parameters(target, torch.float16)
    return target


def answers(target: Llama, drafter: Drafter | None, shape: TreeShape | None, rows: int) -> list[GenerationResult]:
    generator = torch.Generator().manual_seed(5)
    texts = [torch.randint(0, LETTER, (length,), generator=generator).tolist() for length in range(2, 12)]
    jobs = [GenerationJob(f"q{n}", 1, lambda _, text=text: text, 0.0, 0, 20, 90) for n, text in enumerate(texts)]
    batch = Batch(target, drafter, shape, rows=rows, max_seq_len=100, uniforms_per_row=30)
    return sorted(generate(batch, jobs, (), lambda: False), key=lambda answered: answered.index)


def drafter_of(kind: str, target: Llama) -> Drafter:
    """It drafts the letter wherever it drafts ``OFTEN``, since the target's head or its own nearly says the same."""
    drafter = make_drafter(kind, target)
    if drafter.own_head is not None:
        drafter.draft_ids[:2] = torch.tensor([LETTER, OFTEN])
        drafter.draft_ids[2:] = torch.tensor([token for token in range(LETTER) if token != OFTEN])[
            : len(drafter.draft_ids) - 2
        ]
        drafter.own_head.weight.data[0] = 1.05 * drafter.own_head.weight.data[1]
    cast_parameters(drafter, torch.float16)
    return drafter


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_draft_beyond_the_range_changes_nothing(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = overflowing(1.0), overflowing(400.0)
    seen = []
    verify = Batch._verify_step_by_step

    def counted(self: Batch, *arguments: torch.Tensor) -> object:
        seen.append(kind)
        return verify(self, *arguments)

    monkeypatch.setattr(Batch, "_verify_step_by_step", counted)
    for shape in SHAPES:
        expected = answers(small, drafter_of(kind, small), shape, rows)
        assert not seen
        got = answers(large, drafter_of(kind, large), shape, rows)
        assert seen, "the letter was not drafted"
        seen.clear()
        assert [a.answers for a in got] == [a.answers for a in expected]
        assert [a.sample.histogram for a in got] == [a.sample.histogram for a in expected]
        assert [a.answers for a in got] == [a.answers for a in answers(large, None, None, rows)]
    assert not any(LETTER in answer for a in expected for answer in a.answers)


def test_a_target_that_overflows_where_it_goes_is_named() -> None:
    target = overflowing(400.0)
    drafter = drafter_of("prism", target)
    target.head.weight.data[LETTER] = 100 * target.head.weight.data[3]
    with pytest.raises(CheckpointError, match="the target computes numbers that are not finite in float16"):
        answers(target, drafter, SHAPES[0], 4)


def test_a_drafter_that_overflows_is_named() -> None:
    target = overflowing(1.0)
    drafter = drafter_of("prism", target)
    drafter.modules_[0].layers[0].mlp.down.weight.data[:] = 60000  # type: ignore[union-attr, index]
    with pytest.raises(CheckpointError, match="the drafter computes numbers that are not finite in float16"):
        answers(target, drafter, SHAPES[0], 4)
