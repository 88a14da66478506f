"""Corrections that SGLang needs on a CPU without AMX, besides the kernels' stand-ins; active only where SGLang is told
to use the CPU.

Its only attention backend for CPUs with a tree mask and several draft steps is ``intel_amx``, which asks for AMX; with
the stand-ins it works without. In 0.5.17 its two forward functions compute the right lengths and then use the batch's
instead. And a grammar (regex, JSON schema) crashes the server: its mask is allocated in pinned memory, and the function
that applies it refuses tensors on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prism_ae.sglang_prism.stand_ins import layers

if TYPE_CHECKING:
    from torch import Tensor

BACKEND = "intel_amx"


def install() -> None:
    """Allow the backend to be chosen; once per process, before the server's arguments are resolved."""
    from sglang.srt.arg_groups import overrides

    overrides.cpu_has_amx_support = lambda: True


def _with_lengths(lengths_of: Callable[[Any, Any], Tensor]) -> Callable[..., Any]:
    """A hook around a forward function that replaces the batch's lengths by ``lengths_of(backend, batch)`` [B]."""

    def around(
        original: Callable[..., Any],
        backend: Any,
        q: Any,
        k: Any,
        v: Any,
        layer: Any,
        forward_batch: Any,
        *args: Any,
        **options: Any,
    ) -> Any:
        before = forward_batch.seq_lens
        forward_batch.seq_lens = lengths_of(backend, forward_batch)
        try:
            return original(backend, q, k, v, layer, forward_batch, *args, **options)
        finally:
            forward_batch.seq_lens = before

    return around


def _extended(backend: Any, forward_batch: Any) -> Tensor:
    """Lengths [B] in verification, which extends every sequence by its whole tree: those in the backend's metadata."""
    return backend.extend_metadata[0]


def _decoded(backend: Any, forward_batch: Any) -> Tensor:
    """Lengths in decoding: one per branch of the beam [B * branch] in a draft step, the batch's own [B] elsewhere."""
    metadata = backend.draft_decode_metadata
    return forward_batch.seq_lens if metadata is None else metadata[1]


def allocate_vocab_mask(original: Callable[..., Any], vocab_size: int, batch_size: int) -> Tensor:
    """Around the allocation of a grammar's mask, int32 [B, V / 32 rounded up]: xgrammar's own, in unpinned memory."""
    import xgrammar

    return xgrammar.allocate_token_bitmask(batch_size, vocab_size)


def apply_vocab_mask(original: Callable[..., Any], grammar: Any, logits: Tensor, vocab_mask: Tensor) -> None:
    """Around the application of a grammar's mask: xgrammar's own function for CPUs.

    Args:
        logits: [n, V], changed in place.
        vocab_mask: int32 [n, V / 32 rounded up], a bit per token.
    """
    import xgrammar

    if logits.device.type == "cpu":
        xgrammar.apply_token_bitmask_inplace(logits, vocab_mask)
    else:
        original(grammar, logits, vocab_mask)


_BACKEND = "sglang.srt.layers.attention.intel_amx_backend.IntelAMXAttnBackend"
_GRAMMAR = "sglang.srt.constrained.xgrammar_backend"
HOOKS: list[tuple[str, Callable[..., Any], str]] = [
    *layers.HOOKS,
    (f"{_BACKEND}.forward_extend", _with_lengths(_extended), "around"),
    (f"{_BACKEND}.forward_decode", _with_lengths(_decoded), "around"),
    (f"{_GRAMMAR}._allocate_token_bitmask", allocate_vocab_mask, "around"),
    (f"{_GRAMMAR}.XGrammarGrammar.apply_vocab_mask", apply_vocab_mask, "around"),
]
