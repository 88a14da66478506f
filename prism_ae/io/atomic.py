"""Writing that survives a crash: whole or not at all, on the disk when the call returns.

Every failure of the operating system becomes one StoreError that names the file and says what to do, so that a full
disk or a read-only folder never ends in a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from prism_ae.errors import StoreError
from prism_ae.io.paths import why_not

_HINTS = {
    errno.ENOSPC: "free some space, then run again: what was measured is kept",
    errno.EDQUOT: "free some of your quota, then run again: what was measured is kept",
    errno.EROFS: "choose another place with --runs-dir",
    errno.EACCES: "choose another place with --runs-dir, or change its permissions",
    errno.EPERM: "choose another place with --runs-dir, or change its permissions",
    errno.ENOTDIR: "choose another place with --runs-dir",
    errno.EEXIST: "choose another place with --runs-dir, or move that away",
    errno.EISDIR: "choose another place with --runs-dir",
}


@contextlib.contextmanager
def store_errors(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a StoreError: "cannot <doing> <path>: <why>"."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {doing} {path}: {why_not(error, path)}", _HINTS.get(error.errno or 0, "")) from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; raises OSError. One system call where the kernel takes all at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_new(path: Path, data: bytes, durable: bool = True) -> None:
    """A new file with this content; raises StoreError, also if it exists.

    Args:
        durable: it is on the disk when the call returns (a few milliseconds); False for what a power cut may take.
    """
    with store_errors("write", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish_file(path: Path, data: bytes) -> None:
    """Make ``path`` appear at once with this content, unless it exists already; raises StoreError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.unlink()  # of a killed process that had our number: in a container numbers come back
    try:
        write_new(temporary, data)
        with store_errors("write", path), contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable; raises StoreError."""
    with store_errors("write", folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
