"""The runs folder of one suite: the log of finished cells and a folder per attempt.

    runs/<suite>/
        suite.json                what this folder is for
        log.jsonl                 one line per finished attempt (`log.py`)
        cells/<id>[-n]/           the n-th attempt at a cell
            provenance.json       written first, before anything is measured
            engine.log            what the engine printed
            samples.jsonl         raw counts per question

An attempt counts once its line is in the log, and only then; the line carries the sum of the samples. A folder that the
log does not know is a leftover of a run that was killed: the next attempt takes its place. A logged folder is never
touched again.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prism_ae.cells import Cell, Result, Sample
from prism_ae.errors import StoreError
from prism_ae.io.atomic import publish_file, sync, write_new
from prism_ae.io.digests import canonical_json
from prism_ae.store.disk import store_errors
from prism_ae.store.log import Damage, Log, LogContent
from prism_ae.store.records import OK, Record, parse_samples, samples_text

FORMAT = 1
"""Of the folder's layout."""

_MARKER = "suite.json"


@dataclasses.dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt ended, see `Record`; ``result`` is given exactly when the status is "ok"."""

    status: str
    message: str = ""
    result: Result | None = None

    def __post_init__(self) -> None:
        if (self.status == OK) != (self.result is not None):
            raise ValueError("a result belongs to status 'ok' and to no other")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A cell that is being measured: its folder, and when that began (UTC, ISO 8601)."""

    cell: Cell
    folder: Path
    started: str


