"""A suite's models and questions, from the hubs into the models folder: what is missing, verified, in its place.

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
from prism_ae.hub.environment import one_trust
from prism_ae.hub.incomplete import IncompleteFolder, compare, is_complete
from prism_ae.hub.listing import list_repository
from prism_ae.hub.pool import DownloadPool, HangingError
from prism_ae.hub.selection import HubName, PublishedFolder
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
    """What is to be fetched, and the errors of what cannot be."""

    folders: tuple[IncompleteFolder, ...]
    questions: tuple[str, ...]
    problems: tuple[PrismError, ...]
    complete: int
    free: int

    @property
    def size(self) -> int:
        """Bytes of model files to fetch."""
        return sum(one.size for one in self.folders)


@dataclasses.dataclass(frozen=True)
class Reports:
    """Who is told: of the ``plan`` once, before anything is fetched; of the ``progress`` now and then meanwhile."""

    plan: Callable[[DownloadPlan], None] = lambda plan: None
    progress: Callable[[DownloadProgress], None] = lambda progress: None


NOBODY = Reports()


def download(
    suite: Suite,
    models_dir: Path,
    wanted: Sequence[PublishedFolder],
    reports: Reports = NOBODY,
    *,
    renew: bool = False,
    dry_run: bool = False,
) -> None:
    """Have every wanted folder and every question file of the suite, verified.

    Args:
        suite: has a hub.
        models_dir: is made when missing.
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
                *_questions(suite, suite.hub, models_dir, todo),
                *_models(todo, models_dir, reports),
            ]
            _raise(failed)
        _raise(todo.problems)


def _survey(
    suite: Suite,
    hub: Hub,
    models_dir: Path,
    wanted: Sequence[PublishedFolder],
    entries: dict[str, manifest.VerifiedFolder],
) -> DownloadPlan:
    asked: dict[tuple[HubName, str], list[PublishedFolder]] = {}
    for one in wanted:
        entry = entries.get(one.folder)
        if entry is None or not is_complete(models_dir, one.folder, entry):
            asked.setdefault((one.hub, one.repository), []).append(one)
    found: list[IncompleteFolder] = []
    problems: list[PrismError] = []
    for (name, repository), folders in asked.items():
        try:
            listing = list_repository(name, repository)
        except UsageError as error:  # of the environment, not of these folders
            problems.append(error)
            continue
        except PrismError as error:
            names = ", ".join(one.folder for one in folders)
            problems.append(type(error)(f"{error.what}\n  needed for: {names}", error.hint))
            continue
        for one in folders:
            try:
                found.append(compare(models_dir, one, listing, entries.get(one.folder)))
            except PrismError as error:
                problems.append(error)
    complete = len(wanted) - sum(len(folders) for folders in asked.values())
    free = shutil.disk_usage(models_dir).free
    return DownloadPlan(tuple(found), tuple(questions.missing(suite, hub, models_dir)), tuple(problems), complete, free)


def _check_room(todo: DownloadPlan, models_dir: Path) -> None:
    """Raises StoreError where the disk is too small; what an interrupted download left counts as fetched."""
    needed = todo.size - min(todo.size, size_of([models_dir / STAGING]))
    if needed and needed + MARGIN > todo.free:
        raise StoreError(
            f"{models_dir} has {todo.free / 1e9:,.1f} GB free, {needed / 1e9:,.1f} GB are to be fetched",
            "free some space, choose another --models-dir, or fetch less with --only",
        )


def _questions(suite: Suite, hub: Hub, models_dir: Path, todo: DownloadPlan) -> list[PrismError]:
    """Fetch the question files; returns what failed, the first failure ends it."""
    for name in todo.questions:
        try:
            questions.fetch(suite, hub, name, models_dir)
        except StoreError:
            raise
        except PrismError as error:
            return [error]
    return []


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
    entry = publish(models_dir, one, sums)
    manifest.write(models_dir, manifest.read(models_dir) | {one.wanted.folder: entry})


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
