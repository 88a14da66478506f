"""The KV cache: one block of memory per model, written in place, read through views.

Rows are sequences. The rows in use are always the leading ones (`move` fills the place of one that ended), and each
row's committed keys and values fill its slots from 0, so that attention reads one view [rows in use, kv heads, width,
D] and copies nothing. Rows have different lengths; the mask hides what lies between a row's length and the width.

Draft trees are tentative. `write_slice` puts them at slots ``width .. width + T`` of every row, behind the longest row
in use: one slice for all rows, whatever their lengths. `commit` then copies the accepted nodes to their row's end; the
next tree overwrites the rest.

Only finite numbers are ever written, and memory starts as zeros: a hidden slot gets weight exactly 0, and 0 times a
finite number is 0. Slots at or behind the width, and rows not in use, are not read at all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_ae.models.llama import Attend, causal

HIDDEN = float("-inf")
"""Additive mask value of a slot that a query must not see; 0 is one that it sees."""


class KVCache:
    """Keys and values of one model.

    Args:
        layers: of the model.
        rows: sequences at once.
        kv_heads, head_dim: of the model.
        slots: positions per row, tentative ones included.
        like: of the cache's dtype and device.
    """

    def __init__(self, layers: int, rows: int, kv_heads: int, slots: int, head_dim: int, *, like: Tensor) -> None:
        self.slots = slots
        self.memory = like.new_zeros((layers, 2, rows, kv_heads, slots, head_dim))
        """[layers, keys then values, rows, kv heads, slots, D]"""
        self._parts = self.memory.flatten(0, 1)
        """The same memory: keys of layer 0, its values, keys of layer 1, ..."""
        self._shown, self._hidden = like.new_zeros(()), like.new_full((), HIDDEN)

    @staticmethod
    def row_bytes(layers: int, kv_heads: int, slots: int, head_dim: int, dtype: torch.dtype) -> int:
        """Memory of one row, in bytes."""
        return layers * 2 * kv_heads * slots * head_dim * dtype.itemsize

    def mask(self, seen: Tensor) -> Tensor:
        """An additive mask from a boolean one, of what is ``seen`` [...]."""
        return torch.where(seen, self._shown, self._hidden)

    def prefill(self, first: int, count: int) -> Attend:
        """Causal attention for the prompts of ``count`` rows from row ``first``, written from slot 0."""

        parts = self._parts[:, first : first + count].unbind()

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            length = key.shape[2]
            parts[2 * layer][:, :, :length] = key
            parts[2 * layer + 1][:, :, :length] = value
            return causal(layer, query, key, value)

        return attend

    def scatter_write(self, slots: Tensor, width: int, mask: Tensor) -> Attend:
        """Attention that writes token i of row b to slot ``slots[b, i]`` and sees the first ``width`` slots.

        Args:
            slots: [B, T], distinct within a row.
            width: slots seen.
            mask: additive [B, 1, T, width].
        """
        rows, attention = len(slots), _MaskedAttention(mask)
        row, memory = torch.arange(rows, device=slots.device).unsqueeze(1), self._parts[:, :rows]
        written, read = memory.unbind(), memory[:, :, :, :width].unbind()

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            # Not `scatter_`: in half precision a CPU copies all of the memory for it.
            written[2 * layer][row, :, slots] = key.transpose(1, 2)
            written[2 * layer + 1][row, :, slots] = value.transpose(1, 2)
            return attention(query, read[2 * layer], read[2 * layer + 1])

        return attend

    def write_slice(self, rows: int, offset: int, mask: Tensor) -> Attend:
        """Attention that writes T tokens of each of the leading ``rows`` at slots ``offset .. offset + T``.

        Args:
            offset: the same for all rows: behind what each of them is to keep.
            mask: additive [rows, 1, T, offset + T].
        """
        memory, attention = self._parts[:, :rows, :, : mask.shape[-1]], _MaskedAttention(mask)
        # All layers' views at once: views are what a pass over few tokens spends its time on.
        written, read = memory[:, :, :, offset:].unbind(), memory.unbind()

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            written[2 * layer].copy_(key)
            written[2 * layer + 1].copy_(value)
            return attention(query, read[2 * layer], read[2 * layer + 1])

        return attend

    def wipe(self, rows: int, offset: int, count: int) -> None:
        """Zero ``count`` tentative slots of the leading ``rows``, from ``offset`` on, after non-finite values were
        written there."""
        self.memory[:, :, :rows, :, offset : offset + count] = 0

    def commit(self, source: Tensor, target: Tensor) -> None:
        """Copy slots within rows, in all layers: ``source[b, i]`` to ``target[b, i]`` (both [B, n])."""
        row = torch.arange(len(source), device=source.device).unsqueeze(1)
        # Not `scatter_`: in half precision a CPU copies all of the memory for it.
        self.memory[:, :, row, :, target] = self.memory[:, :, row, :, source]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` slots of row ``source`` to row ``target``."""
        self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]


class _MaskedAttention:
    """Attention under one additive ``mask`` [B, 1, T, width], for all layers of a pass.

    The query heads that share a key head are folded into the query's length: a CPU's kernel is at its worst, in half
    precision, with one query per head.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask
        self._folded: Tensor | None = None

    def __call__(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """``query`` [B, heads, T, D], ``keys`` and ``values`` [B, kv_heads, width, D] -> [B, heads, T, D]."""
        (rows, heads, length, size), kv_heads = query.shape, keys.shape[1]
        if heads == kv_heads:
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=self._mask)
        if self._folded is None:
            self._folded = self._mask.repeat(1, 1, heads // kv_heads, 1)
        folded = query.reshape(rows, kv_heads, -1, size)
        mixed = F.scaled_dot_product_attention(folded, keys, values, attn_mask=self._folded)
        return mixed.reshape(rows, heads, length, size)
