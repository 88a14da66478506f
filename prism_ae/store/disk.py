"""Troubles of the disk as StoreErrors: a full disk or a read-only runs folder never ends in a traceback."""

from __future__ import annotations

import contextlib
import errno
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
