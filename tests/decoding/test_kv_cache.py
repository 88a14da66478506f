"""Nothing reads a slot that holds no committed or freshly drafted token."""

from __future__ import annotations

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target

from prism_ae.cells import TreeShape
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.cache import KVCache
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate


def _jobs() -> list[GenerationJob]:
    prompts = [torch.randint(0, 29, (length,)).tolist() for length in (5, 1, 12, 2, 7, 3, 4)]
    return [
        GenerationJob(f"q{n}", 1, lambda _, prompt=prompt: prompt, float(n % 2), 7, 6 + 3 * (n % 3), 100)
        for n, prompt in enumerate(prompts)
    ]


def _answers(batch: Batch) -> list[GenerationResult]:
    return sorted(generate(batch, _jobs(), (), lambda: False), key=lambda answered: answered.index)


def _poison(batch: Batch, gap: float) -> None:
    """Overwrite all that is unused, now: NaN behind the longest row and in rows not in use, ``gap`` where a shorter
    row ends before the longest, since there the mask decides."""
    assert batch.drafting
    used, longest = len(batch.lengths), max(batch.lengths)
    for cache, read in ((batch.cache, 0), (batch.drafting.cache, 1)):
        cache.memory[:, :, used:] = float("nan")
        cache.memory[:, :, :, :, longest:] = float("nan")
        for row, length in enumerate(batch.lengths):
            # The drafter has yet to read what the last round committed.
            done = length - read * batch._counts[row]
            cache.memory[:, :, row, :, done:longest] = gap


def _with_poison(batch: Batch, gap: float) -> list[GenerationResult]:
    def poisoned() -> list[list[int]]:
        _poison(batch, gap)
        return Batch.round(batch)

    batch.round = poisoned  # type: ignore[method-assign]
    return _answers(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_unused_slots_are_never_read(kind: str) -> None:
    target = make_target(2)
    drafter, shape = make_drafter(kind, target), TreeShape(3, 3, 9)
    torch.manual_seed(5)
    clean = _answers(Batch(target, drafter, shape, rows=3, max_seq_len=100, uniforms_per_row=40))
    torch.manual_seed(5)
    poisoned = _with_poison(Batch(target, drafter, shape, rows=3, max_seq_len=100, uniforms_per_row=40), 1e30)
    assert [a.answers for a in poisoned] == [a.answers for a in clean]
    assert [a.sample.histogram for a in poisoned] == [a.sample.histogram for a in clean]


def test_alone_nothing_is_hidden_by_the_mask_only() -> None:
    """With one row there is no gap, so NaN may stand everywhere unused."""
    target = make_target(2)
    drafter, shape = make_drafter("prism", target), TreeShape(3, 3, 9)
    torch.manual_seed(5)
    clean = _answers(Batch(target, drafter, shape, rows=1, max_seq_len=100, uniforms_per_row=40))
    batch = Batch(target, drafter, shape, rows=1, max_seq_len=100, uniforms_per_row=40)
    batch.cache.memory.fill_(float("nan"))
    batch.drafting.cache.memory.fill_(float("nan"))  # type: ignore[union-attr]
    torch.manual_seed(5)
    assert [a.answers for a in _with_poison(batch, float("nan"))] == [a.answers for a in clean]


def test_a_read_too_far_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poison works: a prefix mask that shows one slot too many changes the outcome."""
    target = make_target(2)
    drafter, shape = make_drafter("eagle2", target), TreeShape(3, 3, 9)
    torch.manual_seed(5)
    clean = _answers(Batch(target, drafter, shape, rows=3, max_seq_len=100, uniforms_per_row=40))
    write_draft = KVCache.write_draft

    def leaky(self: KVCache, rows: int, offset: int, mask: torch.Tensor) -> object:
        shown = mask.clone()
        hidden = (shown[:, 0, 0, :offset] != 0).int()
        for row in range(rows):
            if hidden[row].any():
                shown[row, :, :, int(hidden[row].argmax())] = 0
        return write_draft(self, rows, offset, shown)

    monkeypatch.setattr(KVCache, "write_draft", leaky)
    torch.manual_seed(5)
    spoiled = _with_poison(Batch(target, drafter, shape, rows=3, max_seq_len=100, uniforms_per_row=40), 1e30)
    assert [a.answers for a in spoiled] != [a.answers for a in clean]


def test_no_memory_is_allocated_for_the_cache_while_decoding() -> None:
    target = make_target(2)
    batch = Batch(
        target, make_drafter("prism", target), TreeShape(3, 3, 9), rows=3, max_seq_len=100, uniforms_per_row=40
    )
    assert batch.drafting
    before = (batch.cache.memory.data_ptr(), batch.drafting.cache.memory.data_ptr())
    _answers(batch)
    assert (batch.cache.memory.data_ptr(), batch.drafting.cache.memory.data_ptr()) == before
