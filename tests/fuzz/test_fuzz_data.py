"""Whatever a user's data file holds: its good records are used, or it is refused by one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import VALUES, amounts, bytes_of, spoiled, survives
from hypothesis import strategies as st
from tokenizer_files import CONFIG, LLAMA_2, LLAMA_2_RULES, LLAMA_3, LLAMA_3_RULES, OLD, SYSTEM, THREE

from prism_ae.prompts.conversation import check_questions, open_conversation
from prism_ae.prompts.json_lines import is_broken
from prism_ae.prompts.questions import read_questions
from prism_ae.training.examples import collate, encode, joined
from prism_ae.training.jsonl import read_conversations, write_jsonl

DEEP = (b'{"turns":' + b"[" * 960 + b"]" * 960 + b"}", b"[" * 960 + b"]" * 960, b"[" * 100_000)


@st.composite
def data_file(draw: st.DrawFn, records: list[Any]) -> bytes:
    """Records, one or two of them spoiled, as lines or as an array; or damaged bytes."""
    made = [draw(spoiled(record)) if draw(st.booleans()) else record for record in records]
    if draw(st.integers(0, 3)) == 0:
        made.append(draw(VALUES))
    lines = [json.dumps(record, ensure_ascii=draw(st.booleans())) for record in made]
    text = draw(st.sampled_from(["[" + ",\n".join(lines) + "]", "\n".join(lines), "\r\n\n".join([*lines, ""])]))
    return draw(bytes_of(text)) if draw(st.integers(0, 3)) == 0 else text.encode("utf-8", "surrogatepass")


QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["One?", "Two?"]},
    {"question_id": "b", "turns": ["Ünë?", "Zwei\u2028?"], "reference": ["x", "y"]},
]


@pytest.fixture(params=["llama-2", "llama-3"])
def target(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    two = request.param == "llama-2"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text(OLD if two else THREE)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(LLAMA_2_RULES if two else LLAMA_3_RULES))
    return tmp_path


def _conversation(target: Path) -> Any:
    rules = json.loads((target / "tokenizer_config.json").read_text())
    return open_conversation(target, LLAMA_2 if "legacy" in rules else LLAMA_3, SYSTEM)


@amounts
def test_questions(target: Path, times: int) -> None:
    file, conversation = target / "questions.jsonl", _conversation(target)

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        questions = read_questions(file, 2)
        assert questions
        assert len({question.question_id for question in questions}) == len(questions)
        for question in questions:
            assert len(question.turns) == 2
            assert not any(is_broken(text) for text in (question.question_id, *question.turns))
        check_questions(conversation, questions, str(file))

    broken = (b'{"question_id": "\\ud800", "turns": ["a", "b"]}', b'{"question_id": 1, "turns": ["a", "\\udfff"]}')
    enter(json.dumps(QUESTIONS).encode())
    survives(100 * times, data_file(QUESTIONS), enter, (*DEEP, *broken))


CONVERSATIONS = [
    {"conversations": [{"user": "One?", "assistant": "1."}, {"user": "Two?", "assistant": "2."}]},
    {"conversations": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "</s> 1 <|eot_id|>"}], "id": 3},
    {"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "é"},
                  {"role": "assistant", "content": "🙂"}]},
]  # fmt: skip


@amounts
def test_training_data(target: Path, times: int) -> None:
    file, conversation = target / "data.jsonl", _conversation(target)
    prompt = len(conversation.prompt(["One?"], []))

    def enter(case: tuple[bytes, int]) -> None:
        data, window = case
        file.write_bytes(data)
        told = read_conversations(file)
        assert told.conversations
        assert len(told.places) == len(told.conversations) <= told.records
        assert all(told.in_words())
        for one in told.conversations:
            assert one
            assert not any(is_broken(text) or not text.strip() for turn in one for text in turn)
        encoded = encode(told.conversations, conversation, window)
        examples = [example for turns in encoded.turns for example in [*turns, *joined(turns)]]
        for example in examples:
            assert 0 < example.start < len(example.ids) <= window
            assert all(0 <= number < conversation.vocab_size for number in example.ids)
            assert example.ids[-1] == conversation.stop_id or len(example.ids) == window
            assert example.ids.count(conversation.stop_id) >= len(example.between)
        if examples:
            collate(examples)
        write_jsonl(file, told.conversations)
        assert read_conversations(file).conversations == told.conversations

    enter((json.dumps(CONVERSATIONS).encode(), 4096))
    windows = st.sampled_from([1, prompt - 1, prompt, prompt + 1, prompt + 3, 4096])
    survives(100 * times, st.tuples(data_file(CONVERSATIONS), windows), enter, [(data, 9) for data in DEEP])
