"""Which of a request's models are on this machine, and the disk space they take, for ``plan``. Writes nothing."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from prism_ae.cells import Cell, Point
from prism_ae.errors import MissingError, PrismError
from prism_ae.io.paths import size_of
from prism_ae.models.locate import Absent, DrafterKey, Located
from prism_ae.planning.plan import Lookup
from prism_ae.store import Record
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The checkpoints and question files that points read, without those that were never published.

    Attributes:
        targets, drafters: how many checkpoints there should be of either.
        here: folders of those that are here.
        absent: the others: folder below the models folder, or what is missing in words where it has no name yet.
        questions: benchmarks whose question file is not here.
        size: bytes of the folders that are here.
        free: bytes that are free on the disk of the models folder.
    """

    targets: int
    drafters: int
    here: tuple[Path, ...]
    absent: tuple[str, ...]
    questions: tuple[str, ...]
    size: int
    free: int

    @property
    def folders(self) -> int:
        return len(self.here) + len(self.absent)


def take_inventory(points: Iterable[Point], lookup: Lookup, suite: Suite, models_dir: Path) -> Inventory:
    """Look for everything that these points read."""
    asked = [point for point in points if not lookup.engine_problem(point)]
    targets = {target: lookup.target(target) for target in dict.fromkeys(point.target for point in asked)}
    named = {name: suite.targets[name].folder for name in targets}
    found: dict[str, Located | Absent] = {_key(one, named[name]): one for name, one in targets.items()}
    count = len(found)
    for key in dict.fromkeys(map(DrafterKey.of, asked)):
        one = lookup.drafter(key)
        if isinstance(one, Located) or (isinstance(one, Absent) and one.hint):
            folder = suite.drafter_folder(key.target, key.drafter, key.scale, key.engine)
            found.setdefault(_key(one, folder), one)
    here = tuple(one.path for one in found.values() if isinstance(one, Located))
    return Inventory(
        targets=count,
        drafters=len(found) - count,
        here=here,
        absent=tuple(key for key, one in found.items() if isinstance(one, Absent)),
        questions=_without_questions(asked, lookup),
        size=size_of(here),
        free=free_at(models_dir),
    )


def _key(found: Located | Absent, folder: str | None) -> str:
    """What is the same for one checkpoint, whoever asks for it."""
    return str(found.path) if isinstance(found, Located) else folder or found.reason


def _without_questions(points: Iterable[Point], lookup: Lookup) -> tuple[str, ...]:
    missing = []
    for target, benchmark, count in dict.fromkeys((p.target, p.benchmark, p.questions) for p in points):
        try:
            lookup.prompts(target, benchmark, count)
        except MissingError:
            missing.append(benchmark)
        except PrismError:
            continue  # a damaged file is here, and reported as the reason of its missing cells
    return tuple(dict.fromkeys(missing))


def free_at(folder: Path) -> int:
    """Bytes that are free where a folder is or would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def bytes_to_write(cells: Iterable[Cell], records: Mapping[str, Record], root: Path) -> tuple[int, int]:
    """The bytes that measuring these cells adds to the runs folder ``root``, and for how many of them that is known:
    the mean over finished cells of the same engine and number of questions, their share of the log included."""
    sizes: dict[tuple[str, int], list[int]] = {}
    for record in records.values():
        if record.ok:
            sizes.setdefault(_kind(record.cell), []).append(size_of([root / "cells" / record.attempt]))
    log = root / "log.jsonl"
    line = log.stat().st_size / len(records) if records and log.exists() else 0.0
    means = {kind: statistics.fmean(values) + line for kind, values in sizes.items()}
    known = [means[_kind(cell)] for cell in cells if _kind(cell) in means]
    return round(sum(known)), len(known)


def _kind(cell: Cell) -> tuple[str, int]:
    """Cells of one kind are expected to take equally much room."""
    return cell.point.engine, cell.point.questions
