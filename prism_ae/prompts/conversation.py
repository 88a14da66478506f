"""A target's side of a conversation: from questions and earlier answers to the token ids it reads, and where it
ends.

Whoever asks a target, or trains something on what it reads, does it through `Conversation`: the torch engine, the
process that hosts SGLang, and the training of drafters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.errors import CheckpointError, ConfigError
from prism_ae.models.checkpoints import read_json
from prism_ae.prompts.json_lines import Problem, listed
from prism_ae.prompts.questions import Question
from prism_ae.prompts.templates import render_turn, stop_ids
from prism_ae.prompts.tokenizer import RULES, TOKENIZER, Rules, answer_text, as_damage, open_tokenizer
from prism_ae.suites.records import Template

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"

LLAMA_END = 2
"""The end token of a Llama whose config.json does not say one (null says that there is none): transformers' default,
which SGLang and everybody else who reads the folder through it ends at."""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """How one target is talked to.

    Attributes:
        folder: the target's, for messages.
        begin: the special token that the template begins with, "" if it begins with none.
        vocab_size: of the target.
        stop_id: the token that ends an answer by the template.
        end_ids: all tokens that end an answer: the template's, and the target's own ends of sequence.
    """

    folder: Path
    tokenizer: Tokenizer
    rules: Rules
    template: Template
    system_prompt: str
    begin: str
    vocab_size: int
    stop_id: int
    end_ids: frozenset[int]

    def prompt(self, users: Sequence[str], answers: Sequence[Sequence[int]]) -> list[int]:
        """Token ids of the prompt after ``answers``, given all user turns; raises CheckpointError."""
        (ids,) = self.prompts([(users, [self.answer_text(answer) for answer in answers])])
        if unknown := self.unknown(ids):
            raise CheckpointError(
                f"{self.folder / TOKENIZER} has token ids beyond the target's vocabulary: {unknown}",
                "use the tokenizer that belongs to the target",
            )
        return ids

    def prompts(self, asked: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[list[int]]:
        """Token ids of many prompts: (user turns, the answers so far as `answer_text` gives them)."""
        texts = [
            render_turn(self.template, self.system_prompt, users[: len(answers) + 1], answers)
            for users, answers in asked
        ]
        with as_damage(self.folder):
            found = self.tokenizer.encode_batch_fast(
                [text.removeprefix(self.begin) for text in texts], add_special_tokens=False
            )
        begin = [self.tokenizer.token_to_id(self.begin)] if self.begin else []
        return [begin + encoding.ids for encoding in found]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of answers that somebody wrote, without an end token: a marker inside one is text, not an end."""
        self.tokenizer.encode_special_tokens = True
        try:
            with as_damage(self.folder):
                return [one.ids for one in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        finally:
            self.tokenizer.encode_special_tokens = False

    def answer_text(self, answer: Sequence[int]) -> str:
        """An answer as it is fed back; its end tokens are no part of it."""
        ids = [token for token in answer if token not in self.end_ids]
        with as_damage(self.folder):
            return answer_text(self.tokenizer, self.rules, self.template.stop, ids)

    def unknown(self, ids: Iterable[int]) -> str:
        """The tokens that the target has no place for, "" where there are none: a tokenizer may have more."""
        beyond = dict.fromkeys(number for number in ids if number >= self.vocab_size)
        said = [f"'{self.tokenizer.id_to_token(number)}' is {number} of {self.vocab_size}" for number in beyond]
        return ", ".join(said[:3])


def open_conversation(folder: Path, template: Template, system_prompt: str) -> Conversation:
    """The conversation with the target in ``folder``.

    Raises:
        MissingError: no config.json or tokenizer.json.
        CheckpointError: a damaged one, or one that lacks the template's begin or end token.
    """
    vocab_size = _size(folder, "vocab_size")
    written = "\0".join((template.first, template.answer, template.later, *template.stop))
    tokenizer, rules = open_tokenizer(folder, written)
    begin = _begin(template, tokenizer)
    if rules.begin and rules.begin != begin:
        found = f"'{begin}'" if begin else "no special token"
        raise CheckpointError(
            f"{folder / RULES} names '{rules.begin}' as what a text begins with, template '{template.name}' begins "
            f"with {found}",
            "correct 'template' in the suite's file, or use the tokenizer that belongs to the target; where texts "
            'begin with no such token, tokenizer_config.json says "add_bos_token": false',
        )
    stops = stop_ids(template, tokenizer)
    for text, stop in zip(template.stop, stops, strict=True):
        if stop >= vocab_size:
            raise CheckpointError(
                f"{folder / TOKENIZER}: '{text}', which ends an answer in template '{template.name}', is token {stop}, "
                f"and the target has {vocab_size}: it can never write it",
                "use the tokenizer that belongs to the target",
            )
        with as_damage(folder):
            spelt = tokenizer.encode(text, add_special_tokens=False).ids
        if stop not in spelt:
            raise CheckpointError(
                f"{folder / TOKENIZER}: '{text}', which ends an answer in template '{template.name}', is in its "
                f"vocabulary and not among its added_tokens: texts with it are read as {len(spelt)} other tokens",
                "use the tokenizer.json of the target's official repository",
            )
    end_ids = frozenset({*stops, *end_of_sequence(folder)})
    return Conversation(folder, tokenizer, rules, template, system_prompt, begin, vocab_size, stops[0], end_ids)


def check_questions(conversation: Conversation, questions: Sequence[Question], where: str) -> None:
    """Raises ConfigError for questions that the target has no tokens for, naming each: before one is answered.

    Args:
        where: the file they are from, for the message.
    """
    prompts = conversation.prompts([(question.turns, [""] * (len(question.turns) - 1)) for question in questions])
    wrong = [
        Problem(f"question {question.question_id}", f"{unknown}, beyond the target's vocabulary")
        for question, ids in zip(questions, prompts, strict=True)
        if (unknown := conversation.unknown(ids))
    ]
    if wrong:
        raise ConfigError(listed(where, wrong), f"use the tokenizer that belongs to {conversation.folder}")


def max_seq_len_of(max_length: int, target: Path) -> int:
    """Most tokens of prompt and answer together: `Point.max_length`, or the target's positions where they are fewer.

    The same for every engine, drafter and draft tree, and without one, so that all of them end an answer at the same
    token: drafts beyond it are verified and not committed, and a drafter's own positions do not count.
    Raises MissingError or CheckpointError.
    """
    return min(max_length, _size(target, "max_position_embeddings"))


def _size(folder: Path, key: str) -> int:
    """A size that a target's config.json names; raises MissingError or CheckpointError."""
    size = read_json(folder / CONFIG).get(key)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CheckpointError(f"{folder / CONFIG}: {key} is {size!r}, not a positive integer")
    return size


def end_of_sequence(folder: Path) -> tuple[int, ...]:
    """The end tokens that a target's own files name, in ascending order: config.json and generation_config.json, as
    transformers and SGLang read both; raises MissingError or CheckpointError."""
    found: set[int] = set()
    for name in (CONFIG, GENERATION_CONFIG):
        path = folder / name
        if name == GENERATION_CONFIG and not path.exists():
            continue
        data = read_json(path)
        unsaid = LLAMA_END if name == CONFIG and data.get("model_type", "llama") == "llama" else None
        ids = data.get("eos_token_id", unsaid)
        for number in ids if isinstance(ids, list) else [] if ids is None else [ids]:
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise CheckpointError(
                    f"{path}: eos_token_id is {ids!r}, expected a token id, a list of them, or null",
                    "correct the file, or fetch it again",
                )
            found.add(number)
    return tuple(sorted(found))


def _begin(template: Template, tokenizer: Tokenizer) -> str:
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return max((text for text in special if template.first.startswith(text)), key=len, default="")
