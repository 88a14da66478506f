"""Cache locations and the copy of keys and values, against loops over requests and positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prism_ae.sglang_prism.stand_ins import cache

REQUESTS, POOL = 7, 40


def _table() -> Tensor:
    """``req_to_token`` in which every position has a slot of its own."""
    torch.manual_seed(0)
    return torch.randperm(REQUESTS * POOL).view(REQUESTS, POOL).int()


RANGES = [([3], [0], [5]), ([6, 0, 2], [4, 9, 0], [7, 9, 2]), ([5, 1], [0, 0], [40, 0]), ([4], [3], [3])]


@pytest.mark.parametrize(("requests", "start", "end"), RANGES)
def test_slots_are_assigned_to_positions(requests: list[int], start: list[int], end: list[int]) -> None:
    table, expected = _table(), _table()
    slots = torch.arange(1000, 1000 + 50)  # more than are used
    cache.assign_req_to_token_pool_cpu(
        *map(torch.tensor, (requests,)), table, *map(torch.tensor, (start, end)), slots, POOL
    )
    values = iter(slots.tolist())
    for request, first, last in zip(requests, start, end, strict=True):
        for position in range(first, last):
            expected[request, position] = next(values)
    assert torch.equal(table, expected)


@pytest.mark.parametrize(("requests", "start", "end"), RANGES)
def test_slots_of_positions(requests: list[int], start: list[int], end: list[int]) -> None:
    table = _table()
    out = torch.full((60,), -1)
    cache.assign_extend_cache_locs_cpu(
        torch.tensor(requests), table, torch.tensor(start), torch.tensor(end).int(), out, POOL
    )
    expected = [
        int(table[request, position])
        for request, first, last in zip(requests, start, end, strict=True)
        for position in range(first, last)
    ]
    assert out.tolist() == expected + [-1] * (60 - len(expected))


def test_slots_behind_the_text() -> None:
    table, requests, lengths = _table(), [4, 0, 6], [0, 9, 28]
    out = torch.zeros(3 * 12, dtype=torch.long)
    cache.assign_draft_cache_locs_contiguous_cpu(torch.tensor(requests), table, torch.tensor(lengths), out, POOL, 4, 3)
    expected = [
        table[request, length : length + 12].tolist() for request, length in zip(requests, lengths, strict=True)
    ]
    assert out.view(3, 12).tolist() == expected


def test_branches_on_pages_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "page_size", lambda: 16)
    row = torch.tensor([0])
    with pytest.raises(NotImplementedError, match="page_size=16"):
        cache.build_draft_decode_metadata_cpu(_table(), row, row, 2, 3, POOL)
    assert cache.build_draft_decode_metadata_cpu(_table(), row, row, 1, 3, POOL).shape == (1, 3)


@pytest.mark.parametrize("topk", [1, 4])
def test_branches_see_the_text_and_their_own_slots(topk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "page_size", lambda: 1)
    table, requests, lengths, steps = _table(), [4, 0, 6], [1, 9, POOL - 3 * topk], 3
    rows = cache.build_draft_decode_metadata_cpu(
        table, torch.tensor(requests), torch.tensor(lengths), topk, steps, POOL
    )
    for place, (request, length) in enumerate(zip(requests, lengths, strict=True)):
        for branch in range(topk):
            own = length + branch * steps
            expected = [*table[request, :length].tolist(), *table[request, own : own + steps].tolist()]
            assert rows[place * topk + branch, : length + steps].tolist() == expected


@pytest.mark.parametrize("places", [[3, 11, 4, 19], [3, 19, 4, 11]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_copy_reads_all_before_it_writes(dtype: torch.dtype, places: list[int]) -> None:
    """Slots that are target and source at once, and one copy (slot 0 to itself) several times, as SGLang pads."""
    torch.manual_seed(1)
    shapes = [(20, 2, 4), (20, 3, 5), (20, 1, 7)]
    buffers = [torch.randint(0, 200, shape).to(dtype) for shape in shapes]
    expected = [buffer.clone() for buffer in buffers]
    target, source = [5, 6, 7, 9, 0, 0, *places[:2]], [6, 7, 9, 5, 0, 0, *places[2:]]
    for buffer in expected:
        read = [buffer[slot].clone() for slot in source]
        for slot, value in zip(target, read, strict=True):
            buffer[slot] = value
    addresses = torch.tensor([buffer.data_ptr() for buffer in buffers], dtype=torch.uint64)
    strides = torch.tensor([buffer[0].numel() * buffer.element_size() for buffer in buffers])
    cache.copy_all_layer_kv_cache_cpu(addresses, strides, torch.tensor(target), torch.tensor(source))
    for buffer, wanted in zip(buffers, expected, strict=True):
        assert torch.equal(buffer, wanted)
    none = torch.zeros(0, dtype=torch.long)
    cache.copy_all_layer_kv_cache_cpu(addresses, strides, none, none)


def test_last_committed_tokens() -> None:
    tokens = torch.arange(100, 112).int()
    bonus = torch.zeros(3, dtype=torch.int32)
    cache.fill_bonus_tokens_cpu(tokens, torch.tensor([1, 4, 2]).int(), bonus, 4)
    assert bonus.tolist() == [100, 107, 109]


def test_slots_of_accepted_nodes() -> None:
    accept = torch.tensor([[0, 3, -1], [6, -1, -1], [8, 9, 11]], dtype=torch.int32)
    out = torch.full((9,), -1)
    cache.fill_accept_out_cache_loc_cpu(accept, torch.arange(50, 62), out)
    assert out.tolist() == [50, 53, 56, 58, 59, 61, -1, -1, -1]
