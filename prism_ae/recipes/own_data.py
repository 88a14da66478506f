"""Which conversations a suite's drafters learn from, where they are a user's own and not what the target writes.

One small file in the suite's folder of models says so: with it every plan finds the drafters that were trained on them.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from prism_ae.errors import ConfigError, StoreError
from prism_ae.io.atomic import atomic_write
from prism_ae.io.paths import why_not

_FILE = "own-data.json"


@dataclasses.dataclass(frozen=True)
class OwnData:
    """Conversations of one's own: the sha256 (hex) of the file's bytes, and what the file was called."""

    sum: str
    name: str


def read_own_data(folder: Path) -> OwnData | None:
    """What a suite's folder says; None where its drafters learn from what the target writes.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / _FILE
    try:
        data = json.loads(path.read_bytes())
        found = OwnData(data["sum"], data["name"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not say which data are trained on: {error!r}", _REMEDY.format(path)) from error
    if not (isinstance(found.sum, str) and isinstance(found.name, str)):
        raise ConfigError(f"{path} does not say which data are trained on", _REMEDY.format(path))
    return found


_REMEDY = "delete {}, and train again with the same --data"


def check_own_data(folder: Path, asked: OwnData | None) -> None:
    """Raises ConfigError where a suite's drafters learn from other data than those that are asked for."""
    before = read_own_data(folder)
    if before is None or (asked is not None and asked.sum == before.sum):
        return
    other = f"{asked.name} (sha256 {asked.sum[:12]}…)" if asked else "what the target writes"
    raise ConfigError(
        f"the drafters in {folder} learn from {before.name} (sha256 {before.sum[:12]}…), not from {other}",
        f"say --data {before.name}, choose another --models-dir, or delete {folder / _FILE}",
    )


def note_own_data(folder: Path, own: OwnData) -> None:
    """Remember them; raises StoreError."""
    path = folder / _FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(dataclasses.asdict(own), indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {why_not(error, path)}", "choose another --models-dir") from error
