"""Conversations to train on and questions to measure with, and that they never meet.

The embedded corpus is synthetic (`families`), the same on every machine. Which user turns are held out is decided by
the text itself: a digest of it says so. Training conversations contain no such turn and benchmark questions consist of
nothing else, so a question can never have been seen, whatever the seed or the amount of data.

This module and `families` decide the content of every model: where what they yield changes, `VERSION` has to, too, and
all models are trained anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

from prism_ae.errors import UsageError
from prism_ae.mini import families

Turn = tuple[str, str]
Conversation = tuple[Turn, ...]
"""The turns of one conversation: (user, answer) each."""

VERSION = "a5398ea433343547ec4d8cd5d6d7c61b2fdb495ef3f75ff73fac85ca2e7e299b"
"""Part of the names of all models. Any other text will do; a test holds what is yielded."""

_HELD_OUT_IN = 8
_GIVE_UP = 20_000
"""Conversations without a new question after which there is none."""


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
    known, since = 0, 0
    while len(found) < count:
        turns = generate(random)
        if all(held_out(user) for user, _ in turns):
            found.setdefault(tuple(user for user, _ in turns), tuple(turns))
        known, since = len(found), since + 1 if len(found) == known else 0
        if since > _GIVE_UP:
            raise UsageError(f"benchmark '{benchmark}' of the mini suite has no {count} questions", "ask for fewer")
    return tuple(found.values())
