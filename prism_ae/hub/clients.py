"""The two hubs' own client libraries: kept quiet, imported late, and their errors in this project's words.

Addresses, tokens and proxies are theirs: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE; MODELSCOPE_ENDPOINT,
MODELSCOPE_API_TOKEN.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator

from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError
from prism_ae.hub.wanted import HubName

_PACKAGES = ("huggingface_hub", "modelscope_hub", "httpx", "httpcore", "requests", "urllib3")
_NAMES = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
_TOKENS = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class UnreachableError(MissingError):
    """The hub or the way to it failed: trying again may help."""


def quiet(hub: HubName) -> None:
    """No bars and no lines about retries on standard error: how far a download is, is said in one place."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if hub == "modelscope":
        import modelscope_hub.utils.logger  # noqa: F401  it sets its level and handler when it is imported
    for package in ("huggingface_hub", "modelscope_hub", "httpx"):
        logging.getLogger(package).setLevel(logging.ERROR)


@contextlib.contextmanager
def hub_errors(hub: HubName, repository: str, file: str = "") -> Iterator[None]:
    """Errors of the client libraries become PrismErrors; a bug's exception passes through.

    Raises:
        UnreachableError: a connection, a server or an answer failed.
        MissingError: the repository or file does not exist or is not open to this user.
        CheckpointError: what is sent is not what is listed.
        StoreError: the disk is full, read-only or not ours.
    """
    try:
        yield
    except PrismError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _PACKAGES:
            raise _translated(hub, f"{repository} on {_NAMES[hub]}", file, error) from error
        raise


def _translated(hub: HubName, repository: str, file: str, error: Exception) -> PrismError:
    what = f"{file} of {repository}" if file else repository
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception) and len(causes) < 10:
        causes.append(cause)
    for one in causes:
        if isinstance(one, OSError) and one.errno in _DISK:
            return StoreError(
                f"{what} cannot be written: {one.strerror}", "make room or choose another --models-dir; run again"
            )
    if any(type(one).__name__ in ("FileIntegrityError", "FileSizeMismatchError") for one in causes):
        return CheckpointError(f"{what} is not what is listed: {_line(error)}", "try again later, or the other hub")
    status = next(filter(None, map(_status, causes)), 0)
    if status in (401, 403):
        return MissingError(
            f"{repository} does not exist, or is not open to you (HTTP {status})",
            f"ask for access on its page, then set {_TOKENS[hub]} to your token and run again",
        )
    if status in (404, 410):
        return MissingError(f"{what} does not exist", "take the other hub with --from, or leave it out with --only")
    return UnreachableError(
        f"{what} cannot be fetched: {_line(error)}", "check the network and run the same command again: it continues"
    )


def _status(error: Exception) -> int:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def _line(error: Exception) -> str:
    """What went wrong: the system's own words, wherever in a long text they stand, or the text's first line."""
    if found := re.search(r"\[Errno -?\d+\] ([\w ,.-]+)", str(error)):
        return found[1].strip()
    lines = str(error).strip().splitlines()
    return lines[0].partition(" (Caused by")[0][:200] if lines else type(error).__name__
