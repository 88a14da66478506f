"""Tensors that are files: larger than memory, and still there when the process has ended.

A file's pages are read when they are needed and dropped when memory is. Their room on the disk is taken when they are
made, because a page that finds none while it is written ends the process. How far they are filled is noted beside
them, after what was filled is on the disk; so whatever is killed, what is noted is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prism_ae.errors import StoreError
from prism_ae.io.atomic import atomic_write, sync
from prism_ae.io.digests import digest
from prism_ae.io.paths import why_not

_NOTE_SECONDS = 20.0


def content_digest(tensors: Iterable[Tensor]) -> str:
    """sha256 (hex) of the tensors' bytes, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


class MappedFiles:
    """Files of one content in a folder.

    Args:
        folder: made if it does not exist.
        name: first part of the files' names; the second is the digest of ``about``.
        about: everything that decides the content, as data.
    """

    def __init__(self, folder: Path, name: str, about: Any) -> None:
        self._stem = folder / f"{name}-{digest(about)[:16]}"
        self._paths: list[Path] = []
        self._noted = time.monotonic()

    def tensor(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The file as a tensor on the CPU, zeros at first; raises StoreError."""
        size = math.prod(shape)
        if not size:
            return torch.empty(*shape, dtype=dtype)
        path = self._stem.with_name(f"{self._stem.name}.{name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, size * dtype.itemsize)
            finally:
                os.close(descriptor)
            found = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
        except (OSError, RuntimeError) as error:
            why = why_not(error, path) if isinstance(error, OSError) else str(error)
            room = f"{size * dtype.itemsize / 1e9:,.1f} GB for the target's hidden states"
            raise StoreError(f"cannot make {path}: {why}", f"free {room}, or choose another place") from error
        self._paths.append(path)
        return found.view(*shape)

    def progress(self, part: str) -> int:
        """What was last noted for ``part``; 0 where nothing was."""
        try:
            return int(json.loads(self._note(part).read_bytes())["done"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def note(self, part: str, done: int, *, last: bool) -> None:
        """Remember that ``part`` is filled so far; now and then, and at the end. Raises StoreError."""
        if not last and time.monotonic() - self._noted < _NOTE_SECONDS:
            return
        try:
            for path in self._paths:
                sync(path)
            atomic_write(self._note(part), json.dumps({"done": done}).encode())
        except OSError as error:
            raise StoreError(f"cannot write {self._note(part)}: {why_not(error, self._stem)}") from error
        self._noted = time.monotonic()

    def _note(self, part: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{part.replace(' ', '-')}.json")
