"""Conversations to train on and questions to measure with: where they come from, and that they never meet.

The embedded corpus is synthetic (`families`), the same on every machine. Which user turns are held out is decided by
the text itself: a digest of it says so. Training conversations contain no such turn and benchmark questions consist of
nothing else, so a question can never have been seen, whatever the seed or the amount of data.

Conversations also come from JSON lines files, and can be written to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from prism_ae.errors import ConfigError, MissingError, UsageError
from prism_ae.training import families

Turn = tuple[str, str]
Conversation = tuple[Turn, ...]
"""The turns of one conversation: (user, answer) each."""

_HELD_OUT_IN = 8


def held_out(user: str) -> bool:
    """Whether a user turn belongs to the question sets: one in eight, by the digest of its text."""
    return hashlib.sha256(user.encode()).digest()[0] % _HELD_OUT_IN == 0


def conversations(count: int, seed: int) -> tuple[Conversation, ...]:
    """``count`` training conversations, families in equal shares and random order.

    Prefixes agree: ``conversations(n, seed)`` is the beginning of ``conversations(m, seed)`` for n < m, so
    a smaller amount of data is always part of a larger one.
    """
    stream = _training(seed)
    return tuple(next(stream) for _ in range(count))


def _training(seed: int) -> Iterator[Conversation]:
    random = Random(f"train {seed}")
    generators = list(families.FAMILIES.values())
    while True:
        random.shuffle(generators)
        for generate in generators:
            turns = generate(random)
            while any(held_out(user) for user, _ in turns):
                turns = generate(random)
            yield tuple(turns)


def questions(benchmark: str, count: int) -> tuple[tuple[str, ...], ...]:
    """The first ``count`` held-out questions of a benchmark: distinct, the user turns of each.

    Raises:
        UsageError: no such benchmark, or fewer questions exist.
    """
    return tuple(tuple(user for user, _ in turns) for turns in held_out_conversations(benchmark, count))


def held_out_conversations(benchmark: str, count: int) -> tuple[Conversation, ...]:
    """`questions` with one possible answer each, to measure a target's loss on unseen text; raises UsageError."""
    if benchmark not in families.FAMILIES:
        raise UsageError(
            f"the mini suite has no benchmark '{benchmark}'", f"choose from {', '.join(families.FAMILIES)}"
        )
    random = Random(f"questions {benchmark}")
    generate = families.FAMILIES[benchmark]
    found: dict[tuple[str, ...], Conversation] = {}
    tries = 0
    while len(found) < count:
        turns = generate(random)
        if all(held_out(user) for user, _ in turns):
            found.setdefault(tuple(user for user, _ in turns), tuple(turns))
        tries += 1
        if tries > 2000 * (count + 10):
            raise UsageError(f"benchmark '{benchmark}' of the mini suite has no {count} questions", "ask for fewer")
    return tuple(found.values())


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
        lines = path.read_text(encoding="utf-8").splitlines()
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
