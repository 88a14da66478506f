"""Other options than the usual ones: the texts stay those without drafts. Minutes: each is a start of a server."""

from __future__ import annotations

import pytest
from sglang_prism.http_place import HttpPlace, make_http_place
from sglang_prism.http_servers import Case, start
from stand_in_process import needs_sglang

pytestmark = [pytest.mark.heavy, needs_sglang]

PROMPTS = ("ab", "hello the", "x", "1", "{", "Q: w", "Zebra", "and so on the other hand in 123 the end again")


def tree(steps: int, branch: int, verified: int) -> list[str]:
    names = ("--speculative-num-steps", "--speculative-eagle-topk", "--speculative-num-draft-tokens")
    return [word for pair in zip(names, map(str, (steps, branch, verified)), strict=True) for word in pair]


STARTS = {
    "chunked prefill": ["--chunked-prefill-size", "16"],
    "mixed chunk": ["--chunked-prefill-size", "16", "--enable-mixed-chunk"],
    "two of it": ["--dp-size", "2"],
    "a large tree": tree(6, 10, 60),
    "a chain": tree(3, 1, 4),
    "one step": tree(1, 4, 5),
    "no prefix cache": ["--disable-radix-cache"],
    "the other attention mode": ["--speculative-attention-mode", "decode"],
    "adaptive, which PRISM is not": ["--speculative-adaptive", *tree(3, 1, 4)],
    "few at a time": ["--max-running-requests", "2"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> HttpPlace:
    return make_http_place(tmp_path_factory.mktemp("models"))


def texts(place: HttpPlace, drafter: str | None, options: list[str]) -> tuple[list[str], int]:
    """What is written to the prompts, and how many drafts were accepted."""
    wants = {"temperature": 0, "max_new_tokens": 40}
    cases = [Case(prompt, "/generate", {"text": prompt, "sampling_params": wants}) for prompt in PROMPTS]
    with start(place, drafter, *options) as server:
        bodies = [answer.body for answer in server.answers(cases).values()]
    return [body["text"] for body in bodies], sum(body["meta_info"].get("spec_accepted_drafts", 0) for body in bodies)


@pytest.fixture(scope="module")
def expected(place: HttpPlace) -> list[str]:
    return texts(place, None, [])[0]


@pytest.mark.parametrize("name", STARTS)
def test_the_texts_are_those_without_drafts(name: str, place: HttpPlace, expected: list[str]) -> None:
    found, accepted = texts(place, "prism", STARTS[name])
    assert found == expected
    assert accepted > 0
