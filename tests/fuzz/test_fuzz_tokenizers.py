"""Whatever a tokenizer's files say: texts become ids and ids texts, or the folder is refused by one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import VALUES, amounts, bytes_of, spoiled, survives
from hypothesis import strategies as st
from tokenizer_files import CONFIG, LLAMA_2, LLAMA_2_RULES, LLAMA_3, LLAMA_3_RULES, NEW, OLD, SYSTEM, THREE

from prism_ae.errors import CheckpointError
from prism_ae.prompts.conversation import open_conversation

KINDS = {
    "prepend": (OLD, LLAMA_2_RULES, LLAMA_2),
    "metaspace": (NEW, LLAMA_2_RULES, LLAMA_2),
    "bytes": (THREE, LLAMA_3_RULES, LLAMA_3),
}
WHOLE = ("vocab", "merges")
"""Parts of a tokenizer.json that are long and all alike: replaced as a whole, and one of their entries."""

LETTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(LETTERS, max_size=12) | st.sampled_from(
    ["", "<s>", "a</s>b", "<|eot_id|>", "🙂" * 3, "\0", "▁ ▁", "\n " * 9]
)


@st.composite
def tokenizer_json(draw: st.DrawFn, text: str) -> bytes:
    data = json.loads(text)
    if draw(st.integers(0, 4)) == 0:
        return draw(bytes_of(text))
    if draw(st.integers(0, 3)) == 0:
        vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
        piece = draw(st.sampled_from(sorted(vocabulary)))
        match draw(st.sampled_from(["id", "far", "name", "gone", "merge", "merges"])):
            case "id":
                vocabulary[piece] = draw(VALUES)
            case "far":
                vocabulary[piece] = draw(st.sampled_from([2**31, 2**32 - 1, 10**6, 0]))
            case "name":
                vocabulary[draw(st.text(max_size=3))] = vocabulary.pop(piece)
            case "gone":
                del vocabulary[piece]
            case "merge":
                merges[draw(st.integers(0, len(merges) - 1))] = draw(VALUES)
            case _:
                merges.insert(draw(st.integers(0, len(merges))), [piece, draw(st.sampled_from(sorted(vocabulary)))])
        return json.dumps(data).encode()
    return json.dumps(draw(spoiled(data, WHOLE))).encode()


def _merged(text: str, **changes: Any) -> bytes:
    return json.dumps(json.loads(text) | changes).encode()


@amounts
@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers(tmp_path: Path, kind: str, times: int) -> None:
    text, rules, template = KINDS[kind]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    def enter(case: tuple[bytes, bytes | None, list[str], list[str], list[int]]) -> None:
        file, rule, users, answers, said = case
        (tmp_path / "tokenizer.json").write_bytes(file)
        (tmp_path / "tokenizer_config.json").unlink(missing_ok=True)
        if rule is not None:
            (tmp_path / "tokenizer_config.json").write_bytes(rule)
        conversation = open_conversation(tmp_path, template, SYSTEM)
        ids = conversation.prompt(users, [said] * (len(users) - 1))
        assert all(0 <= number < conversation.vocab_size for number in ids)
        found = conversation.answers(answers)
        assert len(found) == len(answers)
        assert all(isinstance(conversation.answer_text(one), str) for one in found)

    named = {"added_tokens_decoder": {"0": {"content": "<unk>"}}, "add_bos_token": True}
    good = st.just(json.dumps(rules).encode())
    bad = spoiled(rules | (named if kind != "bytes" else {})).map(lambda data: json.dumps(data).encode())
    conversation = (
        st.lists(TEXTS, min_size=1, max_size=2),
        st.lists(TEXTS, max_size=2),
        st.lists(st.integers(0, CONFIG["vocab_size"] + 3), max_size=6),
    )
    enter((text.encode(), json.dumps(rules).encode(), ["One?", "Two?"], ["</s>", "1"], [7, 8]))
    survives(
        60 * times,
        st.tuples(tokenizer_json(text), st.none() | good | good | good, *conversation)
        | st.tuples(st.just(text.encode()), bad | bytes_of(json.dumps(rules)), *conversation),
        enter,
    )


@pytest.mark.parametrize(
    "changes",
    [{"continuing_subword_prefix": "1234"}, {"continuing_subword_prefix": "é" * 9}, {"merges": [["▁", "\ud7ff"]]}],
)
def test_what_the_library_panics_at(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A panic of its Rust code is no Exception: it would pass by everything that ends a command with a message."""
    data = json.loads(OLD)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(LLAMA_2_RULES))
    (tmp_path / "tokenizer.json").write_text(json.dumps(data | {"model": data["model"] | changes}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be used"):
        open_conversation(tmp_path, LLAMA_2, SYSTEM)
