"""The benchmarks' question files, from the artifact's pinned commit. Small, with known sums."""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError
from prism_ae.fingerprint import file_digest
from prism_ae.hub import transfer
from prism_ae.hub.clients import UnreachableError
from prism_ae.prompts.questions import FOLDER
from prism_ae.suites.records import Hub, Suite

_LARGEST = 16 << 20
"""Bytes; the paper's files have at most 0.3 MB."""


def missing(suite: Suite, hub: Hub, models_dir: Path) -> list[str]:
    """Benchmarks whose question file is not here or not the published one; raises StoreError."""
    found = []
    for name, total in hub.question_sums.items():
        path = models_dir / FOLDER / suite.benchmarks[name].file
        try:
            if not path.is_file() or file_digest(path) != total:
                found.append(name)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
    return found


def fetch(suite: Suite, hub: Hub, benchmark: str, models_dir: Path) -> None:
    """Put a benchmark's question file in its place, verified.

    Raises:
        MissingError: it cannot be reached (UnreachableError) or is not there.
        CheckpointError: it is not the file that the suite names.
        StoreError: it cannot be written.
    """
    file = suite.benchmarks[benchmark].file
    address = hub.questions.format(file=file)
    data = _get(address)
    total = hashlib.sha256(data).hexdigest()
    if total != hub.question_sums[benchmark]:
        raise CheckpointError(
            f"{address} has sha256 {total[:12]}…, expected is {hub.question_sums[benchmark][:12]}…",
            "try again later: something on the way changes it",
        )
    path = models_dir / FOLDER / file
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}", "make room or choose another --models-dir"
        ) from error


def _get(address: str) -> bytes:
    if not address.startswith(("https://", "http://")):
        raise MissingError(f"{address} is no address that files are fetched from", "correct hub.questions")
    for pause in (*transfer.PAUSES, None):
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                data: bytes = answer.read(_LARGEST + 1)
        except (OSError, http.client.HTTPException) as error:
            problem = _problem(address, error)
            if pause is None or not isinstance(problem, UnreachableError):
                raise problem from error
            time.sleep(pause)
            continue
        if len(data) > _LARGEST:
            raise CheckpointError(f"{address} sends more than {_LARGEST >> 20} MB, no question file is so large")
        return data
    raise AssertionError("the last attempt returns or raises")


def _problem(address: str, error: Exception) -> PrismError:
    if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code not in (408, 429):
        return MissingError(f"{address} does not exist (HTTP {error.code})", "correct hub.questions of the suite")
    return UnreachableError(
        f"{address} cannot be fetched: {error}", "check the network and run the same command again: it continues"
    )
