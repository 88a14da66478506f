"""Room for a round at the end of the context.

Before a round SGLang takes key-value slots for two rounds beyond a request's text, and notes them in the request's row
of a table. The row ends a few tokens behind the context, unless pages are larger than a token: near the context's end
the notes go beyond it, which ends the server on a CPU, and on a GPU reach into another request's row.
"""

from __future__ import annotations

from typing import Any

from prism_ae.sglang_prism.hooks import Hook

SPARE = 4
"""Tokens that SGLang adds to a row in any case."""


def after_extra_length(result: int, server_args: Any) -> int:
    """After a row's length beyond the context was worked out: at least what a round takes."""
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

    from prism_ae.sglang_prism.registration import is_ours

    if not is_ours(server_args):
        return result
    return max(result, SPARE + int(get_alloc_reserve_per_decode(server_args)))


HOOKS: list[Hook] = [
    ("sglang.srt.mem_cache.allocation_sizing.get_req_to_token_extra_context_len", after_extra_length, "after"),
]
