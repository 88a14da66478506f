"""What SGLang needs on a CPU without AMX, besides the kernels' stand-ins: active only where it is told to use the
CPU.

Its one attention backend for CPUs with a tree mask and several draft steps is called ``intel_amx`` and asks for
AMX; with the stand-ins it needs none. In 0.5.17 its two forward functions work out the right lengths and then use
the batch's instead. And a grammar (regex, JSON schema) ends the server: its mask wants pinned memory, and is refused
where it is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prism_ae.sglang_prism.hooks import Hook

if TYPE_CHECKING:
    from torch import Tensor

BACKEND = "intel_amx"


def install() -> None:
    """Let the backend be chosen; once per process, before the server's arguments are resolved."""
    from sglang.srt.arg_groups import overrides

    overrides.cpu_has_amx_support = lambda: True


def _with_lengths(lengths_of: Callable[[Any, Any], Tensor]) -> Callable[..., Any]:
    """A hook around a forward function: meanwhile the batch's lengths are those of ``lengths_of(backend, batch)``."""

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
    """Verification extends every sequence by its whole tree: the lengths in the backend's metadata say so."""
    return backend.extend_metadata[0]


def _decoded(backend: Any, forward_batch: Any) -> Tensor:
    """A draft step decodes every branch of the beam, with a length each; decoding without drafts, the batch's own."""
    metadata = backend.draft_decode_metadata
    return forward_batch.seq_lens if metadata is None else metadata[1]


def allocate_vocab_mask(original: Callable[..., Any], vocab_size: int, batch_size: int) -> Tensor:
    """Around the allocation of a grammar's mask: xgrammar's own, in memory that is not pinned."""
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
HOOKS: list[Hook] = [
    (f"{_BACKEND}.forward_extend", _with_lengths(_extended), "around"),
    (f"{_BACKEND}.forward_decode", _with_lengths(_decoded), "around"),
    (f"{_GRAMMAR}._allocate_token_bitmask", allocate_vocab_mask, "around"),
    (f"{_GRAMMAR}.XGrammarGrammar.apply_vocab_mask", apply_vocab_mask, "around"),
]
