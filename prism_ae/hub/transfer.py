"""One file from a hub, by the hub's own client library: it resumes what a broken connection left."""

from __future__ import annotations

import time
from pathlib import Path

from prism_ae.errors import CheckpointError
from prism_ae.hub.clients import UnreachableError, hub_errors, quiet
from prism_ae.hub.listing import Listing
from prism_ae.hub.verify import File, leads_out

PAUSES = (1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt, on top of what the libraries try by themselves."""


def fetch(listing: Listing, file: File, staging: Path) -> Path:
    """A file of a repository, below ``staging`` under its path in the repository. Its content is not verified yet.

    Raises:
        MissingError: the hub cannot be reached (UnreachableError), or the file is not there or not open to this user.
        CheckpointError: what was sent is not what is listed.
        StoreError: the disk is full or cannot be written.
    """
    for pause in (*PAUSES, None):
        try:
            with hub_errors(listing.hub, listing.repository, file.name):
                path = (_huggingface if listing.hub == "huggingface" else _modelscope)(listing, file, staging)
            break
        except UnreachableError:
            if pause is None:
                raise
            time.sleep(pause)
    if path.is_symlink() or leads_out(path, staging):
        raise CheckpointError(f"{path} is a link, downloads are plain files", "delete it and run again")
    return path


def _huggingface(listing: Listing, file: File, staging: Path) -> Path:
    quiet("huggingface")
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(listing.repository, file.name, revision=listing.revision, local_dir=staging))


def _modelscope(listing: Listing, file: File, staging: Path) -> Path:
    quiet("modelscope")
    from modelscope_hub import HubApi

    return HubApi().download_file(
        listing.repository, "model", file.name, revision=listing.revision, local_dir=staging, file_size=file.size
    )
