"""A target's side of a conversation: from questions and earlier answers to the token ids it reads, and where it
ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError
from prism_ae.prompts.templates import render_turn, stop_ids
from prism_ae.prompts.tokenizer import RULES, TOKENIZER, Rules, answer_text, read_rules, read_tokenizer
from prism_ae.suites.records import Template

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Conversation:
    """How one target is talked to.

    Attributes:
        folder: the target's, for messages.
        begin: the special token that the template begins with, "" if it begins with none.
        vocab_size: of the target.
        end_ids: tokens that end an answer: the template's, and the target's own end of sequence.
    """

    folder: Path
    tokenizer: Tokenizer
    rules: Rules
    template: Template
    system_prompt: str
    begin: str
    vocab_size: int
    end_ids: frozenset[int]

    def prompt(self, users: Sequence[str], answers: Sequence[Sequence[int]]) -> list[int]:
        """Token ids of the prompt after ``answers``, given all user turns; raises CheckpointError."""
        texts = [self._text(answer) for answer in answers]
        text = render_turn(self.template, self.system_prompt, users[: len(answers) + 1], texts)
        ids: list[int] = self.tokenizer.encode(text.removeprefix(self.begin), add_special_tokens=False).ids
        if self.begin:
            ids.insert(0, self.tokenizer.token_to_id(self.begin))
        if max(ids) >= self.vocab_size:
            raise CheckpointError(
                f"{self.folder / TOKENIZER} has token ids beyond the target's vocabulary",
                "use the tokenizer that belongs to the target",
            )
        return ids

    def _text(self, answer: Sequence[int]) -> str:
        ids = [token for token in answer if token not in self.end_ids]
        return answer_text(self.tokenizer, self.rules, self.template.stop, ids)


def open_conversation(folder: Path, config: dict[str, Any], template: Template, system_prompt: str) -> Conversation:
    """The conversation with the target in ``folder``, whose config.json says ``config``.

    Raises:
        MissingError: no tokenizer.json.
        CheckpointError: a damaged one, or one that lacks the template's begin or end token.
    """
    rules = read_rules(folder)
    tokenizer = read_tokenizer(folder, rules)
    begin = _begin(template, tokenizer)
    if rules.begin and rules.begin != begin:
        found = f"'{begin}'" if begin else "no special token"
        raise CheckpointError(
            f"{folder / RULES} names '{rules.begin}' as what a text begins with, template '{template.name}' begins "
            f"with {found}",
            "correct 'template' in the suite's file, or use the tokenizer that belongs to the target",
        )
    end_ids = frozenset({*stop_ids(template, tokenizer), *end_of_sequence(config)})
    return Conversation(folder, tokenizer, rules, template, system_prompt, begin, int(config["vocab_size"]), end_ids)


def end_of_sequence(config: dict[str, Any]) -> tuple[int, ...]:
    """The end tokens that a target's own config names: none, one or several."""
    ids = config.get("eos_token_id")
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)


def _begin(template: Template, tokenizer: Tokenizer) -> str:
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    return max((text for text in special if template.first.startswith(text)), key=len, default="")
