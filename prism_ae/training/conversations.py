"""Conversations as a target reads them: what a drafter learns from, and what is left out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prism_ae.errors import ConfigError
from prism_ae.prompts.conversation import Conversation
from prism_ae.prompts.json_lines import Problem, listed
from prism_ae.training.examples import Example, encode, joined
from prism_ae.training.jsonl import Told


@dataclasses.dataclass(frozen=True)
class Learnt:
    """Examples to learn from.

    Attributes:
        groups: of each conversation.
        lines: for people, about what is used and what is not.
    """

    groups: tuple[list[Example], ...]
    lines: list[str]

    @property
    def examples(self) -> list[Example]:
        return [example for group in self.groups for example in group]

    def first(self, answer_tokens: int) -> int | None:
        """How many conversations, from the first, have so many answer tokens together; None: all have fewer."""
        seen = 0
        for number, group in enumerate(self.groups, start=1):
            seen += sum(sum(example.is_answer()) for example in group)
            if seen >= answer_tokens:
                return number
        return None

    @property
    def answer_tokens(self) -> int:
        """Of all of them."""
        return sum(sum(example.is_answer()) for example in self.examples)


def learnt(told: Told, conversation: Conversation, max_seq_len: int, source: Path) -> Learnt:
    """What is trained on of ``told``, which ``source`` holds; turns of a conversation are joined where they can be.

    Raises:
        ConfigError: there is nothing to learn from, or what has no token.
    """
    encoded = encode(told.conversations, conversation, max_seq_len, told.cut)
    if encoded.unknown:
        problems = [
            Problem(told.places[row], f"{tokens}, beyond the target's vocabulary")
            for row, tokens in sorted(encoded.unknown.items())
        ]
        raise ConfigError(
            listed(source, problems), f"use the tokenizer that belongs to {conversation.folder}, or leave these out"
        )
    groups = tuple(joined(turns) for turns in encoded.turns)
    lines = told.in_words()
    if encoded.left_out:
        lines.append(f"  {encoded.left_out:,} answers left out: behind the target's {max_seq_len:,} tokens")
    if encoded.cut:
        lines.append(f"  {encoded.cut:,} answers cut at the target's {max_seq_len:,} tokens")
    if not any(len(example.ids) - example.start > 1 for group in groups for example in group):
        raise ConfigError(
            f"{source} holds no answer that fits into the target's {max_seq_len} tokens",
            f"the system prompt alone has {len(conversation.system_prompt):,} letters; shorten it, or the texts",
        )
    return Learnt(groups, lines)
