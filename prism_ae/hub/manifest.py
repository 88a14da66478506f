"""What was downloaded: `downloads.json` in the models folder, with size and sha256 of every verified file.

The first verified download of a folder writes its entry. Whatever is fetched for it later, from whichever hub, must be
the same, so that two machines or two days never measure different models under one name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism_ae.errors import CheckpointError, StoreError
from prism_ae.hub.files import HubFile, name_problem
from prism_ae.io.atomic import atomic_write

NAME = "downloads.json"


@dataclasses.dataclass(frozen=True)
class VerifiedFolder:
    """A folder as it was first verified: from where, at which revision, and its files by name in the folder."""

    hub: str
    repository: str
    revision: str
    files: dict[str, HubFile]


def read(models_dir: Path) -> dict[str, VerifiedFolder]:
    """Folder -> entry, empty where nothing was downloaded yet; raises CheckpointError for a damaged file."""
    path = models_dir / NAME
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    try:
        return {folder: _entry(folder, entry) for folder, entry in data["folders"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def write(models_dir: Path, entries: dict[str, VerifiedFolder]) -> None:
    """Replace the file at once; raises StoreError."""
    path = models_dir / NAME
    folders = {
        folder: {
            "hub": entry.hub,
            "repository": entry.repository,
            "revision": entry.revision,
            "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in sorted(entry.files.items())},
        }
        for folder, entry in sorted(entries.items())
    }
    try:
        atomic_write(path, (json.dumps({"format": 1, "folders": folders}, indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", "free some space, then run again") from error


def changes(entry: VerifiedFolder, files: Iterable[HubFile]) -> list[str]:
    """How a hub's files of a folder (named in the folder) differ from what was verified first; empty if they agree."""
    found, listed = [], {file.name: file for file in files}
    for name in sorted(entry.files.keys() | listed.keys()):
        old, new = entry.files.get(name), listed.get(name)
        if old is None:
            found.append(f"{name} is new")
        elif new is None:
            found.append(f"{name} is gone")
        elif old.size != new.size:
            found.append(f"{name} had {old.size:,} bytes and has {new.size:,}")
        elif new.sha256 and new.sha256 != old.sha256:
            found.append(f"{name} has another content")
    return found


def _entry(folder: str, data: dict[str, Any]) -> VerifiedFolder:
    if name_problem(folder):
        raise ValueError(f"folder '{folder}' {name_problem(folder)}")
    files = {}
    for name, record in data["files"].items():
        size, total = record["size"], record["sha256"]
        if name_problem(name) or type(size) is not int or size < 0 or not re.fullmatch(r"[0-9a-f]{64}", total):
            raise ValueError(f"file '{name}' of {folder} has no proper name, size and sum")
        files[name] = HubFile(name, size, sha256=total)
    if not files:
        raise ValueError(f"folder {folder} has no files")
    return VerifiedFolder(str(data["hub"]), str(data["repository"]), str(data["revision"]), files)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {why}", "delete it: the folders here are then compared with the hub and noted again"
    )
