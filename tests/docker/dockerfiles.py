"""Dockerfiles and .dockerignore as a builder reads them: as much of both languages as this project's files use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

Instructions = list[tuple[str, str]]


def instructions(text: str) -> Instructions:
    """Instruction and arguments, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def flags(rest: str) -> tuple[dict[str, str], str]:
    """The ``--name=value`` before an instruction's arguments, and the arguments."""
    found = {}
    while match := re.match(r"--([a-z]+)=(\S+)\s+", rest):
        found[match[1]] = match[2]
        rest = rest[match.end() :]
    return found, rest


def let_in(path: str, rules: str) -> bool:
    """Whether a file is sent to the builder: of the rules that match it or a folder of it, the last one decides."""
    decided = True
    for rule in rules.splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern = re.escape(rule.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{pattern}(?:/.*)?", path):
            decided = rule.startswith("!")
    return decided


def sent(context: Path) -> Iterator[str]:
    """The files of a context that its .dockerignore lets in, relative, sorted."""
    rules = (context / ".dockerignore").read_text()
    for folder, folders, names in os.walk(context):
        inside = Path(folder).relative_to(context)
        # A folder that is kept out may still hold files that a later rule lets in.
        folders[:] = sorted(
            name
            for name in folders
            if let_in((inside / name).as_posix(), rules) or f"\n!{(inside / name).as_posix()}/" in rules
        )
        yield from (path for name in sorted(names) if let_in(path := (inside / name).as_posix(), rules))
