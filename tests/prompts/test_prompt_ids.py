"""Token ids of prompts equal those of the authors' way: their tokenizers, their begin markers, their decoding.

Tokenizers of the two kinds are learned here. Llama-2's reference is SentencePiece itself, used as transformers' slow
tokenizer uses it; Llama-3's is transformers' own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import raises
from tokenizer_files import (
    BEGIN,
    CONFIG,
    END,
    LLAMA_2,
    LLAMA_2_RULES,
    LLAMA_3,
    LLAMA_3_RULES,
    NEW,
    NORMALIZED,
    OLD,
    PIECES,
    PLAIN,
    PREFIXED,
    SYSTEM,
    THREE,
    UNKNOWN,
    VOCABULARY,
    slow_ids,
    slow_text,
)
from tokenizers import Tokenizer

from prism_ae.errors import CheckpointError
from prism_ae.prompts.conversation import Conversation, open_conversation
from prism_ae.prompts.templates import render_turn


def fastchat(system: str, users: Sequence[str], answers: Sequence[str]) -> str:
    """FastChat's llama-2 (tests/prompts/test_templates.py compares it with the template) and the authors' space."""
    return render_turn(LLAMA_2, system, users, answers).removeprefix(BEGIN)


def authors_answer(text: str, stop: str, marks: Sequence[str]) -> str:
    """What the authors do with a decoded answer."""
    if text.find(stop) > 0:
        text = text[: text.find(stop)]
    for mark in marks:
        text = text.replace(mark, "")
    return text.strip()


JINJA = (
    "{%- for message in messages -%}{%- if loop.first -%}{{ bos_token }}{%- endif -%}"
    "{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ (message.content | trim) ~ '<|eot_id|>' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)


# --- What both are asked.

TOLD = st.sampled_from(
    [
        *("</s>", "<s>", "<unk>", "[INST]", " [/INST] ", "▁", "▁▁ ▁", "<|eot_id|>", "<|begin_of_text|>", "{user}"),
        *(
            " spaced \n",
            "\n\n  indented",
            "a  b   c",
            "naïve 日本語 🙂🙂",
            "12345 67",
            "a . b ? c ! d , e ' f",
            "\u2028\t",
        ),
        *("did n't I 'm", "it 's", "we 've you 're"),
    ]
)
TEXTS = st.lists(st.text(max_size=8) | TOLD, min_size=1, max_size=4).map("".join).filter(str.strip)
"""What a benchmark's file may hold; whitespace alone is refused there."""
ANSWERS = st.lists(st.integers(3, VOCABULARY - 1) | st.integers(0, 5), max_size=20)


def write(folder: Path, data: str, rules: dict[str, Any] | None) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(data)
    if rules is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(rules))
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Conversation]:
    def make(data: str, rules: dict[str, Any] | None, template: Any = LLAMA_2, system: str = SYSTEM) -> Conversation:
        return open_conversation(write(tmp_path_factory.mktemp("target"), data, rules), template, system)

    return make


@pytest.fixture(scope="module")
def llama_2(opened: Callable[..., Conversation]) -> dict[tuple[str, bool], Conversation]:
    files = {"old": OLD, "new": NEW, "normalized": NORMALIZED}
    return {
        (name, legacy): opened(data, LLAMA_2_RULES | {"legacy": legacy})
        for name, data in files.items()
        for legacy in (False, True)
    }


def test_the_references_two_models_differ_in_the_prefix_alone() -> None:
    assert [PREFIXED.id_to_piece(number) for number in range(PREFIXED.vocab_size())] == PIECES
    assert PIECES[:3] == [UNKNOWN, BEGIN, END]
    assert PLAIN.encode("▁[INST]") == PREFIXED.encode("[INST]") != PLAIN.encode("[INST]")


