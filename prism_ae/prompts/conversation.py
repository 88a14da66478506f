"""A target's side of a conversation: from questions and earlier answers to the token ids it reads, and where it
ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.errors import CheckpointError, MissingError
from prism_ae.prompts.templates import render_turn, stop_ids
from prism_ae.suites.records import Template

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Conversation:
    """How one target is talked to.

    Attributes:
        folder: the target's, for messages.
        vocab_size: of the target.
        end_ids: tokens that end an answer: the template's, and the target's own end of sequence.
    """

    folder: Path
    tokenizer: Tokenizer
    template: Template
    system_prompt: str
    vocab_size: int
    end_ids: frozenset[int]

    def prompt(self, users: Sequence[str], answers: Sequence[Sequence[int]]) -> list[int]:
        """Token ids of the prompt after ``answers``, given all user turns; raises CheckpointError."""
        texts = [self.tokenizer.decode([token for token in answer if token not in self.end_ids]) for answer in answers]
        text = render_turn(self.template, self.system_prompt, users[: len(answers) + 1], texts)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        if max(ids) >= self.vocab_size:
            raise CheckpointError(
                f"{self.folder / 'tokenizer.json'} has token ids beyond the target's vocabulary",
                "use the tokenizer that belongs to the target",
            )
        return ids


def open_conversation(folder: Path, config: dict[str, Any], template: Template, system_prompt: str) -> Conversation:
    """The conversation with the target in ``folder``, whose config.json says ``config``.

    Raises:
        MissingError: no tokenizer.json.
        CheckpointError: a damaged one, or one that lacks the template's end token.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.exists():
        raise MissingError(f"{file} does not exist", "it belongs to the target's folder; fetch or make it again")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise CheckpointError(f"{file} cannot be read: {error}", "fetch or make it again") from error
    end_ids = frozenset({*stop_ids(template, tokenizer), *end_of_sequence(config)})
    return Conversation(folder, tokenizer, template, system_prompt, int(config["vocab_size"]), end_ids)


def end_of_sequence(config: dict[str, Any]) -> tuple[int, ...]:
    """The end tokens that a target's own config names: none, one or several."""
    ids = config.get("eos_token_id")
    return () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)
