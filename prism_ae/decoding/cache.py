"""The KV cache: one block of memory per model, written in place, read through views.

Rows are sequences. The rows in use are always the leading ones (`move` fills the place of one that ended), and each
row's committed keys and values fill its slots from 0, so that attention reads one view [rows in use, kv heads, width,
D] and copies nothing. Rows have different lengths; the mask hides what lies between a row's length and the width.

Draft trees are tentative. `write_draft` puts them at slots ``width .. width + T`` of every row, behind the longest row
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

    @staticmethod
    def row_bytes(layers: int, kv_heads: int, slots: int, head_dim: int, dtype: torch.dtype) -> int:
        """Memory of one row, in bytes."""
        return layers * 2 * kv_heads * slots * head_dim * dtype.itemsize

    def prefill(self, first: int, count: int) -> Attend:
        """Causal attention for the prompts of ``count`` rows from row ``first``, written from slot 0."""

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            length = key.shape[2]
            keys, values = self.memory[layer, :, first : first + count, :, :length]
            keys.copy_(key)
            values.copy_(value)
            return causal(layer, query, key, value)

        return attend

    def scatter_write(self, slots: Tensor, width: int, mask: Tensor) -> Attend:
        """Attention that writes token i of row b to slot ``slots[b, i]`` and sees the first ``width`` slots.

        Args:
            slots: [B, T], distinct within a row.
            width: slots seen.
            mask: additive [B, 1, T, width].
        """
        rows = len(slots)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            index = slots[:, None, :, None].expand_as(key)
            keys, values = self.memory[layer, :, :rows]
            keys.scatter_(2, index, key)
            values.scatter_(2, index, value)
            return _attention(query, keys[:, :, :width], values[:, :, :width], mask)

        return attend

    def write_draft(self, rows: int, offset: int, mask: Tensor) -> Attend:
        """Attention that writes T tokens of each of the leading ``rows`` at slots ``offset .. offset + T``.

        Args:
            offset: at or behind the end of the longest row.
            mask: additive [rows, 1, T, offset + T].
        """

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            width = offset + key.shape[2]
            keys, values = self.memory[layer, :, :rows, :, :width]
            keys[:, :, offset:] = key
            values[:, :, offset:] = value
            return _attention(query, keys, values, mask)

        return attend

    def wipe(self, rows: int, offset: int, count: int) -> None:
        """Zero ``count`` tentative slots of the leading ``rows``, from ``offset`` on, after non-finite values were
        written there."""
        self.memory[:, :, :rows, :, offset : offset + count] = 0

    def commit(self, source: Tensor, target: Tensor) -> None:
        """Copy slots within rows, in all layers: ``source[b, i]`` to ``target[b, i]`` (both [B, n])."""
        memory = self.memory[:, :, : len(source)]
        shape = (*memory.shape[:4], source.shape[1], memory.shape[5])
        moved = memory.gather(4, source[:, None, :, None].expand(shape))
        memory.scatter_(4, target[:, None, :, None].expand(shape), moved)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` slots of row ``source`` to row ``target``."""
        self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]


def _attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    grouped = query.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=grouped)
