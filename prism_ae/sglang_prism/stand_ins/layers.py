"""SGLang's norm and rotary embedding in fewer operations, where its compiled kernels are absent.

Of a small model on a CPU most of a pass is the dispatch of its operations, the target's as the drafter's: norms of
seven and rotations of thirty of them are a fifth of it. Only float32 is done here; what else SGLang's classes can do is
left to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(
    original: Callable[..., Any],
    norm: Any,
    x: Tensor,
    residual: Tensor | None = None,
    post_residual_addition: Tensor | None = None,
) -> Any:
    """Around ``RMSNorm.forward_native``: ``x`` [..., H] plus ``residual``, normed; with a residual also the sum."""
    plain = norm.variance_size_override is None and post_residual_addition is None and norm.override_orig_dtype is None
    if x.dtype != torch.float32 or not plain or x.shape[-1] != norm.hidden_size:
        return original(norm, x, residual, post_residual_addition)
    total = x if residual is None else x + residual
    normed = F.rms_norm(total, (norm.hidden_size,), norm.weight, norm.variance_epsilon)
    return normed if residual is None else (normed, total)


def rotate(
    original: Callable[..., Any],
    rotary: Any,
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    *more: Any,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Around ``RotaryEmbedding.forward_native``: ``query``, ``key`` [T, heads * D], turned in halves, as Llama does."""
    whole = rotary.is_neox_style and rotary.rotary_dim == rotary.head_size and not hasattr(rotary, "sin_cos_cache")
    if query.dtype != torch.float32 or not whole or more or any(value is not None for value in options.values()):
        return original(rotary, positions, query, key, *more, **options)
    angles = rotary.cos_sin_cache.index_select(0, positions.flatten()).unsqueeze(1)
    cosine, sine = angles.to(torch.float32).chunk(2, dim=-1)
    return _turned(query, cosine, sine), _turned(key, cosine, sine)


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """``x`` [T, heads * D] by the angles of [T, 1, D / 2]."""
    first, second = x.view(len(x), -1, 2 * cosine.shape[-1]).chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).view(x.shape)


HOOKS: list[tuple[str, Callable[..., Any], str]] = [
    ("sglang.srt.layers.layernorm.RMSNorm.forward_native", rms_norm, "around"),
    ("sglang.srt.layers.rotary_embedding.base.RotaryEmbedding.forward_native", rotate, "around"),
]
