"""Prompts equal what the reference formats make of the same conversation, letter by letter."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import raises

from prism_ae.errors import CheckpointError
from prism_ae.prompts.templates import render_turn, stop_ids
from prism_ae.sglang_prism.stand_ins.paths import stand_in_paths
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Template

PAPER = load_suite("paper")
LLAMA_2, LLAMA_3 = PAPER.templates["llama-2-chat"], PAPER.templates["llama-3"]


def fastchat(system: str, users: list[str], answers: list[str]) -> str:
    """FastChat's "llama-2" separator style, from its description: a tag, a message and a separator per message.

    System text replaces the first tag; user and assistant messages are separated differently; a turn that is still to
    be answered is its bare tag. The authors add one space, and tokenize with a begin marker.
    """
    messages = [text for pair in zip(users, [*answers, None], strict=True) for text in pair]
    prompt = "[INST] <<SYS>>\n" + system + "\n<</SYS>>\n\n"
    for number, message in enumerate(messages):
        tag, separator = (("[INST]", " "), ("[/INST]", " </s><s>"))[number % 2]
        if message is None:
            prompt += tag
        elif number == 0:
            prompt += message + separator
        else:
            prompt += tag + " " + message + separator
    return "<s>" + prompt + " "


SGLANGS = """
import json, sys
from sglang.srt.parser.conversation import chat_templates
for system, users, answers in json.load(sys.stdin):
    conversation = chat_templates["llama-2"].copy()
    conversation.system_message = system
    for user, answer in zip(users, [*answers, None]):
        conversation.append_message(conversation.roles[0], user)
        conversation.append_message(conversation.roles[1], answer)
    print(json.dumps(conversation.get_prompt()))
"""
"""SGLang has a copy of FastChat's conversations."""


@pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed")
def test_fastchat_as_described_here_is_fastchat() -> None:
    odd = [PAPER.system_prompt, " a \n", "{system_message} {}", "[INST] </s><s>", "\u2028 日本", "x"]
    asked = [
        (system, odd[first : first + turns], odd[: turns - 1])
        for system in odd
        for first in range(3)
        for turns in (1, 2, 3)
    ]
    paths = [*map(str, stand_in_paths()), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"PYTHONPATH": os.pathsep.join(paths), "SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", SGLANGS],
        env={**os.environ, **settings},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    written = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('"')]
    assert [f"<s>{prompt} " for prompt in written] == [fastchat(*each) for each in asked]


LLAMA_3_JINJA = (
    "{%- for message in messages -%}"
    "{%- if loop.first -%}{{ bos_token }}{%- endif -%}"
    "{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ (message.content | trim) ~ '<|eot_id|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)
"""What the published Llama-3-Instruct template does, in our own words: trimmed messages between headers."""


@pytest.fixture(scope="module")
def llama_3_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, "x")), bos_token="<|begin_of_text|>"
    )


def messages(system: str, users: list[str], answers: list[str]) -> list[dict[str, str]]:
    listed = [{"role": "system", "content": system}]
    for user, answer in zip(users, [*answers, None], strict=True):
        listed.append({"role": "user", "content": user})
        if answer is not None:
            listed.append({"role": "assistant", "content": answer.strip()})
    return listed


texts = st.text(min_size=1, max_size=40) | st.sampled_from(
    ["{user}", "{answer} {system}", "\\1", " spaced \n", "[INST] [/INST]", "%s {0}", "</s>"]
)
conversations = st.lists(st.tuples(texts, texts.filter(str.strip)), min_size=1, max_size=3).map(
    lambda turns: ([user for user, _ in turns], [answer for _, answer in turns][:-1])
)


@given(system=texts, conversation=conversations)
@settings(max_examples=200, deadline=None)
def test_llama_2_equals_fastchat(system: str, conversation: tuple[list[str], list[str]]) -> None:
    users, answers = conversation
    assert render_turn(LLAMA_2, system, users, answers) == fastchat(system, users, [a.strip() for a in answers])


@given(system=texts, conversation=conversations)
@settings(max_examples=200, deadline=None)
def test_llama_3_equals_the_chat_template(llama_3_tokenizer, system: str, conversation) -> None:
    users, answers = conversation
    expected = llama_3_tokenizer.apply_chat_template(
        messages(system, users, answers), chat_template=LLAMA_3_JINJA, tokenize=False, add_generation_prompt=True
    )
    assert render_turn(LLAMA_3, system, users, answers) == expected


def test_the_two_turn_texts_as_a_reader_would_write_them() -> None:
    assert render_turn(LLAMA_2, "S", ["one"], []) == "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\none [/INST] "
    assert render_turn(LLAMA_2, "S", ["one", "two"], ["  answer\n"]) == (
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\none [/INST] answer </s><s>[INST] two [/INST] "
    )
    assert render_turn(LLAMA_3, "S", ["one", "two\n"], ["answer\n"]) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\none<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nanswer<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\ntwo<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_prompt_is_the_beginning_of_the_next_turns_prompt() -> None:
    """An engine may keep the keys and values of turn one only because of this."""
    for template in (LLAMA_2, LLAMA_3):
        first = render_turn(template, "S", ["one"], [])
        assert render_turn(template, "S", ["one", "two"], ["answer"]).startswith(first + "answer")


@pytest.mark.parametrize(("users", "answers"), [([], []), (["a"], ["b"]), (["a", "b"], []), (["a"], ["b", "c"])])
def test_turns_and_answers_must_alternate(users: list[str], answers: list[str]) -> None:
    with raises(ValueError, len(users), len(answers)):
        render_turn(LLAMA_2, "S", users, answers)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("first", LLAMA_2.first.rstrip()),
        ("first", LLAMA_2.first.removeprefix("<s>")),
        ("answer", "{answer}</s>"),
        ("later", LLAMA_2.later.removeprefix("<s>")),
        ("trim", True),
    ],
)
def test_the_reference_notices_a_wrong_template(key: str, wrong: str | bool) -> None:
    template = dataclasses.replace(LLAMA_2, **{key: wrong})
    users, answers = ["one\n", "two"], ["answer"]
    assert render_turn(template, "S", users, answers) != fastchat("S", users, answers)


class Words:
    def __init__(self, *words: str) -> None:
        self.words = words

    def token_to_id(self, token: str) -> int | None:
        return self.words.index(token) if token in self.words else None


def test_stop_ids_in_the_templates_order() -> None:
    assert stop_ids(LLAMA_3, Words("<|end_of_text|>", "x", "<|eot_id|>")) == (2, 0)


def test_a_tokenizer_without_the_end_token_is_refused() -> None:
    with raises(CheckpointError, "'</s>'", "llama-2-chat"):
        stop_ids(LLAMA_2, Words("<|eot_id|>"))


def test_mini_templates_are_the_papers() -> None:
    mini = load_suite("mini").templates
    for name, template in PAPER.templates.items():
        assert dataclasses.replace(mini[name], stop=()) == dataclasses.replace(template, stop=())


def test_a_template_without_trim_keeps_whitespace() -> None:
    plain = Template(name="plain", first="{system}|{user}", later="{user}", answer="{answer}", stop=("e",))
    assert render_turn(plain, " s ", [" u "], []) == " s | u "
