"""Attention over the KV cache, against a loop over requests, queries and heads; slots never written hold NaN."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch
from torch import Tensor

from prism_ae.sglang_prism.stand_ins import attention
from prism_ae.sglang_prism.stand_ins.attention import Memory, decode_attention_cpu, extend_attention_cpu

HEADS, KV_HEADS, SIZE, VALUE_SIZE, SLOTS, POOL = 4, 2, 8, 6, 400, 64
SCALE = 0.3


@dataclasses.dataclass
class Batch:
    """Requests in a poisoned cache: only the slots of their own positions are written."""

    k_buffer: Tensor
    v_buffer: Tensor
    req_to_token: Tensor
    requests: Tensor
    lengths: Tensor

    def keys(self, row: int) -> Tensor:
        return self.k_buffer[self.slots(row)]

    def values(self, row: int) -> Tensor:
        return self.v_buffer[self.slots(row)]

    def slots(self, row: int) -> Tensor:
        return self.req_to_token[self.requests[row], : self.lengths[row]].long()


def _batch(lengths: list[int]) -> Batch:
    """Slots in random order; what ``req_to_token`` holds behind a request's end leads to poisoned slots."""
    requests = torch.randperm(8)[: len(lengths)]
    order = torch.randperm(SLOTS)
    req_to_token = order[torch.randint(300, SLOTS, (8, POOL))].int()
    k_buffer, v_buffer = (torch.full((SLOTS, KV_HEADS, size), torch.nan) for size in (SIZE, VALUE_SIZE))
    for request, slots in zip(requests, order[: sum(lengths)].split(lengths), strict=True):
        req_to_token[request, : slots.numel()] = slots.int()
        k_buffer[slots] = torch.randn(slots.numel(), KV_HEADS, SIZE)
        v_buffer[slots] = torch.randn(slots.numel(), KV_HEADS, VALUE_SIZE)
    return Batch(k_buffer, v_buffer, req_to_token, requests, torch.tensor(lengths))


def _reference(query: Tensor, keys: Tensor, values: Tensor, seen: list[int]) -> Tensor:
    """One query [heads, head size] over the keys at the places ``seen``."""
    heads = []
    for head in range(HEADS):
        shared = head * KV_HEADS // HEADS
        weights = torch.softmax(keys[seen, shared].double() @ query[head].double() * SCALE, dim=0)
        heads.append(weights @ values[seen, shared].double())
    return torch.stack(heads).float()


def _decode(batch: Batch, q: Tensor, k: Tensor | None, v: Tensor | None, **options: object) -> Tensor:
    o = torch.full((q.shape[0], HEADS, VALUE_SIZE), torch.nan)
    last = torch.stack([batch.slots(row)[-1] for row in range(q.shape[0])])
    arguments = (batch.req_to_token, batch.requests, batch.lengths, SCALE, 0.0)
    decode_attention_cpu(q, batch.k_buffer, batch.v_buffer, o, k, v, last, torch.zeros(0), *arguments, **options)  # type: ignore[arg-type]
    return o


def _extend(batch: Batch, q: Tensor, counts: list[int], tree: Tensor | None = None, **options: object) -> Tensor:
    o = torch.full((q.shape[0], HEADS, VALUE_SIZE), torch.nan)
    starts = torch.tensor([sum(counts[:row]) for row in range(len(counts))], dtype=torch.int32)
    unread = torch.zeros(0)
    extend_attention_cpu(
        *(q, unread, unread, o, batch.k_buffer, batch.v_buffer, batch.req_to_token, batch.requests, batch.lengths),
        *(torch.tensor(counts, dtype=torch.int32), starts, max(counts), SCALE, 0.0),
        **options,  # type: ignore[arg-type]
        tree_mask=tree,
    )
    return o


@pytest.mark.parametrize("lengths", [[1], [9], [7, 7], [5, 1, 30, 12]])
def test_decode(lengths: list[int]) -> None:
    torch.manual_seed(len(lengths))
    batch = _batch(lengths)
    q = torch.randn(len(lengths), HEADS, SIZE)
    for row in range(len(lengths)):  # not written yet: decoding writes them
        batch.k_buffer[batch.slots(row)[-1]] = torch.nan
        batch.v_buffer[batch.slots(row)[-1]] = torch.nan
    k, v = torch.randn(len(lengths), KV_HEADS, SIZE), torch.randn(len(lengths), KV_HEADS, VALUE_SIZE)
    o = _decode(batch, q, k.flatten(1), v.flatten(1))
    for row, length in enumerate(lengths):
        assert torch.equal(batch.keys(row)[-1], k[row])
        assert torch.equal(batch.values(row)[-1], v[row])
        expected = _reference(q[row], batch.keys(row), batch.values(row), list(range(length)))
        torch.testing.assert_close(o[row], expected, atol=1e-6, rtol=1e-5)


def test_decode_does_not_write_without_keys() -> None:
    torch.manual_seed(1)
    batch = _batch([4, 9])
    before = batch.k_buffer.clone()
    assert not _decode(batch, torch.randn(2, HEADS, SIZE), None, None).isnan().any()
    assert torch.equal(batch.k_buffer.nan_to_num(9), before.nan_to_num(9))


