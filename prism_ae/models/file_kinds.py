"""What lies where a model's file should be, when fetching it went wrong: known by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from prism_ae.errors import CheckpointError

_FIRST = 512
_SHORTEST = 12
"""Of a server's answers: "Entry not found"."""

_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_PAGES = (b"<!doctype html", b"<html", b"<head")
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"

FETCH = "fetch the file itself: 'git lfs pull' where git cloned the folder, else from the model's hub again"


def refuse_other_kinds(path: Path) -> None:
    """Raises CheckpointError, which says what it is, for a file that is no model's file but stands in its place.

    A file that cannot be read, or of which nothing is known, passes: who reads it next says more.
    """
    if said := what_it_is(path):
        raise CheckpointError(f"{path} {said}", FETCH)


def what_it_is(path: Path) -> str:
    """What stands in the place of a file, as the end of a sentence that begins with its path; "" for nothing known."""
    try:
        with path.open("rb") as file:
            first = file.read(_FIRST)
    except OSError:
        return ""
    text = first.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not first:
        return "is empty"
    if text.startswith(_POINTERS):
        return "is a Git-LFS pointer: it names the file, and is not it"
    if text.lower().startswith(_PAGES):
        return "is a web page (HTML)"
    if text.startswith(b"<?xml"):
        return "is an XML page, as servers send with an error"
    if first.startswith(_GZIP):
        return "is compressed (gzip)"
    if path.suffix == ".bin" and first.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return "is cut off: a zip archive without its end"
    if path.suffix in (".safetensors", ".bin") and len(first) < _FIRST and (line := _line(text)):
        return f"is text: '{line}'"
    return ""


def _line(text: bytes) -> str:
    """The first line of a file that is all printable ASCII, else ""."""
    if len(text) < _SHORTEST or not all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return ""
    return text.decode("ascii").strip().split("\n", 1)[0].strip()[:80]