@given(system=TEXTS, one=TEXTS, two=TEXTS, told=TEXTS, more=ANSWERS)
@settings(max_examples=150, deadline=None)
def test_llama_2(llama_2: Any, system: str, one: str, two: str, told: str, more: list[int]) -> None:
    said = [*PLAIN.encode(told), *more]
    answer = authors_answer(slow_text([token for token in said if token != 2]), END, (BEGIN, END, UNKNOWN))
    for (_, legacy), conversation in llama_2.items():
        asked = dataclasses.replace(conversation, system_prompt=system)
        assert asked.prompt([one, two], []) == slow_ids(fastchat(system, [one], []), legacy)
        if answer:
            assert asked.prompt([one, two], [said]) == slow_ids(fastchat(system, [one, two], [answer]), legacy)


def through_transformers(data: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(data),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=True,
    )
    # From version 5 on it is done for BPE on request only; the authors' version does it.
    made.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    made.chat_template = JINJA
    return made


@pytest.fixture(scope="module")
def llama_3(opened: Callable[..., Conversation]) -> tuple[Conversation, Any]:
    return opened(THREE, LLAMA_3_RULES, LLAMA_3), through_transformers(THREE)


@given(system=TEXTS, one=TEXTS, two=TEXTS, told=TEXTS, more=ANSWERS)
@settings(max_examples=150, deadline=None)
def test_llama_3(
    llama_3: tuple[Conversation, Any], system: str, one: str, two: str, told: str, more: list[int]
) -> None:
    conversation, reference = llama_3
    said = [*reference.encode(told, add_special_tokens=False), *more]
    conversation = dataclasses.replace(conversation, system_prompt=system)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": one}]
    assert conversation.prompt([one, two], []) == authors_ids(reference, messages)
    ends = conversation.end_ids
    decoded = reference.decode([token for token in said if token not in ends], spaces_between_special_tokens=False)
    for mark in reference.special_tokens_map.values():
        decoded = decoded.replace(mark, "")
    messages += [{"role": "assistant", "content": decoded.strip()}, {"role": "user", "content": two}]
    assert conversation.prompt([one, two], [said]) == authors_ids(reference, messages)


def authors_ids(reference: Any, messages: list[dict[str, str]]) -> list[int]:
    """In two steps as the authors do it, which is also what one step gives."""
    text = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = reference([text], add_special_tokens=False).input_ids[0]
    at_once = reference.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)
    assert at_once["input_ids"] == ids
    return ids


# --- A wrong rule is noticed.

ASKED = ([" one\n", "two"], "it 's , a  b")
"""Two questions and an answer for which every rule matters."""


@pytest.mark.parametrize("name", ["old", "new", "normalized"])
@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("first", LLAMA_2.first.rstrip()),
        ("first", f"{BEGIN}{LLAMA_2.first}"),
        ("first", LLAMA_2.first.replace("\n{system}", " {system}")),
        ("answer", "{answer}</s>"),
        ("later", LLAMA_2.later.removeprefix(BEGIN)),
        ("later", LLAMA_2.later.rstrip()),
        ("trim", True),
    ],
)
def test_a_wrong_template_gives_other_ids(llama_2: Any, name: str, key: str, wrong: str | bool) -> None:
    users, said = ASKED
    right = slow_ids(fastchat(SYSTEM, users, [said]), legacy=False)
    conversation: Conversation = llama_2[name, False]
    assert conversation.prompt(users, [PLAIN.encode(said)]) == right
    template = dataclasses.replace(LLAMA_2, **{key: wrong})
    assert dataclasses.replace(conversation, template=template).prompt(users, [PLAIN.encode(said)]) != right


