"""One file from a hub, by the hub's own client library: it resumes what a broken connection left."""

from __future__ import annotations

from pathlib import Path

from prism_ae.errors import CheckpointError
from prism_ae.hub.calls import persistently, prepare
from prism_ae.hub.failures import told
from prism_ae.hub.files import HubFile, leads_out
from prism_ae.hub.listing import RepositoryListing


def fetch(listing: RepositoryListing, file: HubFile, staging: Path) -> Path:
    """A file of a repository, below ``staging`` under its path in the repository. Its content is not verified yet.

    Raises:
        UsageError: a variable of the environment keeps the hub's client from working.
        MissingError: the hub cannot be reached (UnreachableError), or the file is not there or not open to this user.
        CheckpointError: what was sent is not what is listed.
        StoreError: the disk is full or cannot be written.
    """

    def attempt() -> Path:
        with told(listing.hub, listing.repository, file.name):
            return (_huggingface if listing.hub == "huggingface" else _modelscope)(listing, file, staging)

    path = persistently(attempt)
    if path.is_symlink() or leads_out(path, staging):
        raise CheckpointError(f"{path} is a link, downloads are plain files", "delete it and run again")
    return path


def _huggingface(listing: RepositoryListing, file: HubFile, staging: Path) -> Path:
    prepare("huggingface")
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(listing.repository, file.name, revision=listing.revision, local_dir=staging))


def _modelscope(listing: RepositoryListing, file: HubFile, staging: Path) -> Path:
    prepare("modelscope")
    from modelscope_hub import HubApi

    return HubApi().download_file(
        listing.repository, "model", file.name, revision=listing.revision, local_dir=staging, file_size=file.size
    )
