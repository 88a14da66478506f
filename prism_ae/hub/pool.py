"""Threads that fetch files at the same time, each file into the place where its folder is gathered."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from prism_ae.errors import PrismError, StoreError
from prism_ae.hub.failures import UnreachableError
from prism_ae.hub.files import HubFile
from prism_ae.hub.incomplete import IncompleteFolder
from prism_ae.hub.staging import STAGING, ready_folder, sweep
from prism_ae.hub.transfer import fetch
from prism_ae.io.paths import size_of

WORKERS = 4

PATIENCE = 600.0
"""Seconds without any byte on the disk after which files under way count as hanging. Some clients have no limit of
their own; others read a large file again to verify it, and write nothing meanwhile."""


class HangingError(UnreachableError):
    """Files under way do not move. What they have is kept."""


class DownloadPool:
    """Use as a context: ``ask`` for files of folders, ``wait`` for folders.

    An exception that leaves the context is not held up by files under way: what they have is kept, the threads end with
    the process, and the next download resumes.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._todo: queue.SimpleQueue[tuple[IncompleteFolder, HubFile] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
        self._open: Counter[str] = Counter()
        self._errors: dict[str, PrismError] = {}
        self._stop = threading.Event()
        self._used: set[Path] = set()
        self._under_way: dict[int, str] = {}
        self._moved = (-1, time.monotonic())
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> DownloadPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for _ in self._threads:
            self._todo.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()

    def ask(self, incomplete: IncompleteFolder, names: Iterable[str]) -> None:
        """Have these files of a folder fetched, by their names in it."""
        self._errors.pop(incomplete.wanted.folder, None)
        self._used.add(self._staging(incomplete))
        for name in names:
            self._open[incomplete.wanted.folder] += 1
            self._todo.put((incomplete, next(file for file in incomplete.missing if file.base == name)))

    def wait(self, seconds: float) -> tuple[str, PrismError | None] | None:
        """The next folder whose files are all fetched, or the error that kept one of them; None after ``seconds``."""
        try:
            folder, error = self._done.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(error, PrismError):
            self._errors.setdefault(folder, error)
        elif error is not None:
            raise error
        self._open[folder] -= 1
        return None if self._open[folder] else (folder, self._errors.get(folder))

    def discard(self, incomplete: IncompleteFolder, names: Iterable[str]) -> None:
        """Forget fetched files that are not what they should be."""
        for name in names:
            (ready_folder(self._models_dir, incomplete.wanted.folder) / name).unlink(missing_ok=True)

    @property
    def staged(self) -> int:
        """Bytes that are fetched and not in their place yet, those of files under way included."""
        return size_of([self._models_dir / STAGING])

    def watch(self, staged: int) -> None:
        """Raises HangingError once no file under way has moved for PATIENCE seconds; to be called again and again.

        Args:
            staged: `staged` now.
        """
        files = sorted(self._under_way.copy().values())
        before, since = self._moved
        if not files or staged != before:
            self._moved = (staged, time.monotonic())
        elif time.monotonic() - since >= PATIENCE:
            raise HangingError(
                f"no byte came for {PATIENCE / 60:.0f} minutes: {', '.join(files)}",
                "run the same command again: it continues; if it hangs again, take the other hub with --from, or for "
                "Hugging Face set HF_HUB_DISABLE_XET=1",
            )

    def clean(self) -> None:
        """Remove what the client libraries noted beside the files, where nothing waits to be resumed."""
        for folder in self._used:
            if not any(folder.rglob("*.incomplete")):
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self._models_dir / STAGING / "sums.json").unlink(missing_ok=True)
        sweep(self._models_dir)

    def _staging(self, incomplete: IncompleteFolder) -> Path:
        name = f"{incomplete.listing.hub}--{incomplete.listing.repository.replace('/', '--')}"
        return self._models_dir / STAGING / name

    def _work(self) -> None:
        while (job := self._todo.get()) is not None and not self._stop.is_set():
            incomplete, file = job
            folder = incomplete.wanted.folder
            self._under_way[threading.get_ident()] = f"{file.name} of {incomplete.listing.repository}"
            try:
                if folder not in self._errors:
                    self._fetch(incomplete, file)
                self._done.put((folder, None))
            except BaseException as error:
                self._done.put((folder, error))
            finally:
                del self._under_way[threading.get_ident()]

    def _fetch(self, incomplete: IncompleteFolder, file: HubFile) -> None:
        ready = ready_folder(self._models_dir, incomplete.wanted.folder) / file.base
        if ready.is_file() and ready.stat().st_size == file.size:
            return  # by a download that was interrupted; its sum is looked at with the others'
        staging = self._staging(incomplete)
        try:
            ready.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir(parents=True, exist_ok=True)
            os.replace(fetch(incomplete.listing, file, staging), ready)
        except OSError as error:
            raise StoreError(f"cannot write {ready}: {error.strerror}", "correct that, then run again") from error
