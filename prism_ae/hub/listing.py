"""What a repository holds: name, size and published sums of every file, from either hub's own client library."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from prism_ae.errors import CheckpointError
from prism_ae.hub.calls import in_time, prepare
from prism_ae.hub.failures import HUBS, told
from prism_ae.hub.files import HubFile, name_problem
from prism_ae.hub.selection import HubName


@dataclasses.dataclass(frozen=True)
class RepositoryListing:
    """A repository at one revision; ``files`` by their path in it."""

    hub: HubName
    repository: str
    revision: str
    files: dict[str, HubFile]


def list_repository(hub: HubName, repository: str, revision: str = "") -> RepositoryListing:
    """The files of a repository.

    Args:
        revision: a commit on Hugging Face; "" for the main branch, which is all that ModelScope has.

    Raises:
        UsageError: a variable of the environment keeps the hub's client from working.
        MissingError: it cannot be reached, does not exist, or is not open to this user.
        CheckpointError: a file's name leads out of a folder, its size is not said, or this is no list of files at all.
    """
    with told(hub, repository):
        ask = (
            (lambda: _huggingface(repository, revision)) if hub == "huggingface" else (lambda: _modelscope(repository))
        )
        found, files = in_time(f"{repository} on {HUBS[hub]}", ask)
        return RepositoryListing(hub, repository, found, checked(files, repository))


def checked(files: Iterable[HubFile], repository: str) -> dict[str, HubFile]:
    """The files by name; raises CheckpointError for what no honest repository holds."""
    found: dict[str, HubFile] = {}
    for file in files:
        problem = name_problem(file.name) or ("is listed twice" if file.name in found else "")
        problem = problem or ("has no size" if file.size < 0 else "")
        if problem:
            raise CheckpointError(
                f"repository {repository}: file {file.name!r} {problem}",
                "nothing was fetched from it; tell its owners, and take the other hub (--from)",
            )
        found[file.name] = file
    return found


def _huggingface(repository: str, revision: str) -> tuple[str, list[HubFile]]:
    prepare("huggingface")
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
    files = []
    for entry in info.siblings or []:
        size = -1 if entry.size is None else entry.size
        if entry.lfs is not None:
            files.append(HubFile(entry.rfilename, entry.lfs.size, sha256=entry.lfs.sha256.lower()))
        else:
            files.append(HubFile(entry.rfilename, size, blob=(entry.blob_id or "").lower()))
    return info.sha or "main", files


def _modelscope(repository: str) -> tuple[str, list[HubFile]]:
    prepare("modelscope")
    from modelscope_hub import HubApi

    # Its revisions are names of branches; that nothing changed in between is what the published sums say.
    entries = HubApi().list_repo_files(repository, "model", revision="master")
    return "master", [
        HubFile(entry.path, entry.size, sha256=(entry.sha256 or "").lower())
        for entry in entries
        if entry.type == "blob"
    ]
