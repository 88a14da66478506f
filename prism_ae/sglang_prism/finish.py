"""The end of an answer when a round commits several tokens: the same as token by token.

SGLang checks a round's tokens together, and the limit first: it misses a stop string, stop token or end token inside
the last accepted chunk when the chunk reaches ``max_new_tokens``, and returns the text after it. Here a request gets
its tokens one after the other, as without drafts, so SGLang makes its own checks at each token, in its own order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def around_update_finish_state(original: Callable[..., None], request: Any, new_accepted_len: int = 1) -> None:
    """Around ``Req.update_finish_state``: for each of the ``new_accepted_len`` tokens at the end of
    ``request.output_ids``.

    ``output_ids`` keeps every token that the round committed: the KV cache holds them all. The first ``finished_len``
    of them are the answer.
    """
    from sglang.srt.runtime_context import get_server_args

    from prism_ae.sglang_prism.registration import is_ours

    if new_accepted_len <= 1 or not is_ours(get_server_args()):
        original(request, new_accepted_len)
        return
    one_by_one(original, request, new_accepted_len)


def one_by_one(check: Callable[..., None], request: Any, count: int) -> None:
    """Call ``check(request, 1)`` for each of the last ``count`` tokens, until the request is finished."""
    tokens = request.output_ids
    if request.finished() or request.to_finish:
        check(request, count)  # an abort does not depend on the tokens; without drafts one of them would precede it
        if request.finished_len is None:
            request.finished_len = len(tokens) - count + 1
        return
    chunk = tokens[len(tokens) - count :]
    del tokens[len(tokens) - count :]
    grammar = request.grammar
    try:
        for number, token in enumerate(chunk, start=1):
            tokens.append(token)
            # The grammar has already been advanced over the whole chunk, which ends where the grammar does.
            request.grammar = grammar if number == count else None
            check(request, 1)
            if request.finished():
                if request.finished_len is None:
                    request.finished_len = len(tokens)
                break
    finally:
        request.grammar = grammar
        tokens.extend(chunk[number:])


def before_next_turn(session: Any, *args: Any, **options: Any) -> None:
    """Before a session's next request is made from the last one: cut that one's text where its answer ended.

    Streaming sessions do that themselves.
    """
    if session.streaming:
        return
    for node in session.req_nodes.values():
        request = node.req
        if request.finished() and request.finished_len is not None:
            del request.output_ids[request.finished_len :]


HOOKS = [
    ("sglang.srt.session.session_controller.Session.create_req", before_next_turn, "before"),
    ("sglang.srt.managers.schedule_batch.Req.update_finish_state", around_update_finish_state, "around"),
]
