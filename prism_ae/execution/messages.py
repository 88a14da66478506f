"""What the parent and a worker say to each other.

Parent to worker: `Setup` once, then an `Assignment` whenever the worker is free, and `Stop` at any time.
Worker to parent: `Ready` once, `Finished` per cell, `Over` per assignment; `Unusable` or `Broken` when it cannot go on.
A closed connection means that the other side is gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_ae.errors import PrismError
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a worker needs to know. ``provenance`` goes into every cell's folder."""

    suite: Suite
    root: Path
    models_dir: Path
    device: str
    device_name: str
    threads: int
    provenance: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Stop:
    """Finish writing what is measured, then leave."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """The worker waits for its first assignment."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A cell is in the store, as measured or as failed."""

    cell_id: str
    status: str
    message: str


@dataclasses.dataclass(frozen=True)
class Over:
    """The assignment is over. ``leaving``: the worker ends now, because its device may be in a bad state."""

    leaving: bool = False


@dataclasses.dataclass(frozen=True)
class Unusable:
    """The engine cannot use this worker's device: the assignment was not begun. The worker ends."""

    error: PrismError


@dataclasses.dataclass(frozen=True)
class Broken:
    """The store cannot be written: nobody can go on. The worker ends."""

    error: PrismError