@pytest.mark.parametrize("data", [OLD, NEW, NORMALIZED], ids=["old", "new", "normalized"])
def test_what_the_rules_decide(opened: Callable[..., Conversation], data: str) -> None:
    users, said = ASKED
    answers = [PLAIN.encode(said)]
    right = slow_ids(fastchat(SYSTEM, users, [said]), legacy=False)
    assert opened(data, LLAMA_2_RULES | {"legacy": True}).prompt(users, answers) != right
    # transformers 4.40 takes a missing word for yes; in a newer file another word stands for it.
    missing = {key: value for key, value in LLAMA_2_RULES.items() if key != "legacy"}
    taken = data != NEW
    assert opened(data, missing).prompt(users, answers) == slow_ids(fastchat(SYSTEM, users, [said]), legacy=taken)
    assert opened(data, LLAMA_2_RULES | {"clean_up_tokenization_spaces": True}).prompt(users, answers) != right


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "name",
    ["LlamaTokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast", "CodeLlamaTokenizer", "NotKnownYet", None],
)
def test_the_class_that_a_folder_was_saved_with_does_not_matter(
    opened: Callable[..., Conversation], name: str | None, legacy: bool
) -> None:
    """Newer versions of transformers write other classes for the same tokenizer."""
    users, said = ASKED
    rules = {key: value for key, value in LLAMA_2_RULES.items() if key != "tokenizer_class"} | {"legacy": legacy}
    right = slow_ids(fastchat(SYSTEM, users, [said]), legacy)
    for data in (OLD, NEW, NORMALIZED):
        asked = opened(data, rules if name is None else rules | {"tokenizer_class": name})
        assert asked.prompt(users, [PLAIN.encode(said)]) == right


def test_what_the_file_says_where_its_rules_do_not(opened: Callable[..., Conversation]) -> None:
    """transformers 5 leaves ``legacy`` out and writes it as the Metaspace's ``prepend_scheme``."""
    users, said = ASKED
    rules = {key: value for key, value in LLAMA_2_RULES.items() if key != "legacy"}
    for scheme, legacy in (("first", False), ("always", True)):
        data = json.loads(NEW)
        data["pre_tokenizer"]["prepend_scheme"] = scheme
        right = slow_ids(fastchat(SYSTEM, users, [said]), legacy)
        assert opened(json.dumps(data), rules).prompt(users, [PLAIN.encode(said)]) == right
    data["pre_tokenizer"]["prepend_scheme"] = "never"
    with raises(CheckpointError, "tokenizer.json"):
        opened(json.dumps(data), rules)


def test_saved_again_by_transformers_it_is_the_same_tokenizer(tmp_path: Path) -> None:
    """Read by the installed version and saved by it, a folder gives the ids that it gave before."""
    from transformers import AutoTokenizer

    users, said = ASKED
    for name, data in (("new", NEW), ("old", OLD)):
        for folder in (tmp_path / name, tmp_path / f"{name}-again"):
            folder.mkdir()
        marks = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
        rules = LLAMA_2_RULES | marks | {"model_max_length": 4096, "added_tokens_decoder": added(data)}
        write(tmp_path / name, data, rules)
        AutoTokenizer.from_pretrained(tmp_path / name).save_pretrained(tmp_path / f"{name}-again")
        again = tmp_path / f"{name}-again"
        assert json.loads((again / "tokenizer_config.json").read_text()) != rules
        (again / "config.json").write_text(json.dumps(CONFIG))
        for folder in (tmp_path / name, again):
            ids = open_conversation(folder, LLAMA_2, SYSTEM).prompt(users, [PLAIN.encode(said)])
            assert ids == slow_ids(fastchat(SYSTEM, users, [said]), legacy=False), folder


def added(data: str) -> dict[str, Any]:
    """What tokenizer_config.json says of the tokens that were added."""
    return {
        str(token["id"]): {"content": token["content"], "special": True} for token in json.loads(data)["added_tokens"]
    }


def test_rules_of_another_tokenizer_are_refused(opened: Callable[..., Conversation]) -> None:
    named = added(OLD)
    opened(OLD, LLAMA_2_RULES | {"added_tokens_decoder": named})
    for number, text in (("2", "</end>"), ("700", "<|im_start|>"), ("x", "<s>")):
        wrong = named | {number: {"content": text}}
        with raises(CheckpointError, "tokenizer_config.json", number):
            opened(OLD, LLAMA_2_RULES | {"added_tokens_decoder": wrong})


