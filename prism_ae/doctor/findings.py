"""What a check finds: one thing, its level, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from prism_ae.errors import PrismError

Level = Literal["ok", "warning", "problem"]

LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")
"""From harmless to what makes a command fail or its numbers wrong."""

_SHOWN = 200
"""Letters of a value from outside that are shown."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of doctor's report.

    Attributes:
        name: of what was looked at, a word or two: "TMPDIR", "torch", "models folder".
        level: "problem" where a command fails or measures something else, "warning" where it may.
        what: what was found and where.
        remedy: what to do; "" only where nothing has to be done.

    Raises:
        ValueError: a warning or problem without a remedy.
    """

    name: str
    level: Level
    what: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedy:
            raise ValueError(f"the finding about {self.name} has no remedy: {self.what}")


def ok(name: str, what: str) -> Finding:
    return Finding(name, "ok", what)


def warning(name: str, what: str, remedy: str) -> Finding:
    return Finding(name, "warning", what, remedy)


def problem(name: str, what: str, remedy: str) -> Finding:
    return Finding(name, "problem", what, remedy)


def from_error(name: str, error: PrismError, level: Level = "problem") -> Finding:
    """What a command would say, as a finding."""
    return Finding(name, level, error.what, error.hint or "correct what the message names, then run doctor again")


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level among findings, "ok" where there are none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def shown(value: str) -> str:
    """A value from outside in one line: without secrets, what is not printable is escaped, what is long is cut."""
    from prism_ae.store.provenance import redact

    text = printable(redact([value])[0])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def printable(text: str) -> str:
    """A text in one line, without letters that steer a terminal."""
    joined = " ".join(text.split("\n"))
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in joined)


def listed(names: Iterable[str], most: int = 5) -> str:
    """ "a, b, c and 4 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
