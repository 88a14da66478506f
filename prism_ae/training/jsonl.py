"""Conversations in a user's file, so that the trainer takes anybody's data.

A file of conversations that were collected has defects: tools that speak, answers before the first question, empty
texts, halves of letters. None of them is learnt from, none ends the reading: a conversation is used from its first
question up to its first defect, and what was left out is counted by reason.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError
from prism_ae.mini.corpus import Conversation
from prism_ae.prompts.json_lines import Problem, is_broken, listed, read_records

_LAYOUTS = (
    'a record is {"conversations": [{"user": "...", "assistant": "..."}]}, or ShareGPT\'s {"conversations": [{"from": '
    '"human", "value": "..."}, {"from": "gpt", "value": "..."}]}, or {"messages": [{"role": "user", "content": "..."}]}'
)
_USERS, _ANSWERERS, _SYSTEMS = ("human", "user"), ("gpt", "assistant"), ("system",)


@dataclasses.dataclass(frozen=True)
class Defect:
    """Why something was left out: in how many records, and the place of the first."""

    reason: str
    count: int
    first: str


@dataclasses.dataclass(frozen=True)
class Told:
    """What a file tells.

    Attributes:
        conversations: each with at least one turn, in the file's order.
        places: where each of them stands: "line 3", or "entry 3" of an array.
        records: in the file, those included that say nothing.
        defects: what was left out, the most frequent first.
        sha256: of the file (hex), as it was read.
        cut: numbers of conversations whose last answer has no end: a record says so by ``"cut": true``.
    """

    conversations: tuple[Conversation, ...]
    places: tuple[str, ...]
    records: int
    defects: tuple[Defect, ...]
    sha256: str
    cut: frozenset[int] = frozenset()

    def in_words(self) -> list[str]:
        """Lines for people: how much is used, then what is not and why."""
        turns = sum(len(conversation) for conversation in self.conversations)
        used = f"{len(self.conversations):,} of {self.records:,} conversations, {turns:,} answers"
        return [used, *(f"  {one.count:,} x {one.reason}; the first: {one.first}" for one in self.defects)]


def read_conversations(path: Path) -> Told:
    """The conversations of a file of JSON lines, or of one JSON array.

    Three layouts are understood, also mixed: ``{"conversations": [{"user": …, "assistant": …}, …]}``, ShareGPT's
    ``{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]}``, and
    ``{"messages": [{"role": "user", "content": …}, …]}``. System messages before the first question are left out
    without a word, since the target's own is used; so is a question at the end that has no answer. A record with
    ``"cut": true`` has a last answer that was cut at a limit: it is learnt from without an end token.

    Raises:
        MissingError: no such file.
        ConfigError: no text file, or one without a single turn; names the first records and what is wrong with them.
    """
    records = read_records(path)
    conversations: list[Conversation] = []
    places: list[str] = []
    cut: set[int] = set()
    found: list[Problem] = list(records.problems)
    for place, data in records.found:
        turns, reason = _turns(data)
        if turns:
            # An answer before a defect is whole: what is cut is the last one of all.
            if isinstance(data, dict) and data.get("cut") is True and not reason:
                cut.add(len(conversations))
            conversations.append(turns)
            places.append(place)
        if reason:
            found.append(Problem(place, reason))
    if not conversations:
        raise ConfigError(listed(path, found) or f"{path} holds no conversation", _LAYOUTS)
    total = len(records.found) + len(records.problems)
    return Told(tuple(conversations), tuple(places), total, _counted(found), records.sha256, frozenset(cut))


def _counted(problems: Sequence[Problem]) -> tuple[Defect, ...]:
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.reason.partition(":")[0], []).append(problem)
    defects = [
        Defect(reason if len(group) > 1 else group[0].reason, len(group), group[0].place)
        for reason, group in groups.items()
    ]
    return tuple(sorted(defects, key=lambda defect: -defect.count))


def _turns(data: Any) -> tuple[Conversation, str]:
    """The turns up to the first defect, and what that is: "" where there is none."""
    messages = data
    if isinstance(data, dict):
        # Columns of several layouts that were united leave null where a record has the other one.
        messages = data.get("messages") if data.get("conversations") is None else data["conversations"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return (), "not a list of messages"
    if messages and ("assistant" in messages[0] or not {"from", "role"} & set(messages[0])):
        pairs = [(message.get("user"), message.get("assistant")) for message in messages]
        sides, reason = [text for pair in pairs for text in pair], ""
    else:
        sides, reason = _sides(messages)
    good: list[str] = []
    for text in sides:
        if defect := _defect(text):
            reason = defect
            break
        good.append(text)
    turns = tuple(zip(good[::2], good[1::2], strict=False))
    return turns, reason or ("" if turns else "no question that is answered")


def _sides(messages: Sequence[dict[str, Any]]) -> tuple[list[Any], str]:
    """The texts of question, answer, question, … up to the first message out of order, and what that is."""
    said = [(_either(message, "from", "role"), _either(message, "value", "content")) for message in messages]
    while said and said[0][0] in _SYSTEMS:
        said.pop(0)
    reason = ""
    while said and said[0][0] in _ANSWERERS:
        reason = "begins with an answer, which was left out"
        said.pop(0)
    texts: list[Any] = []
    for role, text in said:
        expected, other = (_ANSWERERS, _USERS) if len(texts) % 2 else (_USERS, _ANSWERERS)
        if role in expected:
            texts.append(text)
        elif role in other:
            return texts, "two messages of one side in a row; used up to them"
        else:
            return texts, f"a message from {str(role)[:40]!r}; used up to it"
    return texts, reason


def _either(message: dict[str, Any], one: str, other: str) -> Any:
    return message.get(other) if message.get(one) is None else message[one]


def _defect(text: Any) -> str:
    if not isinstance(text, str):
        return "a message that is no text; used up to it"
    if not text.strip():
        return "an empty message; used up to it"
    return "half a surrogate pair, which no text can hold; used up to it" if is_broken(text) else ""


def write_jsonl(path: Path, data: Sequence[Conversation]) -> None:
    """Write conversations, one line each, in the first layout of `read_conversations`; raises OSError."""
    with path.open("w", encoding="utf-8") as file:
        for conversation in data:
            turns = [{"user": user, "assistant": answer} for user, answer in conversation]
            file.write(json.dumps({"conversations": turns}, ensure_ascii=False) + "\n")
