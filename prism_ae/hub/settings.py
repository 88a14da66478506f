"""Numbers and switches that the hubs' own clients read from the environment when they are imported. No network.

A number that is none ends one client (Hugging Face's, with a ValueError, also within SGLang, which imports it) and is
passed over by the other. A switch that is spelt in another way than its client knows is off, without a word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from prism_ae.hub.selection import HubName

_LARGEST = 10**9
"""Seconds, bytes or pieces; a socket's time limit can hardly be larger."""

_ON, _OFF = ("1", "ON", "YES", "TRUE"), ("", "0", "OFF", "NO", "FALSE")


@dataclasses.dataclass(frozen=True)
class NumberRule:
    """Variables that a client takes for a whole number.

    Attributes:
        names: a pattern of all of the name.
        least: the smallest that the client goes by.
        blank: whether one without a value counts as not set.
    """

    hub: HubName
    names: str
    least: int
    blank: bool = True


NUMBERS = (
    NumberRule("huggingface", "HF_HUB_(ETAG|DOWNLOAD)_TIMEOUT", 0, blank=False),
    NumberRule("modelscope", "MODELSCOPE_DOWNLOAD_(MAX_RETRIES|MIN_BYTES_PER_SECOND)", 0),
    NumberRule(
        "modelscope",
        r"MODELSCOPE_(API|REPO_TREE|DOWNLOAD|PARALLEL_DOWNLOAD)_(\w+_)?"
        "(TIMEOUT|SECONDS|MAX_RETRIES|MAXSIZE|ATTEMPTS|REQUESTS|WORKERS|PARALLELS|MB)",
        1,
    ),
)
"""The first that a name fits is the one that holds."""

SWITCHES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HUGGINGFACE_CO_STAGING",
)
"""Of Hugging Face's client; what they change would change a download."""


def number_problems(environ: Mapping[str, str], hub: HubName) -> list[str]:
    """Variables whose value a hub's client cannot take for the number that it reads there, in sentences."""
    found = []
    for name, value in sorted(environ.items()):
        rule = next((rule for rule in NUMBERS if re.fullmatch(rule.names, name)), None)
        if rule is not None and rule.hub == hub and not _fits(value, rule):
            found.append(
                f"{name}={escaped(value)} is no whole number from {rule.least} to {_LARGEST}: correct it, or unset it"
            )
    return found


def switched_on(value: str) -> bool:
    """Whether Hugging Face's client takes a switch of this value for on."""
    return value.upper() in _ON


def unknown_switches(environ: Mapping[str, str]) -> dict[str, str]:
    """Switches with a value that is neither on nor off -> that value, in one line. The client takes them for off."""
    return {
        name: escaped(environ[name])
        for name in SWITCHES
        if name in environ and environ[name].upper() not in (*_ON, *_OFF)
    }


def escaped(value: str, most: int = 100) -> str:
    """A value in one line: whatever is not printable, or looks like a blank and is none, is escaped; cut if long."""
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value)
    return text if len(text) <= most else f"{text[:most]}…"


def _fits(value: str, rule: NumberRule) -> bool:
    if rule.blank and not value.strip():
        return True
    try:
        return rule.least <= int(value) <= _LARGEST
    except ValueError:
        return False
