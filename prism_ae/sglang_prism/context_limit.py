"""Slots for a round of drafts at the context limit.

Before a round SGLang takes key-value slots for two rounds beyond a request's text, and writes them to the request's row
of a table. The row ends a few tokens beyond the context, unless pages are larger than a token: near the context limit
SGLang writes past the row's end, which crashes the server on a CPU, and on a GPU overwrites another request's row.
"""

from __future__ import annotations

from typing import Any

SPARE = 4
"""Tokens that SGLang always adds to a row."""


def after_extra_length(result: int, server_args: Any) -> int:
    """After SGLang computed a row's length beyond the context: at least the slots that a round takes."""
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_reserve_per_decode

    from prism_ae.sglang_prism.registration import is_ours

    if not is_ours(server_args):
        return result
    return max(result, SPARE + int(get_alloc_reserve_per_decode(server_args)))


HOOKS = [
    ("sglang.srt.mem_cache.allocation_sizing.get_req_to_token_extra_context_len", after_extra_length, "after"),
]
