"""A user's data file, record by record: the one reader of question files and of conversations.

JSON lines, in UTF-8 with or without a byte order mark, blank lines between; or one JSON array, as ShareGPT's files are.
A record that cannot be read does not hide the others: what to make of it is the caller's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, MissingError
from prism_ae.models.file_kinds import FETCH, what_it_is

_UTF8_MARK = b"\xef\xbb\xbf"
_NOT_TEXT = {
    b"\xff\xfe": "is text in UTF-16 or UTF-32",
    b"\xfe\xff": "is text in UTF-16",
    b"PK\x03\x04": "is a zip archive",
    b"\x28\xb5\x2f\xfd": "is compressed (zstandard)",
    b"BZh": "is compressed (bzip2)",
    b"\xfd7zXZ": "is compressed (xz)",
    b"PAR1": "is a Parquet file",
}
"""First bytes -> what such a file is."""

_SHOWN = 8
"""Problems that a message lists."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A record that is not what it should be; ``place`` is "line 3", or "entry 3" of an array."""

    place: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Records:
    """A file's records, each with its place, in the file's order, and what could not be read.

    ``sha256`` (hex) is of the bytes that were read, whatever becomes of the file.
    """

    found: tuple[tuple[str, Any], ...]
    problems: tuple[Problem, ...]
    sha256: str


def read_records(path: Path, missing_hint: str = "") -> Records:
    """All records of a file.

    Raises:
        MissingError: no such file; ``missing_hint`` says how to get it.
        ConfigError: it is no text file at all, or one object over several lines.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist", missing_hint) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_kind(path, data)
    total = hashlib.sha256(data).hexdigest()
    data = data.removeprefix(_UTF8_MARK)
    if data.lstrip()[:1] == b"[" and isinstance(entries := _whole(data), list):
        return Records(tuple((f"entry {number}", entry) for number, entry in enumerate(entries, start=1)), (), total)
    found: list[tuple[str, Any]] = []
    problems: list[Problem] = []
    # Only "\n" ends a line: a text may contain other separators (U+2028), and JSON leaves those as they are.
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line.decode())))
            except UnicodeDecodeError as error:
                problems.append(Problem(f"line {number}", f"not UTF-8 ({error.reason} at byte {error.start})"))
            except (ValueError, RecursionError) as error:
                problems.append(Problem(f"line {number}", f"not valid JSON: {error}"))
    if problems and isinstance(_whole(data), dict):
        raise ConfigError(f"{path} is one JSON object over several lines", "write one object per line, or an array")
    return Records(tuple(found), tuple(problems), total)


def is_broken(text: str) -> bool:
    """Whether a text holds half a surrogate pair: JSON can say it, and no encoder takes it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def listed(path: Path | str, problems: Iterable[Problem]) -> str:
    """Problems as a message, one line each; of many, the first and how many more there are."""
    lines = [f"{path}, {problem.place}: {problem.reason}" for problem in problems]
    return "\n".join([*lines[:_SHOWN], *([f"… and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else [])])


def _check_kind(path: Path, data: bytes) -> None:
    if data and (said := what_it_is(path)):
        raise ConfigError(f"{path} {said}", FETCH)
    for begin, what in _NOT_TEXT.items():
        if data.startswith(begin):
            raise ConfigError(f"{path} {what}", "write it as JSON lines in UTF-8")


def _whole(data: bytes) -> Any:
    """The file as one JSON value, None where it is none."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
