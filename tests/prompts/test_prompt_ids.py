"""Token ids of prompts equal those of the authors' way: their tokenizers, their begin markers, their decoding.

Tokenizers of the two kinds are learned here. Llama-2's reference is SentencePiece itself, used as transformers' slow
tokenizer uses it; Llama-3's is transformers' own.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from prism_ae.errors import CheckpointError
from prism_ae.prompts.conversation import Conversation, open_conversation
from prism_ae.prompts.templates import render_turn
from prism_ae.suites.load import load_suite

sentencepiece = pytest.importorskip("sentencepiece")

PAPER = load_suite("paper")
LLAMA_2, LLAMA_3, SYSTEM = PAPER.templates["llama-2-chat"], PAPER.templates["llama-3"], PAPER.system_prompt
VOCABULARY = 700
LINES = [line for text in (SYSTEM, __doc__, json.dumps(PAPER.benchmarks, default=str)) for line in text.split("\n")]
CONFIG = {"vocab_size": VOCABULARY, "eos_token_id": 2}

# --- Llama-2: SentencePiece, and a tokenizer.json that imitates it.

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
LLAMA_2_RULES: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": {"content": BEGIN},
    "eos_token": {"content": END},
    "unk_token": {"content": UNKNOWN},
    "pad_token": None,
    "clean_up_tokenization_spaces": False,
    "legacy": False,
}


def learn(prefix: bool) -> Any:
    """A SentencePiece model; with ``prefix`` it puts "▁" before every text, without it the texts to learn have one."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line if prefix else f" {line}" for line in LINES if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        add_dummy_prefix=prefix,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


PLAIN, PREFIXED = learn(prefix=False), learn(prefix=True)
PIECES = [PLAIN.id_to_piece(number) for number in range(PLAIN.vocab_size())]


def slow_ids(text: str, legacy: bool) -> list[int]:
    """Special tokens are found in the text, SentencePiece gets what lies between. ``legacy`` gives it every part as a
    text of its own, otherwise "▁" is put at the very beginning."""
    ids = [1]
    for part in re.split(f"({UNKNOWN}|{BEGIN}|{END})", text if legacy else f"▁{text}"):
        if part in (UNKNOWN, BEGIN, END):
            ids.append(PIECES.index(part))
        elif part:
            ids += (PREFIXED if legacy else PLAIN).encode(part)
    return ids


def slow_text(ids: Sequence[int]) -> str:
    """Special tokens as they are written, SentencePiece's text of what lies between."""
    text, run = "", []
    for number in ids:
        if number < 3:
            text, run = text + PLAIN.decode(run) + PIECES[number], []
        else:
            run.append(number)
    return text + PLAIN.decode(run)


def llama_2_json(newer: bool, normalized: bool = False) -> str:
    """tokenizer.json with SentencePiece's pieces, merged in the order in which they were learned."""
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in PIECES
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(text, normalized=normalized) for text in (UNKNOWN, BEGIN, END)])
    template = {"single": f"{BEGIN} $A", "pair": f"{BEGIN} $A {BEGIN} $B", "special_tokens": [(BEGIN, 1)]}
    tokenizer.post_processor = processors.TemplateProcessing(**template)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    data = json.loads(tokenizer.to_str())
    if newer:
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    else:
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    return json.dumps(data)


OLD, NEW, NORMALIZED = llama_2_json(False), llama_2_json(True), llama_2_json(False, normalized=True)


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


# --- Llama-3: byte-level BPE, by transformers.

LLAMA_3_RULES = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|eot_id|>",
    "clean_up_tokenization_spaces": True,
}
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
JINJA = (
    "{%- for message in messages -%}{%- if loop.first -%}{{ bos_token }}{%- endif -%}"
    "{{ '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ (message.content | trim) ~ '<|eot_id|>' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)


def llama_3_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id", "reserved_special_token_0")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(f"<|{name}|>", normalized=False) for name in names],
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    return tokenizer.to_str()


THREE = llama_3_json()


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
    (folder / "tokenizer.json").write_text(data)
    if rules is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(rules))
    return folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Conversation]:
    def make(data: str, rules: dict[str, Any] | None, template: Any = LLAMA_2, system: str = SYSTEM) -> Conversation:
        return open_conversation(write(tmp_path_factory.mktemp("target"), data, rules), CONFIG, template, system)

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
    # transformers 4.40 takes a missing word for yes.
    missing = {key: value for key, value in LLAMA_2_RULES.items() if key != "legacy"}
    assert opened(data, missing).prompt(users, answers) == slow_ids(fastchat(SYSTEM, users, [said]), legacy=True)
    assert opened(data, LLAMA_2_RULES | {"clean_up_tokenization_spaces": True}).prompt(users, answers) != right


def test_the_old_file_as_it_stands_gives_other_ids_in_the_second_turn(
    opened: Callable[..., Conversation],
) -> None:
    users, said = ASKED
    as_it_stands = opened(OLD, LLAMA_2_RULES | {"tokenizer_class": "PreTrainedTokenizerFast"})
    assert as_it_stands.prompt(users, []) == slow_ids(fastchat(SYSTEM, users[:1], []), legacy=False)
    assert as_it_stands.prompt(users, [PLAIN.encode(said)]) != slow_ids(fastchat(SYSTEM, users, [said]), legacy=False)


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
    with pytest.raises(CheckpointError, match=r"names '<s>' .* begins with no special token"):
        opened(OLD, LLAMA_2_RULES, template)
    with pytest.raises(CheckpointError, match=r"names '<s>' .* begins with '</s>'"):
        opened(OLD, LLAMA_2_RULES, dataclasses.replace(LLAMA_2, first=END + LLAMA_2.first))


def test_a_file_that_treats_spaces_in_a_way_not_known_is_refused(opened: Callable[..., Conversation]) -> None:
    data = json.loads(OLD)
    data["normalizer"]["normalizers"].reverse()
    with pytest.raises(CheckpointError, match="how it treats spaces is not known"):
        opened(json.dumps(data), LLAMA_2_RULES)
    for file in (OLD, NEW):
        with pytest.raises(CheckpointError, match=r"tokenizer_config\.json does not exist; it says where"):
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
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: 'bos_token' must be a text"):
        opened(OLD, LLAMA_2_RULES | {"bos_token": marker})
