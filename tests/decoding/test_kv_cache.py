"""Nothing reads a slot that holds no committed or freshly drafted token."""

from __future__ import annotations

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target

from prism_ae.cells import TreeShape
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.cache import KVCache
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.models.llama import Attend


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
    write_slice = KVCache.write_slice

    def leaky(self: KVCache, rows: int, offset: int, mask: torch.Tensor) -> object:
        shown = mask.clone()
        hidden = (shown[:, 0, 0, :offset] != 0).int()
        for row in range(rows):
            if hidden[row].any():
                shown[row, :, :, int(hidden[row].argmax())] = 0
        return write_slice(self, rows, offset, shown)

    monkeypatch.setattr(KVCache, "write_slice", leaky)
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


ROWS, LAYERS, HEADS, KV_HEADS, SLOTS, SIZE = 3, 2, 6, 2, 12, 8


def filled(dtype: torch.dtype, rows: int = 5) -> KVCache:
    """A cache with more rows than are in use, every slot of which holds something."""
    torch.manual_seed(0)
    cache = KVCache(LAYERS, rows, KV_HEADS, SLOTS, SIZE, like=torch.zeros((), dtype=dtype))
    cache.memory.copy_(torch.randn(cache.memory.shape))
    return cache


def tokens(dtype: torch.dtype, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of ``count`` tokens per row."""
    torch.manual_seed(1)
    return tuple(torch.randn(ROWS, heads, count, SIZE).to(dtype) for heads in (HEADS, KV_HEADS, KV_HEADS))  # type: ignore[return-value]


def by_definition(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax written out, head by head, in fp64."""
    out = torch.empty(query.shape, dtype=torch.float64)
    group = query.shape[1] // keys.shape[1]
    for head in range(query.shape[1]):
        key, value = keys[:, head // group].double(), values[:, head // group].double()
        weights = query[:, head].double() @ key.mT / query.shape[-1] ** 0.5 + mask[:, 0].double()
        out[:, head] = weights.softmax(-1) @ value
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("way", ["slice", "scatter"])
def test_attention_writes_its_tokens_and_sees_what_the_mask_shows(way: str, count: int, dtype: torch.dtype) -> None:
    cache, expected = filled(dtype), filled(dtype).memory
    query, key, value = tokens(dtype, count)
    width = 9
    slots = torch.tensor([[width - count + n for n in range(count)]] * ROWS)
    if way == "scatter":
        slots = slots - torch.tensor([[0], [2], [3]])
    mask = torch.where(torch.rand(ROWS, 1, count, width) < 0.6, 0.0, float("-inf")).to(dtype)
    mask[..., :2] = 0
    attend: Attend = (
        cache.write_slice(ROWS, width - count, mask) if way == "slice" else cache.scatter_write(slots, width, mask)
    )
    for layer in range(LAYERS):
        got = attend(layer, query, key, value)
        for row in range(ROWS):
            for place, slot in enumerate(slots[row].tolist()):
                expected[layer, 0, row, :, slot] = key[row, :, place]
                expected[layer, 1, row, :, slot] = value[row, :, place]
        keys, values = expected[layer, :, :ROWS, :, :width]
        close = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
        torch.testing.assert_close(got.double(), by_definition(query, keys, values, mask), rtol=close, atol=close)
    assert torch.equal(cache.memory, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_commit_copies_slots_of_each_row_as_they_were(dtype: torch.dtype) -> None:
    cache, before = filled(dtype), filled(dtype).memory
    source, target = torch.tensor([[5, 7, 8], [5, 5, 9], [6, 5, 11]]), torch.tensor([[5, 6, 7], [2, 3, 4], [0, 1, 5]])
    cache.commit(source, target)
    expected = before.clone()
    for row in range(ROWS):
        for old, new in zip(source[row].tolist(), target[row].tolist(), strict=True):
            expected[:, :, row, :, new] = before[:, :, row, :, old]
    assert torch.equal(cache.memory, expected)
    assert not torch.equal(cache.memory, before)
