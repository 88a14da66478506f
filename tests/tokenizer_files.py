"""Tokenizers of the kinds that targets have, learned here: Llama-2's, with SentencePiece's own model as the
reference, and Llama-3's."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

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
