"""Slots of the KV cache: those of each request's tokens, and copies between them.

``req_to_token`` [requests, positions] holds the slot of each position of each request. Ranges of positions differ in
length per request; they are laid out one after another, as SGLang's kernels do.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor


def _ragged(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The positions start..end - 1 of each row, one after another: (row, position), [sum(end - start)] each."""
    start, end = start.long(), end.long()
    lengths = end - start
    rows = torch.repeat_interleave(torch.arange(lengths.numel()), lengths)
    before = lengths.cumsum(0) - lengths
    return rows, torch.arange(rows.numel()) + (start - before)[rows]


def assign_req_to_token_pool_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start: Tensor,
    end: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
) -> None:
    """Write the slots ``out_cache_loc`` to the positions start..end - 1 of each request."""
    rows, positions = _ragged(start, end)
    slots = out_cache_loc[: rows.numel()].to(req_to_token.dtype)
    req_to_token.index_put_((req_pool_indices.long()[rows], positions), slots)


def assign_extend_cache_locs_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    start: Tensor,
    end: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
) -> None:
    """Read the slots of the positions start..end - 1 of each request to the front of ``out_cache_loc``."""
    rows, positions = _ragged(start, end)
    out_cache_loc[: rows.numel()] = req_to_token[req_pool_indices.long()[rows], positions].to(out_cache_loc.dtype)


def assign_draft_cache_locs_contiguous_cpu(
    req_pool_indices: Tensor,
    req_to_token: Tensor,
    seq_lens: Tensor,
    out_cache_loc: Tensor,
    pool_len: int,
    topk: int,
    num_steps: int,
) -> None:
    """Read the ``topk * num_steps`` slots behind each request's text to ``out_cache_loc``."""
    count = topk * num_steps
    positions = seq_lens.long().unsqueeze(1) + torch.arange(count)
    slots = req_to_token[req_pool_indices.long().unsqueeze(1), positions]
    out_cache_loc[: slots.numel()] = slots.flatten().to(out_cache_loc.dtype)


def build_draft_decode_metadata_cpu(
    req_to_token: Tensor,
    req_pool_indices: Tensor,
    seq_lens: Tensor,
    topk: int,
    num_steps: int,
    pool_len: int,
) -> Tensor:
    """Slots that each branch of the draft tree attends to, as if it were a request of its own.

    Returns:
        [B * topk, max(seq_lens) + num_steps] in ``req_to_token``'s type. Row b * topk + j begins with the slots of the
        text of request b, followed by the ``num_steps`` slots of branch j; the rest is undefined. (The compiled kernel
        returns ``pool_len`` columns. The attention reads no further than a row's length.)

    Raises:
        NotImplementedError: branches on pages of more than one token, whose slots are laid out differently.
    """
    if topk > 1 and (size := page_size()) > 1:
        raise NotImplementedError(f"page_size={size} with several branches on the CPU without sgl_kernel")
    lengths = seq_lens.long().view(-1, 1, 1)
    width = (int(lengths.max()) if lengths.numel() else 0) + num_steps
    positions = torch.arange(width)
    shift = torch.arange(topk).view(1, -1, 1) * num_steps
    positions = torch.where(positions < lengths, positions, positions + shift)
    return req_to_token[req_pool_indices.long().view(-1, 1, 1), positions].flatten(0, 1)


def copy_all_layer_kv_cache_cpu(data_ptrs: Tensor, strides: Tensor, tgt_loc: Tensor, src_loc: Tensor) -> None:
    """Copy the slots ``src_loc`` to ``tgt_loc`` in every buffer; all are read before any is written: they may overlap.

    Args:
        data_ptrs: address of each buffer.
        strides: bytes of a slot in each buffer.
    """
    if tgt_loc.numel() == 0:
        return
    target, source = tgt_loc.long(), src_loc.long()
    slots = int(torch.maximum(target.max(), source.max())) + 1
    for address, stride in zip(data_ptrs.view(torch.int64).tolist(), strides.tolist(), strict=True):
        word = torch.int64 if stride % 8 == 0 else torch.uint8  # moved as bits: fewer and wider words are faster
        memory = (ctypes.c_uint8 * (slots * stride)).from_address(address)
        buffer = torch.frombuffer(memory, dtype=word).view(slots, -1)
        buffer.index_copy_(0, target, buffer.index_select(0, source))


def page_size() -> int:
    """The page size of the server in this process."""
    from sglang.srt.runtime_context import get_server_args

    return get_server_args().page_size


def fill_bonus_tokens_cpu(accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, stride: int) -> None:
    """Write each request's last token, at ``accept_lens - 1`` of its ``stride`` places, to ``bonus_tokens``."""
    last = torch.arange(accept_lens.numel()) * stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.flatten()[last])


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, out_cache_loc: Tensor, accept_out_cache_loc: Tensor) -> None:
    """Slots of the accepted nodes (``accept_index`` without its -1), to the front of ``accept_out_cache_loc``."""
    accepted = accept_index.flatten()
    accepted = accepted[accepted >= 0].long()
    accept_out_cache_loc[: accepted.numel()] = out_cache_loc[accepted].to(accept_out_cache_loc.dtype)
