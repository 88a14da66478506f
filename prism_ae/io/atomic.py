"""Files and folders that appear whole or not at all, and are on the disk when the call returns.

What is written lies beside its place under a hidden name with this process's number, and is renamed: a crash at any
moment leaves the old one, the new one, or a hidden leftover that the next process of that number takes over. Every
function raises OSError; callers say what that means for their files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; raises OSError. One system call where the kernel takes all at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_new(path: Path, data: bytes, *, durable: bool = True) -> None:
    """A new file with this content; raises OSError, also if it exists.

    Args:
        durable: it is on the disk when the call returns (a few milliseconds); False for what a power cut may take.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file, or make it with the folders above it, at once; raises OSError."""
    atomic_write_all({path: data})


def atomic_write_all(files: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then rename all: an error of writing leaves the old ones as they were.

    Raises:
        OSError: ``filename`` is the file among ``files`` that could not be written.
    """
    path = next(iter(files))
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_beside(path, data)
        for path in files:
            _beside(path).replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        for path in files:
            with contextlib.suppress(OSError):
                _beside(path).unlink()
    for folder in dict.fromkeys(path.parent for path in files):
        _sync_entries(folder)


def publish_file(path: Path, data: bytes) -> None:
    """Make ``path`` appear at once with this content, unless it exists already; raises OSError."""
    try:
        _write_beside(path, data)
        with contextlib.suppress(FileExistsError):
            os.link(_beside(path), path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            _beside(path).unlink()


def publish_folder(filled: Path, place: Path) -> None:
    """Make a folder appear at once; raises OSError, also where ``place`` is a folder that holds anything.

    Args:
        filled: holds everything, files alone, on the file system of ``place``; it is gone then.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    for path in filled.iterdir():
        sync(path)
    _sync_entries(filled)
    filled.rename(place)
    _sync_entries(place.parent)


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_entries(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system syncs folders
        sync(folder)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write_beside(path: Path, data: bytes) -> None:
    with contextlib.suppress(OSError):
        _beside(path).unlink()  # of a killed process that had our number: in a container numbers come back
    write_new(_beside(path), data)
