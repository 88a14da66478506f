"""Where a number comes from, written down before it is measured: command, versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism_ae.processes.child import ask

_PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "transformers", "sglang")
_SECRET_NAME = re.compile(r"token|secret|passw|credential|(^|[-_])(api)?key($|[-_])", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+(?=@)")


def provenance(argv: Sequence[str], package: Path) -> dict[str, Any]:
    """What is the same for every cell of a run; imports no heavy library.

    Args:
        argv: the command line.
        package: a folder of the source tree, whose commit is recorded when it is a git checkout.
    """
    from prism_ae import __version__

    return {
        "argv": redact(argv),
        "versions": {"python": platform.python_version(), "prism-ae": __version__} | _versions(),
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor_name(),
        "commit": _commit(package),
    }


def redact(argv: Sequence[str]) -> list[str]:
    """The command line without secrets: values of options named like one, and texts that look like one."""
    clean: list[str] = []
    hide_next = False
    for argument in map(_readable, argv):
        name, equals, _ = argument.partition("=")
        if hide_next and not argument.startswith("-"):
            clean.append("***")
        elif name.startswith("-") and equals and _SECRET_NAME.search(name):
            clean.append(f"{name}=***")
        else:
            clean.append(_SECRET_VALUE.sub("***", argument))
        hide_next = name.startswith("-") and not equals and bool(_SECRET_NAME.search(name))
    return clean


def _readable(argument: str) -> str:
    """An argument as text: one that is not in the locale's encoding carries raw bytes, which no UTF-8 file can hold."""
    return os.fsencode(argument).decode("utf-8", "replace")


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def processor_name() -> str:
    """The CPU's name, in words."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    """The checkout's commit, "+changes" when tracked files differ from it; None outside a checkout of this project."""
    if not (package.parent / ".git").exists():
        return None  # an installed package inside somebody else's repository has no commit of ours
    said = [
        ask(["git", "-C", str(package), *words], {"GIT_OPTIONAL_LOCKS": "0"}, patience=10)
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    if any(one.how for one in said):
        return None
    head, changes = (one.out.strip() for one in said)
    return head + ("+changes" if changes else "")