def test_a_begin_marker_inside_the_text_would_lose_the_first_prefix() -> None:
    """Why the marker is not part of what is encoded: newer files take it for the beginning."""
    text = fastchat(SYSTEM, ["one"], [])
    newer = Tokenizer.from_str(NEW)
    assert newer.encode(BEGIN + text, add_special_tokens=False).ids != slow_ids(text, legacy=False)
    assert newer.encode(text).ids == slow_ids(text, legacy=False)


def test_an_answer_cut_inside_a_character(opened: Callable[..., Conversation]) -> None:
    said = PLAIN.encode("🙂🙂")[:-2]
    right = slow_ids(fastchat(SYSTEM, ["one", "two"], ["🙂\ufffd\ufffd"]), legacy=False)
    assert opened(OLD, LLAMA_2_RULES).prompt(["one", "two"], [said]) == right
    # tokenizers' own decoder drops the whole one too.
    assert "🙂" not in Tokenizer.from_str(OLD).decode(said)


@pytest.mark.parametrize(
    ("told", "left"), [("ab</s>cd", "ab"), ("<s>ab<unk>", "ab"), ("</s>ab", "ab"), ("a<s>b", "ab")]
)
def test_markers_written_letter_by_letter(opened: Callable[..., Conversation], told: str, left: str) -> None:
    conversation = opened(OLD, LLAMA_2_RULES)
    assert not {0, 1, 2} & set(PLAIN.encode(told))
    assert conversation.prompt(["one", "two"], [PLAIN.encode(told)]) == conversation.prompt(
        ["one", "two"], [PLAIN.encode(left)]
    )


def test_cutting_and_padding_that_a_file_asks_for_are_not_done(opened: Callable[..., Conversation]) -> None:
    tokenizer = Tokenizer.from_str(THREE)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=4000)
    plain = opened(THREE, LLAMA_3_RULES, LLAMA_3).prompt(["one"], [])
    assert opened(tokenizer.to_str(), LLAMA_3_RULES, LLAMA_3).prompt(["one"], []) == plain
    assert len(plain) > 8


def test_a_template_that_lacks_the_begin_marker_is_refused(opened: Callable[..., Conversation]) -> None:
    template = dataclasses.replace(LLAMA_2, first=LLAMA_2.first.removeprefix(BEGIN))
    with raises(CheckpointError, "'<s>'", template.name):
        opened(OLD, LLAMA_2_RULES, template)
    with raises(CheckpointError, "'<s>'", "'</s>'"):
        opened(OLD, LLAMA_2_RULES, dataclasses.replace(LLAMA_2, first=END + LLAMA_2.first))


def test_a_file_that_treats_spaces_in_a_way_not_known_is_refused(opened: Callable[..., Conversation]) -> None:
    data = json.loads(OLD)
    data["normalizer"]["normalizers"].reverse()
    with raises(CheckpointError, "tokenizer.json"):
        opened(json.dumps(data), LLAMA_2_RULES)
    splits = json.loads(NEW)
    splits["pre_tokenizer"]["split"] = True
    with raises(CheckpointError, "tokenizer.json"):
        opened(json.dumps(splits), LLAMA_2_RULES)
    for file in (OLD, NEW):
        with raises(CheckpointError, "tokenizer_config.json"):
            opened(file, None)
    # A byte-level one has no prefix to disagree about.
    rules = LLAMA_3_RULES | {"tokenizer_class": "LlamaTokenizerFast"}
    expected = opened(THREE, LLAMA_3_RULES, LLAMA_3).prompt(["one"], [])
    assert opened(THREE, rules, LLAMA_3).prompt(["one"], []) == expected
    assert opened(THREE, None, LLAMA_3).prompt(["one"], []) == expected