def test_decode_of_nothing() -> None:
    batch = _batch([3])
    empty = dataclasses.replace(batch, requests=batch.requests[:0], lengths=batch.lengths[:0])
    o = torch.zeros(0, HEADS, VALUE_SIZE)
    none = torch.zeros(0, dtype=torch.long)
    arguments = (empty.req_to_token, empty.requests, empty.lengths, SCALE, 0.0)
    decode_attention_cpu(
        torch.zeros(0, HEADS, SIZE), batch.k_buffer, batch.v_buffer, o, None, None, none, o, *arguments
    )


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [
        ([5], [5]),
        ([9], [3]),
        ([6, 11], [4, 4]),
        ([6, 11, 3], [6, 2, 1]),
        ([9, 20, 4], [0, 1, 4]),
        ([3, 2], [0, 0]),
        ([3, 3], [3, 3]),
    ],
)
@pytest.mark.parametrize("cells", [attention.CELLS, 1])
def test_extend_sees_the_text_before(
    lengths: list[int], counts: list[int], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CELLS", cells)
    torch.manual_seed(sum(counts))
    batch = _batch(lengths)
    q = torch.randn(sum(counts), HEADS, SIZE)
    o = _extend(batch, q, counts)
    token = 0
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        for place in range(length - count, length):
            expected = _reference(q[token], batch.keys(row), batch.values(row), list(range(place + 1)))
            torch.testing.assert_close(o[token], expected, atol=1e-6, rtol=1e-5)
            token += 1
    assert token == len(o)


@pytest.mark.parametrize("cells", [attention.CELLS, 1])
def test_verification_sees_the_text_and_ones_ancestors(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "CELLS", cells)
    torch.manual_seed(3)
    nodes, texts = 5, [8, 1, 17]
    batch = _batch([text + nodes for text in texts])
    trees = (torch.rand(3, nodes, nodes) < 0.4) | torch.eye(nodes, dtype=torch.bool)
    q = torch.randn(3 * nodes, HEADS, SIZE)
    o = _extend(batch, q, [nodes] * 3, trees.flatten())
    for row, text in enumerate(texts):
        for node in range(nodes):
            seen = [*range(text), *(text + other for other in range(nodes) if trees[row, node, other])]
            expected = _reference(q[row * nodes + node], batch.keys(row), batch.values(row), seen)
            torch.testing.assert_close(o[row * nodes + node], expected, atol=1e-6, rtol=1e-5)


def test_the_plan_of_a_pass_is_made_once_and_again_when_its_tensors_change() -> None:
    """A second layer reuses it; a request that grew, moved or was replaced in place does not."""
    torch.manual_seed(4)
    batch = _batch([6, 9])
    q = torch.randn(2, HEADS, SIZE)
    _decode(batch, q, None, None)

    def check() -> None:
        o = _decode(batch, q, None, None)
        for row in range(2):
            expected = _reference(q[row], batch.keys(row), batch.values(row), list(range(len(batch.slots(row)))))
            torch.testing.assert_close(o[row], expected, atol=1e-6, rtol=1e-5)

    batch.lengths -= 2
    check()
    batch.req_to_token[batch.requests[0], :2] = batch.req_to_token[batch.requests[0], :2].flip(0)
    batch.req_to_token[batch.requests[1], 0] = batch.req_to_token[batch.requests[1], 1]
    check()
    batch.lengths.fill_(4)
    check()
    batch.requests.copy_(batch.requests.flip(0))
    check()
    batch.lengths = torch.tensor([2, 1])
    check()


def test_memory() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(0)
        return len(made)

    memory, one, other = Memory(), torch.zeros(2), torch.zeros(2)
    assert [memory.get((one, None), torch.float32, make) for _ in range(2)] == [1, 1]
    assert memory.get((one, other), torch.float32, make) == 2
    assert memory.get((one, other), torch.float16, make) == 3
    watched = weakref.ref(one)
    one[:1].add_(1)
    assert memory.get((one, other), torch.float16, make) == 4
    del one
    assert watched() is not None  # held, or another tensor could get its id
    with torch.inference_mode():
        unversioned = torch.zeros(2)
        assert [memory.get((unversioned,), torch.float32, make) for _ in range(2)] == [5, 6]


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"is_cross": True}, "cross attention"),
        ({"window": 5}, "sliding window"),
        ({"sinks": torch.zeros(HEADS)}, "sinks"),
        ({"encoder_lens": torch.ones(1)}, "cross attention"),
    ],
)
def test_other_options_are_refused_by_name(option: dict[str, object], name: str) -> None:
    batch = _batch([4])
    q = torch.randn(1, HEADS, SIZE)
    with pytest.raises(NotImplementedError, match=name):
        _decode(batch, q, None, None, **option)
    with pytest.raises(NotImplementedError, match=name):
        _extend(batch, q, [1], **option)


def test_paged_buffers_are_refused() -> None:
    batch = _batch([4])
    paged = dataclasses.replace(batch, k_buffer=batch.k_buffer.unsqueeze(1))
    with pytest.raises(NotImplementedError, match="page_size"):
        _extend(paged, torch.randn(1, HEADS, SIZE), [1])
