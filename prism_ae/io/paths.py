"""What files and folders are: why one cannot be used, where the system's words leave that open, and their sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def why_not(error: OSError, path: Path) -> str:
    """The cause in words: the system's, or the link to nowhere or the file in a folder's place that they hide.

    Args:
        path: what was to be read, written or made.
    """
    if isinstance(error, FileExistsError | FileNotFoundError | NotADirectoryError):
        for one in (path, *path.parents):
            if one.is_symlink() and not one.exists():
                return f"{one} is a link to {os.readlink(one)}, which does not exist"
            if one.is_file() and (one != path or isinstance(error, FileExistsError)):
                return f"{error.strerror}: {one} is a file"
    return error.strerror or str(error)


def size_of(folders: Iterable[Path]) -> int:
    """Bytes of all files below these folders, each file once; what cannot be read counts nothing."""
    sizes: dict[tuple[int, int], int] = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    status = os.stat(os.path.join(place, name))
                except OSError:
                    continue
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
