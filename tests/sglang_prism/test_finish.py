"""Where an answer ends does not depend on how many tokens come at once."""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from prism_ae.sglang_prism.finish import before_next_turn, one_by_one

LIMIT, STOP_TOKEN, STOP_STRING = 12, 7, (3, 4)


class Request:
    """A request whose finish is checked as SGLang's is: the limit, then stop strings, then stop tokens, then the
    grammar; several new tokens are looked at together."""

    def __init__(self, grammar: Any = None) -> None:
        self.output_ids = array("q")
        self.finished_reason: str | None = None
        self.finished_len: int | None = None
        self.to_finish: str | None = None
        self.grammar = grammar

    def finished(self) -> bool:
        return self.finished_reason is not None

    def check(self, count: int = 1) -> None:
        if self.finished():
            return
        if self.to_finish:
            self.finished_reason, self.to_finish = self.to_finish, None
            return
        if len(self.output_ids) >= LIMIT:
            self.finished_reason, self.finished_len = "length", LIMIT
            return
        new = self.output_ids[-count:]
        tail = tuple(self.output_ids[-(count + len(STOP_STRING) - 1) :])
        if any(tail[place : place + 2] == STOP_STRING for place in range(len(tail))):
            self.finished_reason, self.finished_len = "string", len(self.output_ids)
        elif STOP_TOKEN in new:
            self.finished_reason = "token"
            self.finished_len = len(self.output_ids) - count + list(new).index(STOP_TOKEN) + 1
        elif self.grammar and self.grammar():
            self.finished_reason = "grammar"


def run(tokens: list[int], sizes: list[int], check: Callable[[Request, int], None], grammar: Any = None) -> Request:
    """A request that is given its tokens in chunks of these sizes until it is finished."""
    request = Request(grammar)
    begin = 0
    for size in itertools.cycle(sizes):
        if begin >= len(tokens) or request.finished():
            return request
        chunk = tokens[begin : begin + size]
        request.output_ids.extend(chunk)
        check(request, len(chunk))
        begin += size
    raise AssertionError


def ours(request: Request, count: int) -> None:
    one_by_one(Request.check, request, count)


def outcome(request: Request) -> tuple[Any, ...]:
    length = len(request.output_ids) if request.finished_len is None else request.finished_len
    return request.finished_reason, list(request.output_ids[:length])


def test_chunks_end_where_single_tokens_end() -> None:
    generator = random.Random(0)
    reasons, differ = set(), 0
    for _ in range(3000):
        tokens = [generator.randrange(1, 9) for _ in range(20)]
        sizes = [generator.randrange(1, 7) for _ in range(20)]
        single = run(tokens, [1], Request.check)
        chunked = run(tokens, sizes, ours)
        assert outcome(chunked) == outcome(single)
        # What the round committed is kept, the key-value cache holds it.
        assert list(chunked.output_ids) == tokens[: len(chunked.output_ids)]
        reasons.add(single.finished_reason)
        differ += outcome(run(tokens, sizes, Request.check)) != outcome(single)
    assert reasons == {"length", "string", "token"}
    assert differ > 100  # looking at a chunk at once, as SGLang does, is noticed


def test_a_grammar_ends_with_the_chunk_that_ends_it() -> None:
    """SGLang has advanced it over the whole chunk before it looks, and dropped what is behind its end."""
    request = Request(lambda: True)
    request.output_ids.extend([1, 1, 1])
    ours(request, 3)
    assert outcome(request) == ("grammar", [1, 1, 1])
    assert request.grammar is not None


def test_an_abort_comes_with_one_token_as_without_drafts() -> None:
    """Not with what the round wrote behind a stop, or beyond the limit."""
    for before, chunk, check in (([1, 2], [1, STOP_TOKEN, 1], ours), ([1, 2], [1], Request.check)):
        request = Request()
        request.output_ids.extend(before + chunk)
        request.to_finish = "abort"
        check(request, len(chunk))
        assert outcome(request) == ("abort", [1, 2, 1])


def test_what_goes_wrong_while_checking_loses_no_token() -> None:
    request = Request()
    request.output_ids.extend([1, 2, 3])

    def fails(request: Request, count: int) -> None:
        if len(request.output_ids) == 2:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        one_by_one(fails, request, 3)
    assert list(request.output_ids) == [1, 2, 3]


def test_a_sessions_next_turn_reads_the_answer_alone() -> None:
    """What the round wrote behind the answer's end is not part of the conversation."""
    done, running = Request(), Request()
    for request in (done, running):
        request.output_ids.extend([1, 2, STOP_TOKEN, 9])
    ours(done, 3)
    nodes = {"a": SimpleNamespace(req=done), "b": SimpleNamespace(req=running)}
    before_next_turn(SimpleNamespace(streaming=True, req_nodes=nodes))
    assert list(done.output_ids) == [1, 2, STOP_TOKEN, 9]
    before_next_turn(SimpleNamespace(streaming=False, req_nodes=nodes))
    assert list(done.output_ids) == [1, 2, STOP_TOKEN]
    assert list(running.output_ids) == [1, 2, STOP_TOKEN, 9]
