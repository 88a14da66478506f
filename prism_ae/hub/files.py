"""What a file must be, and whether it is: names, sizes and sums. Reads files, never writes."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path, PurePosixPath


@dataclasses.dataclass(frozen=True)
class HubFile:
    """A published file.

    Attributes:
        name: its path in the repository, with "/".
        size: bytes, -1 where the hub does not say.
        sha256: hex, "" where the hub publishes none.
        blob: git's sum of the content (hex), "" where it is not published. Hugging Face has it for small files.
    """

    name: str
    size: int
    sha256: str = ""
    blob: str = ""

    @property
    def base(self) -> str:
        return PurePosixPath(self.name).name


def name_problem(name: str) -> str:
    """Why a name from a hub is not a plain path below a folder, or ""."""
    parts = name.split("/")
    if not name or name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name:
        return "is no path inside the repository"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of the repository"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "contains control characters"
    return ""


def mismatch(path: Path, expected: HubFile, sha256: str) -> str:
    """What is wrong with a file, "" if it is the published one.

    Args:
        path: the file here.
        expected: what was published.
        sha256: hex, of the file here.
    """
    size = path.stat().st_size
    if size != expected.size:
        return f"has {size:,} bytes, published are {expected.size:,}"
    if expected.sha256 and sha256 != expected.sha256:
        return f"has sha256 {sha256[:12]}…, published is {expected.sha256[:12]}…"
    if expected.blob and not expected.sha256 and blob_sum(path) != expected.blob:
        return f"has another content than was published (git sum {expected.blob[:12]}…)"
    return ""


def blob_sum(path: Path) -> str:
    """git's sum of a file's content: sha1 (hex) of a header and the bytes."""
    total = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def leads_out(path: Path, root: Path) -> bool:
    """Whether links on the way to ``path`` lead out of the folder ``root``."""
    return not path.resolve().is_relative_to(root.resolve())
