"""Attention over SGLang's KV cache for a whole batch in one call per layer.

Each request's slots are gathered to a rectangle [B, width]. Unwritten slots may hold NaN, and 0 * NaN is NaN: so a row
is padded with one of its own slots, which the mask hides.

Slots and mask are the same in all layers of a forward pass. They are kept until one of the tensors that they were made
from is replaced or written to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

CELLS = (
    1 << 22
)  # queries x keys in one rectangle; a larger batch is cut, so that one long prompt does not widen all rows

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """Some requests of a batch, padded to the same number of queries and keys.

    Attributes:
        slots: of the keys, flat [B * keys].
        mask: added to the scores [B, 1, queries, keys]; None where nothing is hidden.
        gather: rows of q for the queries, flat [B * queries]; None where they already lie so.
        scatter: (places in the rectangle, rows of o) of the queries that are not padding; None likewise.
        first, last: the rows of q and o where ``gather`` is None.
    """

    batch: int
    slots: Tensor
    mask: Tensor | None
    gather: Tensor | None = None
    scatter: tuple[Tensor, Tensor] | None = None
    first: int = 0
    last: int = 0


class Memory:
    """The last value made, for as long as the tensors it was made from are the same objects, unchanged."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._sources: tuple[Tensor, ...] = ()
        self._value: object = None

    def get(self, sources: tuple[Tensor | None, ...], dtype: torch.dtype, make: Callable[[], Made]) -> Made:
        tensors = tuple(source for source in sources if source is not None)
        if any(tensor.is_inference() for tensor in tensors):  # writes to these are not counted
            return make()
        key = (dtype, *(None if source is None else (id(source), source._version) for source in sources))
        if key != self._key:
            self._value = make()
            self._key, self._sources = key, tensors  # kept alive, so that no other tensor gets their ids
        return self._value  # type: ignore[return-value]


class Extension(NamedTuple):
    """What the places of an extension follow from; see `extend_attention_cpu`."""

    req_to_token: Tensor
    requests: Tensor
    lengths: Tensor
    counts: Tensor
    starts: Tensor
    trees: Tensor | None


_decode, _extend = Memory(), Memory()


def decode_attention_cpu(
    q: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    o: Tensor,
    k: Tensor | None,
    v: Tensor | None,
    loc: Tensor,
    attn_logits: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    scaling: float,
    logit_cap: float,
    is_cross: bool = False,
    window: int = 0,
    encoder_lens: Tensor | None = None,
    sinks: Tensor | None = None,
) -> None:
    """One query per request. Writes the new keys and values to the cache, then o.

    Args:
        q, o: [B, heads, head size]
        k_buffer, v_buffer: [slots, kv heads, head size]
        k, v: of the new tokens, any shape of B rows, written to the slots ``loc`` [B]; None if they are there already.
        attn_logits: working memory of the compiled kernel, not used.
        req_to_token: slot of each position of each request.
        seq_lens: keys of each request, the new one included [B].
    """
    _refuse(k_buffer, logit_cap, is_cross=is_cross, window=window, encoder_lens=encoder_lens, sinks=sinks)
    if k is not None and v is not None:
        slots = loc.long()
        k_buffer.index_copy_(0, slots, k.view(-1, *k_buffer.shape[1:]).to(k_buffer.dtype))
        v_buffer.index_copy_(0, slots, v.view(-1, *v_buffer.shape[1:]).to(v_buffer.dtype))
    if seq_lens.numel() == 0:
        return
    plan = _decode.get(
        (req_to_token, req_pool_indices, seq_lens),
        q.dtype,
        lambda: _decode_rectangle(req_to_token, req_pool_indices.long(), seq_lens.long(), q.dtype),
    )
    keys, values = _gather(plan, k_buffer, v_buffer, q.dtype)
    # Heads that share keys are taken for queries of one head: one key head then needs no copies.
    grouped = q.view(q.shape[0], k_buffer.shape[1], -1, q.shape[2])
    o.copy_(scaled_dot_product_attention(grouped, keys, values, attn_mask=plan.mask, scale=scaling).reshape(o.shape))


def extend_attention_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    k_buffer: Tensor,
    v_buffer: Tensor,
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    extend_seq_lens: Tensor,
    extend_start_loc: Tensor,
    max_extend_len: int,
    scaling: float,
    logit_cap: float,
    is_cross: bool = False,
    window: int = 0,
    encoder_lens: Tensor | None = None,
    sinks: Tensor | None = None,
    tree_mask: Tensor | None = None,
) -> None:
    """Several queries per request, each seeing the text before it or, with a mask, its ancestors. Writes o.

    Args:
        q, o: queries of all requests, one after another [T, heads, head size]
        k, v: of the new tokens; not read, since the caller has written them to the cache.
        seq_lens: keys of each request, the new ones included [B].
        extend_seq_lens, extend_start_loc: new tokens of each request and where in q they begin [B].
        tree_mask: flat, per request [new tokens, new tokens]: the new keys that each query sees; None is causal.
    """
    _refuse(k_buffer, logit_cap, is_cross=is_cross, window=window, encoder_lens=encoder_lens, sinks=sinks)
    asked = Extension(req_to_token, req_pool_indices, seq_lens, extend_seq_lens, extend_start_loc, tree_mask)
    plan = _extend.get(asked, q.dtype, lambda: _extend_rectangles(asked, q.dtype))
    for part in plan:
        keys, values = _gather(part, k_buffer, v_buffer, q.dtype)
        queries = q[part.first : part.last] if part.gather is None else q.index_select(0, part.gather)
        queries = queries.view(part.batch, -1, *q.shape[1:]).transpose(1, 2)
        out = scaled_dot_product_attention(
            queries, keys, values, attn_mask=part.mask, scale=scaling, enable_gqa=q.shape[1] != k_buffer.shape[1]
        )
        out = out.transpose(1, 2).reshape(-1, *o.shape[1:])
        if part.scatter is None:
            o[part.first : part.last] = out
        else:
            places, rows = part.scatter
            o.index_copy_(0, rows, out.index_select(0, places))


