"""Which of the turns that a target writes are learnt from: rules about form, none about content.

A benchmark's questions are never looked at: what the target writes by itself is kept or dropped for its length, for
repeating itself, and for being there already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NO_END = "user turns without an end of their own"
SPECIAL = "user turns with a special token in them"
SHORT_TURN = "user turns that are too short"
REPEATED_TURN = "user turns that repeat themselves"
SAME_TURN = "user turns that were there already"
LONG_TURN = "user turns too long for the target"
SHORT_ANSWER = "answers that are too short"
REPEATED_ANSWER = "answers that repeat themselves"
RESPELT_ANSWER = "answers whose text has other tokens"
SAME_ANSWER = "answers that were there already"

REASONS = (
    NO_END,
    SPECIAL,
    SHORT_TURN,
    REPEATED_TURN,
    SAME_TURN,
    LONG_TURN,
    SHORT_ANSWER,
    REPEATED_ANSWER,
    RESPELT_ANSWER,
    SAME_ANSWER,
)
"""Why something is dropped, in the order in which it is looked at: each is counted under the first that applies."""

_WORD = re.compile(r"\w+")


def repeated_share(ids: Sequence[int], n: int) -> float:
    """The share of n-grams of ``ids`` that stand earlier in it, too: 0 where none does, near 1 for a loop.

    A text of fewer than n tokens has none.
    """
    grams = [tuple(ids[start : start + n]) for start in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def gist(text: str) -> str:
    """The words of a text alone: texts that differ in case, spaces and punctuation have the same."""
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


class Duplicates:
    """Remembers what was there."""

    def __init__(self) -> None:
        self._users: set[str] = set()
        self._answers: set[str] = set()

    def has_user(self, text: str) -> bool:
        """Whether exactly this user turn was there; from now on it was."""
        return _known(self._users, text)

    def has_answer(self, text: str) -> bool:
        """Whether an answer of the same words was there; from now on it was."""
        return _known(self._answers, gist(text))


def _known(texts: set[str], text: str) -> bool:
    if text in texts:
        return True
    texts.add(text)
    return False
