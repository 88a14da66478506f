"""``log.jsonl``: an append-only list of records that survives crashes, torn writes and flipped bytes.

A line is ``{"record": {…}, "sha256": "…"}``, the sum over the record's canonical JSON. Appending is one write at the
end of the file under an exclusive lock, then fsync; a tail without its newline (a writer died, or the disk was full)
is closed off first, so that it can never swallow the next line. Reading never changes the file: what does not match
its sum is set aside, counted and reported, and whole records found inside a damaged line are still read. So a log can
be read on a file system without locks, where nothing can be appended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prism_ae.io.atomic import sync, write_all
from prism_ae.io.digests import canonical_json
from prism_ae.io.locks import lock_whole
from prism_ae.store.disk import store_errors

_START = '{"record":'


@dataclasses.dataclass(frozen=True)
class Damage:
    """A line that is not a whole record: its number (from 1) and what is wrong."""

    line: int
    reason: str


@dataclasses.dataclass(frozen=True)
class LogContent:
    """What was read: intact records in order, each with its line number, and the damaged lines."""

    records: tuple[tuple[int, dict[str, Any]], ...]
    damaged: tuple[Damage, ...]

    def followed_by(self, more: LogContent, lines: int) -> LogContent:
        """With what was read from the lines after the first ``lines``."""
        if not more.records and not more.damaged:
            return self
        return LogContent(
            self.records + tuple((lines + number, record) for number, record in more.records),
            self.damaged + tuple(Damage(lines + damage.line, damage.reason) for damage in more.damaged),
        )


def log_line(record: dict[str, Any]) -> bytes:
    """The line of one record, newline included."""
    text = canonical_json(record)
    return f'{_START}{text},"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


def parse_log(data: bytes) -> LogContent:
    """All intact records of a log's bytes. Never raises: anything else is counted as damage."""
    records: list[tuple[int, dict[str, Any]]] = []
    damaged: list[Damage] = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            record = _intact(json.loads(raw))
        except (ValueError, RecursionError):
            record = None
        if record is not None:
            records.append((number, record))
            continue
        rescued = list(_inside(raw))
        records.extend((number, inner) for inner in rescued)
        reason = "does not match its checksum"
        damaged.append(
            Damage(number, f"{reason}; {len(rescued)} whole records inside were read" if rescued else reason)
        )
    return LogContent(tuple(records), tuple(damaged))


def _intact(line: Any) -> dict[str, Any] | None:
    """The record of a decoded line when its sum is right."""
    if not isinstance(line, dict) or set(line) != {"record", "sha256"} or not isinstance(line["record"], dict):
        return None
    try:
        text = canonical_json(line["record"]).encode()
    except ValueError:  # NaN, infinities, or half a surrogate pair: never written by us
        return None
    return line["record"] if hashlib.sha256(text).hexdigest() == line["sha256"] else None


def _inside(raw: bytes) -> Iterator[dict[str, Any]]:
    """Whole records within a damaged line: a lost newline, or a torn line before them, must not hide them."""
    text = raw.decode(errors="replace")
    decoder = json.JSONDecoder()
    start = text.find(_START)
    while start >= 0:
        end = start + 1
        with contextlib.suppress(ValueError, RecursionError):
            line, after = decoder.raw_decode(text, start)
            record = _intact(line)
            if record is not None:
                yield record
                end = after
        start = text.find(_START, end)


def _shared(descriptor: int) -> bool:
    """Wait for a line that is being written; False where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        return False
    return True


class Log:
    """The file. Several processes may append to it at the same time; each remembers what it has read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._offset = 0
        self._lines = 0
        self._seen = LogContent((), ())

    def read(self) -> LogContent:
        """All intact records; none where there is no file yet. Raises StoreError when it cannot be read."""
        with store_errors("read", self.path):
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._forget()
                return self._seen
            with open(descriptor, "rb", buffering=0) as file:
                certain = _shared(descriptor)
                content, _ = self._read(file)
                # Without a lock the last line may be one that is just being written, and no damage.
                return content if certain else LogContent(content.records, self._seen.damaged)

    def _read(self, file: io.FileIO) -> tuple[LogContent, bytes]:
        """Everything in the locked file, and its last line when that has no newline (b"" when it has)."""
        if os.fstat(file.fileno()).st_size < self._offset:
            self._forget()
        file.seek(self._offset)
        data = file.readall()
        whole = data.rfind(b"\n") + 1
        self._seen = self._seen.followed_by(parse_log(data[:whole]), self._lines)
        self._offset += whole
        self._lines += data.count(b"\n")
        return self._seen.followed_by(parse_log(data[whole:]), self._lines), data[whole:]

    def append(self, record: dict[str, Any], unless: Callable[[LogContent], bool]) -> bool:
        """Add a record, durable when the call returns.

        Args:
            record: JSON data.
            unless: told what the log holds at this moment, nobody else writing; True leaves the log as it is.

        Returns:
            Whether it was added.

        Raises:
            StoreError: it could not be written; what was in the log before is untouched.
        """
        line = log_line(record)
        with store_errors("write", self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with open(descriptor, "r+b", buffering=0) as file:
                lock_whole(descriptor, self.path, "--runs-dir")
                content, tail = self._read(file)
                if unless(content):
                    return False
                size = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, b"\n" + line if tail else line)
                    os.fsync(descriptor)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            if not size:
                sync(self.path.parent)
        return True
