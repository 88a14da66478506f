"""The drafts that each round of a request accepted, in their order: SGLang reports only how many rounds accepted each
number.

Only in engines that this project starts. The numbers travel as SGLang's own ``customized_info`` of a request, which it
cuts as it cuts the request's tokens, so there is one entry per token: a round's number stands at its first token, None
at the others and at the prefill's. They reach the answer's ``meta_info``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prism_ae.sglang_prism.control import NONCE

KEY = "prism_ae_accepted"
"""Our key in a request's information."""


def note_round(request: Any, num_correct_drafts: int) -> None:
    """Before SGLang counts a round in its histogram; the round's tokens are not among ``request.output_ids`` yet."""
    if not os.environ.get(NONCE):
        return
    if request.customized_info is None:
        request.customized_info = {}
    entries = request.customized_info.setdefault(KEY, [])
    entries += [None] * (len(request.output_ids) - len(entries))
    entries += [num_correct_drafts, *[None] * num_correct_drafts]


def accepted_drafts(meta_info: Mapping[str, Any]) -> tuple[int, ...]:
    """Of a finished request, from what SGLang says about it: the drafts that each round accepted."""
    return tuple(drafts for drafts in meta_info.get(KEY) or () if drafts is not None)


HOOKS = [("sglang.srt.managers.schedule_batch.Req.update_spec_correct_drafts_histogram", note_round, "before")]
