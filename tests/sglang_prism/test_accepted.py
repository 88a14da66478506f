"""A request's rounds arrive in their order however SGLang cuts and streams its tokens."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from prism_ae.sglang_prism.accepted import KEY, accepted_drafts, note_round
from prism_ae.sglang_prism.control import NONCE


def served(rounds: list[int], cut: int, emitted_after: set[int]) -> list[Any]:
    """The entries of a request as SGLang sends them: after some rounds, those of the tokens since the last time.

    Args:
        cut: tokens of the last round that lie behind the answer's end.
        emitted_after: rounds after which it streams; 0 is the prefill. It always does at the end.
    """
    request = SimpleNamespace(customized_info=None, output_ids=[0])
    sent, offset = [], 0
    for number, drafts in enumerate([None, *rounds]):
        if drafts is not None:
            note_round(request, drafts)
            request.output_ids += [0] * (drafts + 1)
        last = number == len(rounds)
        if last or number in emitted_after:
            end = len(request.output_ids) - (cut if last else 0)
            if request.customized_info is not None:
                sent += request.customized_info[KEY][offset:end]
            offset = end
    return sent


def test_every_round_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NONCE, "n")
    choose = random.Random(1)
    for _ in range(300):
        rounds = [choose.randrange(5) for _ in range(choose.randrange(1, 9))]
        cut = choose.randint(0, rounds[-1])
        emitted = {number for number in range(len(rounds)) if choose.random() < 0.5}
        assert accepted_drafts({KEY: served(rounds, cut, emitted)}) == tuple(rounds)


def test_a_request_without_rounds_and_a_users_own_server_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NONCE, raising=False)
    assert served([2, 1], 0, {0}) == []
    assert accepted_drafts({}) == accepted_drafts({KEY: [None]}) == ()
