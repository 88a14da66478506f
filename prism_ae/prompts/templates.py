"""From a conversation to the text that a target reads.

A template belongs to its target's record and is explicit data: guessing it from a model's name is how acceptance
lengths silently change. Rendering is plain text replacement; a piece never looks inside a question or an answer, so
braces and template words in a question stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from prism_ae.errors import CheckpointError
from prism_ae.suites.records import Template


class Vocabulary(Protocol):
    """The part of ``tokenizers.Tokenizer`` that is needed to find an end token."""

    def token_to_id(self, token: str, /) -> int | None: ...


def render_turn(template: Template, system: str, users: Sequence[str], answers: Sequence[str]) -> str:
    """The prompt of the last user turn, begin marker included: tokenize it without adding special tokens.

    Args:
        template: of the target.
        system: the system prompt.
        users: user turns so far, the one to answer last.
        answers: answers to all turns before the last; whitespace around them is dropped, as the authors' evaluation
            does before it feeds an answer back.

    Raises:
        ValueError: there is not exactly one more user turn than answers.
    """
    if len(users) != len(answers) + 1:
        raise ValueError(f"{len(users)} user turns need {len(users) - 1} answers before them, not {len(answers)}")
    if template.trim:
        system, users = system.strip(), [user.strip() for user in users]
    text = _fill(template.first, {"system": system, "user": users[0]})
    for answer, user in zip(answers, users[1:], strict=True):
        text += _fill(template.answer, {"answer": answer.strip()}) + _fill(template.later, {"user": user})
    return text


def stop_ids(template: Template, tokenizer: Vocabulary) -> tuple[int, ...]:
    """Ids of the tokens that end an answer, in the template's order.

    Raises:
        CheckpointError: the tokenizer has no such token, so it is not the one this template was written for.
    """
    ids = []
    for text in template.stop:
        number = tokenizer.token_to_id(text)
        if number is None:
            raise CheckpointError(
                f"the tokenizer has no token '{text}', which ends an answer in template '{template.name}'",
                "use the tokenizer.json that belongs to the target, or correct 'template' in the suite's file",
            )
        ids.append(number)
    return tuple(ids)


def _fill(piece: str, values: Mapping[str, str]) -> str:
    """Replace each {name} in one pass, so that replaced text is not searched again; KeyError for an unknown name."""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], piece)