@pytest.mark.parametrize("data", ["{}", "[]", '{"normalizer": "▁"}', '{"added_tokens": 1, "normalizer": null}', "x"])
@pytest.mark.parametrize("rules", [LLAMA_2_RULES, LLAMA_3_RULES])
def test_a_damaged_file_is_refused(opened: Callable[..., Conversation], data: str, rules: Any) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        opened(data, rules)


@pytest.mark.parametrize("marker", [1, {}, {"content": None}, "", ["<s>"]])
def test_damaged_rules_are_refused(opened: Callable[..., Conversation], marker: Any) -> None:
    with raises(CheckpointError, "tokenizer_config.json", "bos_token"):
        opened(OLD, LLAMA_2_RULES | {"bos_token": marker})


def test_an_end_token_that_the_target_cannot_write_is_refused(tmp_path: Path) -> None:
    data = json.loads(THREE)
    data["added_tokens"].append(dict(data["added_tokens"][0]) | {"id": VOCABULARY, "content": "<|end|>"})
    template = dataclasses.replace(LLAMA_3, stop=("<|end|>",))
    folder = write(tmp_path, json.dumps(data), LLAMA_3_RULES)
    token = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|end|>")
    for size in (token + 1, token):
        (folder / "config.json").write_text(json.dumps({"vocab_size": size}))
        if size > token:
            assert open_conversation(folder, template, SYSTEM).stop_id == token
    with pytest.raises(CheckpointError, match=rf"'<\|end\|>'.* token {token}, "):
        open_conversation(folder, template, SYSTEM)


def test_an_end_token_that_is_spelt_in_letters_is_refused(tmp_path: Path) -> None:
    """As in a file that was made from a vocabulary alone: it is in there, and no text ever becomes it."""
    data = json.loads(THREE)
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<|eot_id|>"]
    assert "<|eot_id|>" in data["model"]["vocab"]
    with pytest.raises(CheckpointError, match=r"'<\|eot_id\|>'.* added_tokens"):
        open_conversation(write(tmp_path, json.dumps(data), LLAMA_3_RULES), LLAMA_3, SYSTEM)


def test_markers_are_special_whatever_the_file_says(tmp_path: Path) -> None:
    data = json.loads(THREE)
    for token in data["added_tokens"]:
        token["special"] = False
    data["added_tokens"].append(dict(data["added_tokens"][0]) | {"id": 600, "content": "wordlike", "special": False})
    talk = open_conversation(write(tmp_path, json.dumps(data), LLAMA_3_RULES), LLAMA_3, SYSTEM)
    (ids,) = talk.answers(["It <|eot_id|> is <|start_header_id|> wordlike."])
    assert not set(ids) & {talk.tokenizer.token_to_id(name) for name in ("<|eot_id|>", "<|start_header_id|>")}
    assert talk.tokenizer.token_to_id("wordlike") in ids  # what is no marker is a token of answers too
    assert talk.stop_id in talk.prompt(["a"], [])


def test_a_tokenizer_that_cuts_by_chance_does_not_here(tmp_path: Path) -> None:
    data = json.loads(THREE)
    data["model"]["dropout"] = 0.5
    by_chance = open_conversation(write(tmp_path, json.dumps(data), LLAMA_3_RULES), LLAMA_3, SYSTEM)
    steady = open_conversation(write(tmp_path, THREE, LLAMA_3_RULES), LLAMA_3, SYSTEM)
    for _ in range(5):
        assert by_chance.prompt(["What is 1 + 2?"], []) == steady.prompt(["What is 1 + 2?"], [])


@pytest.mark.parametrize("data", [OLD, NEW], ids=["old", "new"])
def test_a_prefix_that_is_not_wanted_is_refused(opened: Callable[..., Conversation], data: str) -> None:
    for said in (True, None):
        opened(data, LLAMA_2_RULES | {"add_prefix_space": said})
    with pytest.raises(CheckpointError, match="add_prefix_space"):
        opened(data, LLAMA_2_RULES | {"add_prefix_space": False})