def _refuse(
    k_buffer: Tensor,
    logit_cap: float,
    *,
    is_cross: bool,
    window: int,
    encoder_lens: Tensor | None,
    sinks: Tensor | None,
) -> None:
    if is_cross or encoder_lens is not None:
        raise NotImplementedError("cross attention on the CPU without sgl_kernel")
    if window > 0:
        raise NotImplementedError(f"sliding window ({window}) on the CPU without sgl_kernel")
    if logit_cap > 0:
        raise NotImplementedError(f"logit_cap ({logit_cap}) on the CPU without sgl_kernel")
    if sinks is not None:
        raise NotImplementedError("attention sinks on the CPU without sgl_kernel")
    if k_buffer.dim() != 3:
        raise NotImplementedError(
            f"KV buffers of {k_buffer.dim()} dimensions on the CPU without sgl_kernel: page_size must be 1"
        )


def _gather(plan: Rectangle, k_buffer: Tensor, v_buffer: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values [B, kv heads, keys, head size]."""

    def rows(buffer: Tensor) -> Tensor:
        return buffer.index_select(0, plan.slots).view(plan.batch, -1, *buffer.shape[1:]).transpose(1, 2).to(dtype)

    return rows(k_buffer), rows(v_buffer)


def _slots(req_to_token: Tensor, requests: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(slots, flat [B * keys]; positions [keys]); a row is padded with the slot of its last key."""
    positions = torch.arange(int(lengths.max()))
    inside = torch.minimum(positions, lengths.unsqueeze(1) - 1)
    return req_to_token[requests.unsqueeze(1), inside].flatten().long(), positions


def _decode_rectangle(req_to_token: Tensor, requests: Tensor, lengths: Tensor, dtype: torch.dtype) -> Rectangle:
    slots, positions = _slots(req_to_token, requests, lengths)
    hidden = positions >= lengths.unsqueeze(1)
    mask = _additive(hidden, dtype)[:, None, None, :] if bool(hidden.any()) else None
    return Rectangle(lengths.numel(), slots, mask)


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))


def _extend_rectangles(asked: Extension, dtype: torch.dtype) -> list[Rectangle]:
    """Cut the batch into rectangles of at most `CELLS` cells or one request."""
    requests, lengths, counts, starts = (tensor.long() for tensor in asked[1:5])
    if asked.trees is not None and not bool((counts == counts[:1]).all()):
        raise NotImplementedError("a tree mask with trees of different sizes")
    used = (counts > 0).nonzero().flatten()
    if used.numel() == 0:
        return []
    size = max(1, CELLS // int(counts.max() * lengths.max()))
    trees = None if asked.trees is None else asked.trees.view(counts.numel(), -1)
    return [
        _extend_rectangle(
            Extension(
                asked.req_to_token,
                requests[rows],
                lengths[rows],
                counts[rows],
                starts[rows],
                None if trees is None else trees[rows],
            ),
            dtype,
        )
        for rows in used.split(size)
    ]


def _extend_rectangle(asked: Extension, dtype: torch.dtype) -> Rectangle:
    req_to_token, requests, lengths, counts, starts, trees = asked
    batch, queries = counts.numel(), int(counts.max())
    slots, positions = _slots(req_to_token, requests, lengths)
    before = lengths - counts
    own = torch.arange(queries)
    # Padding repeats a request's last query, which sees at least one key, so its softmax is defined.
    inside = torch.minimum(own, counts.unsqueeze(1) - 1)
    hidden = positions > (before.unsqueeze(1) + inside).unsqueeze(2)
    if trees is not None:
        hidden = (positions >= lengths.unsqueeze(1)).unsqueeze(1).repeat(1, queries, 1)
        columns = (before.unsqueeze(1) + own).unsqueeze(1).expand(-1, queries, -1)
        hidden.scatter_(2, columns, ~trees.view(batch, queries, queries).bool())
    mask = _additive(hidden, dtype).unsqueeze(1)
    rows = starts.unsqueeze(1) + inside
    first, last = int(starts[0]), int(starts[0]) + batch * queries
    if torch.equal(rows.flatten(), torch.arange(first, last)):
        return Rectangle(batch, slots, mask, first=first, last=last)
    real = own < counts.unsqueeze(1)
    return Rectangle(batch, slots, mask, rows.flatten(), (real.flatten().nonzero().flatten(), rows[real]))
