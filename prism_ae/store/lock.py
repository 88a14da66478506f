"""One run per suite at a time.

The lock belongs to an open file that the workers inherit: after a ``kill -9`` of the parent it is held until the last
of its workers is gone, so that a new run never meets an old one's workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from prism_ae.errors import StoreError
from prism_ae.store.durable import store_errors, write_all


@contextlib.contextmanager
def run_lock(root: Path, patience: float = 3.0) -> Iterator[int]:
    """Hold the right to run a suite.

    Args:
        root: the suite's runs folder; it exists.
        patience: seconds to wait for another run that is just ending.

    Yields:
        The descriptor to pass on to workers.

    Raises:
        StoreError: another run holds it, or the folder cannot be written.
    """
    path = root / "run.lock"
    with store_errors("write", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, patience)
        with store_errors("write", path):
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            write_all(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield descriptor
    finally:
        os.close(descriptor)  # not unlocked by hand: a worker that is still writing keeps its share


def _acquire(descriptor: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise StoreError(
                    f"{path.parent} is in use by another run ({holder})",
                    "wait for it to end, or stop it with Ctrl-C; 'prism-ae status' shows how far it is",
                ) from None
        except OSError as error:
            raise StoreError(
                f"cannot lock {path}: {error.strerror}", "choose a --runs-dir on a disk that supports file locks"
            ) from error
        time.sleep(0.05)
