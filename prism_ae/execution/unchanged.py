"""Whether what an engine read is what the plan summed: files that were changed in between must not give their numbers
to a cell that names the old ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prism_ae.cells import Cell
from prism_ae.engines import registry
from prism_ae.errors import PrismError
from prism_ae.models.locate import Absent, DrafterKey
from prism_ae.planning.lookup import LocalLookup
from prism_ae.prompts.questions import origin
from prism_ae.suites.records import Suite

Signature = tuple[tuple[str, int, int, int], ...]


class Unchanged:
    """Compares a cell with what lies on the disk when it is measured. Prompts are made anew only where size, time or
    place of a file changed, and folders are summed anew only where size or time did (`io.checksums`)."""

    def __init__(self, suite: Suite, models_dir: Path) -> None:
        self._suite, self._models_dir = suite, models_dir
        self._known: dict[tuple[str, str, int], tuple[Signature, str]] = {}
        """Of target, benchmark and number of questions: the files' state, and the prompts' fingerprint with it."""

    def problem(self, cell: Cell) -> str:
        """What is not as the plan found it, in words, or ""."""
        point, prints = cell.point, cell.fingerprints
        if not registry.find(point.engine).runs_models:
            return ""
        lookup = LocalLookup(self._suite, self._models_dir)
        target = lookup.target(point.target)
        if isinstance(target, Absent):
            return target.reason
        if target.fingerprint != prints.target:
            return f"{target.path} was changed"
        drafter = lookup.drafter(DrafterKey.of(point))
        if isinstance(drafter, Absent):
            return drafter.reason
        if drafter and drafter.fingerprint != prints.drafter:
            return f"{drafter.path} was changed"
        asked = point.target, point.benchmark, point.questions
        questions = origin(self._suite, point.benchmark, self._models_dir)
        signature = (*_signature(target.path), *_signature(Path(questions)))
        if self._known.get(asked, ((), ""))[0] != signature:
            try:
                self._known[asked] = signature, lookup.prompts(*asked)
            except PrismError as error:
                return error.what
        found = self._known[asked][1]
        return "" if found == prints.prompts else f"{questions}, or how {target.path} is talked to, was changed"


def _signature(place: Path) -> Iterable[tuple[str, int, int, int]]:
    """Of a file, or of a folder's files; nothing where it is not there."""
    try:
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            status = path.stat()
            yield str(path), status.st_size, status.st_mtime_ns, status.st_ino
    except OSError:
        return
