"""What of the wanted folders is here, and what has to be fetched. Reads the disk and the listings, writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prism_ae.errors import CheckpointError, MissingError
from prism_ae.hub.files import HubFile, leads_out, mismatch
from prism_ae.hub.listing import RepositoryListing
from prism_ae.hub.manifest import VerifiedFolder, changes
from prism_ae.hub.selection import PublishedFolder, needed
from prism_ae.io.checksums import cached_sums
from prism_ae.models.locate import sums_file
from prism_ae.models.weights import FORMATS


@dataclasses.dataclass(frozen=True)
class IncompleteFolder:
    """A folder that is not complete.

    Attributes:
        files: all it should have, by their path in the repository.
        missing: those of them to fetch.
        sums: file name in the folder -> sha256 of those that are here.
    """

    wanted: PublishedFolder
    listing: RepositoryListing
    files: tuple[HubFile, ...]
    missing: tuple[HubFile, ...]
    sums: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.missing)


def good_sums(models_dir: Path, folder: str, files: Iterable[HubFile]) -> dict[str, str]:
    """File name -> sha256 of those files of a folder that are here and as published; raises CheckpointError."""
    place = models_dir / folder
    here = {file.base: file for file in files if _has_size(place / file.base, file.size)}
    if not here:
        return {}
    sums = cached_sums(place, sorted(here), sums_file(models_dir, folder))
    return {name: total for name, total in sums.items() if not mismatch(place / name, here[name], total)}


def is_complete(models_dir: Path, folder: str, entry: VerifiedFolder) -> bool:
    """Whether a folder is as it was first verified."""
    return len(good_sums(models_dir, folder, entry.files.values())) == len(entry.files)


def compare(
    models_dir: Path,
    wanted: PublishedFolder,
    listing: RepositoryListing,
    entry: VerifiedFolder | None,
    known: Mapping[str, str],
) -> IncompleteFolder:
    """What a folder lacks of what its repository holds.

    Args:
        entry: what was verified first, None where there is nothing to agree with.
        known: file name -> sha256 (hex) that the suite says it has.

    Raises:
        MissingError: the repository has no checkpoint there.
        CheckpointError: it holds other files than the suite says or than those verified first, or ones here cannot be
            replaced.
    """
    files = [listing.files[name] for name in needed(listing.files, wanted.within)]
    where = f"{wanted.within or 'the top'} of {wanted.repository}"
    names = {file.base for file in files}
    if "config.json" not in names or not any(kind.has(name) for kind in FORMATS for name in names):
        raise MissingError(f"{where} holds no checkpoint (config.json and weights)", "take the other hub with --from")
    files = [_known(file, known, where) for file in files]
    if entry is not None:
        named = [dataclasses.replace(file, name=file.base) for file in files]
        if changed := changes(entry, named):
            raise CheckpointError(
                f"{where} is not what was downloaded first (from {entry.repository}): {'; '.join(changed)}",
                f"put the old files back in {models_dir / wanted.folder}, or take the new ones with --renew",
            )
        files = [dataclasses.replace(file, sha256=entry.files[file.base].sha256) for file in files]
    sums = good_sums(models_dir, wanted.folder, files)
    missing = tuple(file for file in files if file.base not in sums)
    refuse_links(models_dir, wanted.folder, missing)
    return IncompleteFolder(wanted, listing, tuple(files), missing, sums)


def refuse_links(models_dir: Path, folder: str, missing: Sequence[HubFile]) -> None:
    """Raises CheckpointError where files that are missing would be written through a link."""
    place = models_dir / folder
    if missing and leads_out(place, models_dir):
        raise CheckpointError(
            f"{place} is a link that leads out of {models_dir}, and {missing[0].base} there is missing or damaged",
            "downloads never write through links: remove the link, or repair what it leads to",
        )


def _known(file: HubFile, known: Mapping[str, str], where: str) -> HubFile:
    total = known.get(file.base, "")
    if total and file.sha256 not in ("", total):
        raise CheckpointError(
            f"{file.base} at {where} has sha256 {file.sha256[:12]}…, the suite's file says {total[:12]}…",
            "take the other hub with --from; if that is so there, too, tell the suite's authors",
        )
    return dataclasses.replace(file, sha256=total) if total else file


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
