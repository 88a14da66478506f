"""sha256 sums of large files, remembered until a file changes.

Summing a 16 GB target takes a minute and every plan needs it, so sums are kept in one small JSON file per folder.
A sum is used again only while size and time of change (ns) of its file are the same. The memory is never needed: where
it is damaged or cannot be written, the files are summed again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prism_ae.errors import CheckpointError
from prism_ae.io.atomic import atomic_write
from prism_ae.io.digests import file_digest

Watch = Callable[[Path, int], None]
"""Is told of a folder whose files are about to be read, and how many bytes these are."""


def cached_sums(folder: Path, files: Sequence[str], memory: Path, watch: Watch | None = None) -> dict[str, str]:
    """File name -> sha256 (hex) of the named files of ``folder``.

    Args:
        folder: is only read.
        files: names of files that exist.
        memory: JSON file outside ``folder`` that remembers; made when missing.
        watch: called once before files are read, where some have to be.

    Raises:
        CheckpointError: a file cannot be read, or changed while it was summed.
    """
    known = _read(memory)
    try:
        states = {name: _state(folder / name) for name in files}
        entries = {name: known[name] for name in files if _remembered(known.get(name), states[name])}
        unknown = [name for name in files if name not in entries]
        if unknown and watch is not None:
            watch(folder, sum(states[name]["size"] for name in unknown))
        for name in unknown:
            entries[name] = {**states[name], "sha256": file_digest(folder / name)}
            if _state(folder / name) != states[name]:
                raise CheckpointError(f"{folder / name} changed while it was read", "wait until it is complete")
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error
    if entries != known:
        _write(memory, entries)
    return {name: entries[name]["sha256"] for name in files}


def _remembered(entry: Any, state: dict[str, int]) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and all(entry.get(key) == value for key, value in state.items())
    )


def _state(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read(memory: Path) -> dict[str, Any]:
    try:
        data = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(memory: Path, entries: dict[str, dict[str, Any]]) -> None:
    # A models folder that is only readable, or full, is fine: its files are summed each time.
    with contextlib.suppress(OSError):
        atomic_write(memory, (json.dumps(entries, indent=1) + "\n").encode())
