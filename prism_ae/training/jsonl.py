"""Conversations in JSON lines files, so that the trainer takes anybody's data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, MissingError
from prism_ae.training.corpus import Conversation


def read_jsonl(path: Path) -> tuple[Conversation, ...]:
    """Conversations of a JSON lines file, one object per line.

    Two layouts are understood, also mixed: ``{"conversations": [{"user": …, "assistant": …}, …]}`` and ShareGPT's
    ``{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]}`` (roles human/user and
    gpt/assistant alternate; a leading system message is dropped, since the target's own is used; a trailing user
    message without answer too). Lines without a turn are refused.

    Raises:
        MissingError: no such file.
        ConfigError: a line that is not such an object; names file and line.
    """
    try:
        # Not splitlines(): a text may contain other line separators (U+2028), and JSON leaves those as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_parse(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"{path}, line {number}: not a conversation ({type(error).__name__}: {error})",
                    'write {"conversations": [{"user": "...", "assistant": "..."}]} or the ShareGPT layout',
                ) from None
    if not found:
        raise ConfigError(f"{path} holds no conversation")
    return tuple(found)


def _parse(data: Any) -> Conversation:
    messages = data["conversations"]
    if messages and "from" in messages[0]:
        turns = _share_gpt(messages)
    else:
        turns = tuple((message["user"], message["assistant"]) for message in messages)
    if not turns or not all(isinstance(text, str) for turn in turns for text in turn):
        raise ValueError("no turn, or a text that is not a string")
    return turns


def _share_gpt(messages: Sequence[dict[str, str]]) -> Conversation:
    if messages[0]["from"] == "system":
        messages = messages[1:]
    users, answers = messages[::2], messages[1::2]
    if any(message["from"] not in ("human", "user") for message in users):
        raise ValueError("a user's turn is not from 'human'")
    if any(message["from"] not in ("gpt", "assistant") for message in answers):
        raise ValueError("an answer is not from 'gpt'")
    return tuple((user["value"], answer["value"]) for user, answer in zip(users, answers, strict=False))


def write_jsonl(path: Path, data: Sequence[Conversation]) -> None:
    """Write conversations, one line each, in the first layout of `read_jsonl`; raises OSError."""
    with path.open("w", encoding="utf-8") as file:
        for conversation in data:
            turns = [{"user": user, "assistant": answer} for user, answer in conversation]
            file.write(json.dumps({"conversations": turns}, ensure_ascii=False) + "\n")
