"""What SGLang needs on a CPU without AMX, besides the kernels' stand-ins: active only where it is told to use the
CPU.

Its one attention backend for CPUs with a tree mask and several draft steps is called ``intel_amx`` and asks for
AMX; with the stand-ins it needs none. In 0.5.17 its two forward functions work out the right lengths and then use
the batch's instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prism_ae.sglang_prism.hooks import Hook

if TYPE_CHECKING:
    from torch import Tensor

BACKEND = "intel_amx"


def install() -> None:
    """Let the backend be chosen; once per process, before the server's arguments are resolved."""
    from sglang.srt.arg_groups import overrides

    overrides.cpu_has_amx_support = lambda: True


def around_extend(
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
    """Verification extends every sequence by its whole tree: the lengths in the backend's metadata say so."""
    with _lengths(forward_batch, backend.extend_metadata[0]):
        return original(backend, q, k, v, layer, forward_batch, *args, **options)


def around_decode(
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
    """A draft step decodes every branch of the beam, with a length each."""
    metadata = backend.draft_decode_metadata
    with _lengths(forward_batch, forward_batch.seq_lens if metadata is None else metadata[1]):
        return original(backend, q, k, v, layer, forward_batch, *args, **options)


@contextmanager
def _lengths(forward_batch: Any, lengths: Tensor) -> Iterator[None]:
    """The batch's lengths, replaced for the duration of one call."""
    before = forward_batch.seq_lens
    forward_batch.seq_lens = lengths
    try:
        yield
    finally:
        forward_batch.seq_lens = before


_BACKEND = "sglang.srt.layers.attention.intel_amx_backend.IntelAMXAttnBackend"
HOOKS: list[Hook] = [
    (f"{_BACKEND}.forward_extend", around_extend, "around"),
    (f"{_BACKEND}.forward_decode", around_decode, "around"),
]