class Store:
    """One suite's runs folder. Reading never writes; the folder is made by `prepare`.

    Args:
        root: the folder, by convention ``runs/<suite>``.
        suite, version: the suite's name and version; a folder of another one is refused.

    Raises:
        StoreError: the folder is another suite's or version's, no runs folder at all, or cannot be read.
    """

    def __init__(self, root: Path, suite: str, version: int) -> None:
        self.root = root
        self._identity = {"format": FORMAT, "suite": suite, "version": version}
        self._log = Log(root / "log.jsonl")
        self._check()

    def _check(self) -> None:
        marker = self.root / _MARKER
        with store_errors("read", marker):
            try:
                text = marker.read_bytes()
            except FileNotFoundError:
                # Something of another run's preparation may be there: it is under way, or was killed.
                if self.root.is_dir() and any(not path.name.startswith(f".{_MARKER}") for path in self.root.iterdir()):
                    raise StoreError(
                        f"{self.root} holds other files and no suite.json: it is no runs folder of prism-ae",
                        "choose another place with --runs-dir",
                    ) from None
                return
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise StoreError(
                f"{marker} is damaged", f"if this is the suite's folder, it must say {canonical_json(self._identity)}"
            ) from None
        if found != self._identity:
            raise StoreError(
                f"{self.root} was written for {found}, and this run needs {self._identity}",
                "choose another place with --runs-dir, or move that folder away",
            )

    def prepare(self) -> None:
        """Make the folder; nothing happens where it exists. Raises StoreError."""
        with store_errors("create", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        # The marker before anything else: whatever is killed here, the folder says what it is or is still empty.
        with store_errors("write", self.root / _MARKER):
            publish_file(self.root / _MARKER, canonical_json(self._identity).encode() + b"\n")
        self._check()
        with store_errors("create", self.root):
            (self.root / "cells").mkdir(exist_ok=True)

    def records(self) -> Mapping[str, Record]:
        """Cell id -> its record: the measured one, or the latest failure where there is none. Raises StoreError."""
        return _select(self._log.read())[0]

    @property
    def quarantined(self) -> tuple[Damage, ...]:
        """Lines of the log that are set aside: torn, altered, or not a record of this format. Raises StoreError."""
        content = self._log.read()
        return tuple(sorted({*content.damaged, *_select(content)[1]}, key=lambda damage: damage.line))

    def samples(self, record: Record) -> tuple[Sample, ...]:
        """The samples of a measured cell; raises StoreError when they are not the ones that were logged."""
        path = self.root / "cells" / record.attempt / "samples.jsonl"
        if record.samples_sha256 is None:
            raise StoreError(f"cell {record.cell.id} has no samples: it is recorded as {record.status}")
        lost = (
            f"restore it, or delete the line that names attempt {record.attempt} from {self._log.path}: then the cell "
            "is measured again"
        )
        try:
            text = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", lost) from error
        if _sum(text) != record.samples_sha256:
            raise StoreError(
                f"{path} is not what was measured: its checksum differs from the log's",
                lost,
            )
        try:
            return parse_samples(text)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path} holds no samples: {error}", lost) from error

    def begin(self, cells: Iterable[Cell], provenance: Mapping[str, Any]) -> tuple[Attempt, ...]:
        """Make the folders of new attempts, each with its ``provenance.json``. Raises StoreError."""
        logged = {str(record["attempt"]) for _, record in self._log.read().records if "attempt" in record}
        attempts = tuple(self._begin(cell, provenance, logged) for cell in cells)
        with store_errors("write", self.root / "cells"):
            sync(self.root / "cells")
        return attempts

    def _begin(self, cell: Cell, provenance: Mapping[str, Any], logged: set[str]) -> Attempt:
        number, name = 1, cell.id
        while name in logged:
            number += 1
            name = f"{cell.id}-{number}"
        folder = self.root / "cells" / name
        started = now()
        with store_errors("create", folder):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        content = {"cell_id": cell.id, "cell": cell.to_json(), "started": started, **provenance}
        with store_errors("write", folder / "provenance.json"):
            write_new(folder / "provenance.json", (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
        return Attempt(cell, folder, started)

    def commit(
        self, attempt: Attempt, outcome: AttemptOutcome, worker_seconds: float, device: str, engine_log: bytes
    ) -> bool:
        """Finish an attempt: write its samples and its engine's log, then its line.

        Args:
            worker_seconds, device: see `Record`.
            engine_log: what the engine printed.

        Returns:
            False when the cell is measured already: the log stays as it is.

        Raises:
            StoreError: something could not be written; the attempt does not count, and nothing older is damaged.
        """
        result = outcome.result
        if _measured(self._log.read(), attempt.cell.id):
            return False
        text = samples_text(result.samples) if result else None
        with store_errors("write", attempt.folder):
            write_new(attempt.folder / "engine.log", engine_log, durable=False)
            if text is not None:
                write_new(attempt.folder / "samples.jsonl", text)
            sync(attempt.folder)
        record = Record(
            cell=attempt.cell,
            status=outcome.status,
            # A file name in another encoding than the locale's carries raw bytes, which no JSON text can hold.
            message=outcome.message.encode("utf-8", "replace").decode(),
            attempt=attempt.folder.name,
            started=attempt.started,
            finished=now(),
            worker_seconds=round(worker_seconds, 6),
            wall_seconds=result.wall_seconds if result else None,
            settings=result.settings.to_json() if result else {},
            samples_sha256=_sum(text) if text is not None else None,
            device=device,
        )
        return self._log.append(record.to_json(), unless=lambda content: _measured(content, attempt.cell.id))


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _sum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _measured(content: LogContent, cell_id: str) -> bool:
    return any(record.get("cell_id") == cell_id and record.get("status") == OK for _, record in content.records)


def _select(content: LogContent) -> tuple[dict[str, Record], list[Damage]]:
    """The record that speaks for each cell, and the lines that are no record of this format."""
    chosen: dict[str, Record] = {}
    foreign: list[Damage] = []
    for line, data in content.records:
        try:
            record = Record.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            foreign.append(Damage(line, f"is no record of this format: {error}"))
            continue
        earlier = chosen.get(record.cell.id)
        if earlier is None or not earlier.ok:
            chosen[record.cell.id] = record
    return chosen, foreign
