"""A byte-level BPE tokenizer per target, learned from the training conversations.

The special tokens are those that the target's template is written with, so that a prompt rendered for evaluation and a
conversation rendered for training become the same ids. No tokenizer here adds anything by itself: begin markers are
part of the template's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from prism_ae.mini.corpus import Conversation
from prism_ae.prompts.templates import render_turn
from prism_ae.suites.records import Template

TOKENIZER = "tokenizer.json"
_SPECIAL = re.compile(r"</?s>|\[/?INST\]|<</?SYS>>|<\|\w+\|>")


def special_tokens(template: Template) -> tuple[str, ...]:
    """The markers in a template's pieces and its stop texts, in order of appearance: one token each."""
    texts = [*_SPECIAL.findall(template.first + template.answer + template.later), *template.stop]
    return tuple(dict.fromkeys(texts))


def train_tokenizer(
    data: Sequence[Conversation], template: Template, system: str, vocabulary: int, *, single_digits: bool
) -> Tokenizer:
    """Learn a tokenizer from rendered conversations; the same data gives the same tokenizer.

    Args:
        vocabulary: most tokens it may have, special ones included; fewer if the data do not hold enough pairs.
        single_digits: a token per digit, as Llama-2 has it; otherwise a number can be one token, as in Llama-3.
    """
    tokenizer = Tokenizer(models.BPE())
    bytes_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split = [pre_tokenizers.Digits(individual_digits=True), bytes_level] if single_digits else [bytes_level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in special_tokens(template)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(data, template, system), trainer)
    return tokenizer


def _texts(data: Sequence[Conversation], template: Template, system: str) -> Iterator[str]:
    """What lies between special tokens, which are tokens already."""
    for conversation in data:
        users, answers = zip(*conversation, strict=True)
        yield from _SPECIAL.split(render_turn(template, system, users, answers[:-1]))
        yield answers[-1]


def save_tokenizer(folder: Path, tokenizer: Tokenizer, template: Template, max_seq_len: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, so that transformers' ``AutoTokenizer`` reads them."""
    (folder / TOKENIZER).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    special = special_tokens(template)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[0],
        "eos_token": template.stop[0],
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
