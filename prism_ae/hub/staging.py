"""From verified files beside the place to a folder in its place, at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from prism_ae.errors import StoreError
from prism_ae.hub.files import HubFile, mismatch
from prism_ae.hub.incomplete import IncompleteFolder
from prism_ae.hub.manifest import VerifiedFolder
from prism_ae.io.atomic import publish_folder, sync
from prism_ae.io.checksums import cached_sums
from prism_ae.models.locate import sums_file

STAGING = ".staging"
"""Below the models folder: what is fetched and not yet in its place."""


def ready_folder(models_dir: Path, folder: str) -> Path:
    """Where the fetched files of a folder wait for the last of them."""
    return models_dir / STAGING / "ready" / folder


def sweep(models_dir: Path) -> None:
    """Remove empty folders of the staging folder, and it, where nothing waits in it."""
    for path, _, _ in os.walk(models_dir / STAGING, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def verify(models_dir: Path, incomplete: IncompleteFolder) -> tuple[dict[str, str], dict[str, str]]:
    """Of the fetched files: name -> sha256 of the good ones, and name -> what is wrong with the others."""
    ready = ready_folder(models_dir, incomplete.wanted.folder)
    # Remembered where the sums of the folder's final place are looked up: a rename changes neither size nor time.
    place = models_dir / STAGING / "sums.json" if incomplete.sums else sums_file(models_dir, incomplete.wanted.folder)
    sums = cached_sums(ready, [file.base for file in incomplete.missing], place)
    wrong = {
        file.base: problem
        for file in incomplete.missing
        if (problem := mismatch(ready / file.base, file, sums[file.base]))
    }
    return {name: total for name, total in sums.items() if name not in wrong}, wrong


def move(models_dir: Path, folder: str, names: Sequence[str]) -> None:
    """Put files of a folder that are ready into their place.

    A new folder appears by one rename. Into one that exists files are renamed one by one, config.json last: without it
    no checkpoint is found there.

    Raises:
        StoreError: the place cannot be written.
    """
    ready, place = ready_folder(models_dir, folder), models_dir / folder
    try:
        if names and not place.exists():
            for stray in {path.name for path in ready.iterdir()} - set(names):
                (ready / stray).unlink()
            publish_folder(ready, place)
        else:
            for name in sorted(names, key=lambda name: name == "config.json"):
                sync(ready / name)
                os.replace(ready / name, place / name)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror}", "correct that, then run again") from error


def publish(models_dir: Path, incomplete: IncompleteFolder, sums: dict[str, str]) -> VerifiedFolder:
    """Move verified files into their folder; returns what `manifest` notes of it.

    Args:
        sums: of the fetched files, name -> sha256.

    Raises:
        StoreError: the place cannot be written.
    """
    move(models_dir, incomplete.wanted.folder, [file.base for file in incomplete.missing])
    known = incomplete.sums | sums
    files = {file.base: HubFile(file.base, file.size, sha256=known[file.base]) for file in incomplete.files}
    return VerifiedFolder(incomplete.listing.hub, incomplete.listing.repository, incomplete.listing.revision, files)
