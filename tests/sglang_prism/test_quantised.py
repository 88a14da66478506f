"""Quantised targets, with the GPU kernels of their layers in Triton's interpreter: minutes."""

from __future__ import annotations

from typing import Any

import pytest
from sglang_prism.http_place import HttpPlace, make_http_place
from sglang_prism.http_servers import start
from stand_in_process import needs_sglang

pytestmark = [pytest.mark.heavy, needs_sglang]

PROMPTS = ["the hand", "12 and 123", "on the "]
FP8 = ("--quantization", "fp8", "--dtype", "bfloat16")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> HttpPlace:
    return make_http_place(tmp_path_factory.mktemp("models"))


TIE = 0.25
"""Difference of log-probabilities that rounding explains: logits of bfloat16 near 16 are an eighth apart."""


def answers(place: HttpPlace, drafter: str | None, *options: str) -> list[dict[str, Any]]:
    """One request after the other, with the likeliest tokens at each place."""
    wants = {"temperature": 0, "max_new_tokens": 12}
    with start(place, drafter, *options) as server:
        return [
            server.post(
                "/generate",
                {"text": prompt, "sampling_params": wants, "return_logprob": True, "top_logprobs_num": 3},
            ).body
            for prompt in PROMPTS
        ]


def alike(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """The same tokens, or up to a place where the target's two likeliest are tied."""
    pairs = zip(found["output_ids"], expected["output_ids"], strict=False)
    place = next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    if place is None:
        return bool(found["output_ids"] == expected["output_ids"])
    top = {token: value for value, token, _ in expected["meta_info"]["output_top_logprobs"][place]}
    ours, theirs = found["output_ids"][place], expected["output_ids"][place]
    return ours in top and top[theirs] - top[ours] <= TIE


def test_a_target_quantised_on_the_command_line_is_drafted_for(
    place: HttpPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its drafter stays as it is stored, unless the user has it quantised, too; the texts are the target's either way,
    up to ties of half precision."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    expected = answers(place, None, *FP8)
    for options in ((), ("--speculative-draft-model-quantization", "fp8")):
        found = answers(place, "prism", *FP8, *options)
        assert all(alike(*pair) for pair in zip(found, expected, strict=True))
        assert sum(ours["text"] == theirs["text"] for ours, theirs in zip(found, expected, strict=True)) >= 2
        assert sum(one["meta_info"]["spec_num_correct_drafts"] for one in found) > 0
