"""One process at a time, by a lock of the file system: freed by the kernel when its last holder is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prism_ae.errors import StoreError
from prism_ae.io.paths import why_not

_TICK = 0.05


@contextlib.contextmanager
def locked(path: Path, patience: float, busy: Callable[[str], StoreError], option: str) -> Iterator[int]:
    """Hold the lock of a file, which is made where it is missing and stays.

    Args:
        patience: seconds to wait for a holder that is just ending.
        busy: the error where another process holds it; told which, in words.
        option: that names another place, for the hint.

    Yields:
        A descriptor. Whoever inherits it keeps a share of the lock.

    Raises:
        StoreError: another process holds it, the file cannot be written, or its file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {why_not(error, path)}", f"choose another {option}") from error
    try:
        _acquire(descriptor, path, patience, busy, option)
        with contextlib.suppress(OSError):  # only for the message of others
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # not unlocked by hand: a worker that is still writing keeps its share


def _acquire(descriptor: int, path: Path, patience: float, busy: Callable[[str], StoreError], option: str) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise busy(holder) from None
        except OSError as error:
            raise _unlockable(error, path, option) from error
        time.sleep(_TICK)


def lock_whole(descriptor: int, path: Path, option: str) -> None:
    """Wait for the lock of an open file; raises StoreError where its file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise _unlockable(error, path, option) from error


def _unlockable(error: OSError, path: Path, option: str) -> StoreError:
    return StoreError(f"cannot lock {path}: {error.strerror}", f"choose a {option} on a disk that supports file locks")
