"""Canonical JSON and digests: what identifies a cell, a recipe or a file.

Two values get the same digest exactly when their canonical JSON is the same text: keys sorted, no spaces, floats
as Python prints them, NaN refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Dataclasses to dictionaries, tuples to lists, recursively; other values as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """One text per value; raises ValueError for NaN and infinities, TypeError for what JSON cannot say."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes; raises OSError as ``open`` does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
