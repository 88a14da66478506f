"""Training the whole suite: every missing model, in several processes, surviving anything.

The parent hands out jobs, a worker process runs one at a time on one thread. A folder is published whole or not at
all, so whatever is killed, the next call makes the rest; a job that was cut off starts anew (the longest takes a
few minutes, which is less than a resumable state would be worth). Workers die with their parent. A lock keeps a
second run from training the same models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from prism_ae.errors import PrismError, StoreError
from prism_ae.io.locks import locked
from prism_ae.io.paths import why_not
from prism_ae.mini.catalogue import SUITE, Artifact, catalogue
from prism_ae.mini.recipes import MINI
from prism_ae.training.jobs import Job, plan_jobs
from prism_ae.training.worker import Failed, Finished, Running, work

_LOCK = ".training.lock"
_ATTEMPTS = 2
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training run stands.

    Attributes:
        done, total: models of the suite that exist, of all.
        running: label, part done (0 to 1) and current loss (None before the first step) of each job at work.
        seconds_left: estimate, None before there is anything to estimate from.
    """

    done: int
    total: int
    running: tuple[tuple[str, float, float | None], ...]
    seconds_left: float | None


Show = Callable[[Progress], None]


def train_suite(
    models_dir: Path, workers: int, progress: Show = lambda state: None, recipe_file: Path = MINI
) -> tuple[int, int]:
    """Train what is missing of the mini suite.

    Args:
        models_dir: the models folder; made if it does not exist.
        workers: processes, one thread each.
        progress: called a few times a second.
        recipe_file: the suite's recipes.

    Returns:
        Number of models trained now, and of all.

    Raises:
        ConfigError: the recipe file is wrong.
        StoreError: the folder cannot be written, or another run is training into it.
        PrismError: a job failed; the others were finished first.
        KeyboardInterrupt: after the workers were stopped; what was finished is kept.
    """
    artifacts = catalogue(models_dir, recipe_file)
    with _locked(models_dir / SUITE):
        before = _existing(artifacts)
        if jobs := plan_jobs(artifacts, recipe_file):
            _Pool(jobs, recipe_file, workers, artifacts, progress).run()
        return len(artifacts) - before, len(artifacts)


def _existing(artifacts: tuple[Artifact, ...]) -> int:
    return sum(artifact.folder.exists() for artifact in artifacts)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this run; remove what killed runs left half-written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = why_not(error, folder)
        raise StoreError(f"cannot write to {folder}: {why}", "choose another --models-dir") from error

    def busy(holder: str) -> StoreError:
        return StoreError(f"another run is training into {folder} ({holder})", "wait for it, or stop it")

    with locked(folder / _LOCK, 0, busy, "--models-dir"):
        for left in folder.glob(".*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    job: Job | None = None
    part: float = 0.0
    loss: float | None = None
    target: str = ""


class _Pool:
    """The jobs of one run and the processes that work on them."""

    def __init__(
        self,
        jobs: tuple[Job, ...],
        recipe_file: Path,
        workers: int,
        artifacts: tuple[Artifact, ...],
        progress: Show,
    ) -> None:
        self.waiting = list(jobs)
        self.recipe_file, self.artifacts, self.progress = recipe_file, artifacts, progress
        self.count = min(workers, len(jobs))
        self.workers: list[_Worker] = []
        self.attempts: dict[str, int] = {}
        self.errors: list[PrismError] = []
        self.cost_done = 0.0
        self.began = time.monotonic()

    def run(self) -> None:
        try:
            self.workers = [self._start() for _ in range(self.count)]
            while True:
                self._hand_out()
                busy = [worker for worker in self.workers if worker.job is not None]
                self._show()
                if not busy:
                    break
                for ready in wait([worker.connection for worker in busy], timeout=_POLL_SECONDS):
                    self._receive(next(worker for worker in busy if worker.connection is ready))
        finally:
            self._stop()
        if self.errors:
            raise self.errors[0]

    def _start(self) -> _Worker:
        # A fresh interpreter: a fork would share torch's threads and locks.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, str(self.recipe_file)), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hand_out(self) -> None:
        for worker in self.workers:
            if worker.job is not None or not (ready := [job for job in self.waiting if self._ready(job)]):
                continue
            # A worker keeps the features of the target it trained for last; otherwise the longest job goes first.
            job = max(ready, key=lambda job: (job.artifacts[0].target == worker.target, job.cost))
            self.waiting.remove(job)
            worker.job, worker.part, worker.loss, worker.target = job, 0.0, None, job.artifacts[0].target
            worker.connection.send(job)

    def _ready(self, job: Job) -> bool:
        return all(folder.exists() for folder in job.needs)

    def _receive(self, worker: _Worker) -> None:
        assert worker.job is not None
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._lost(worker, worker.job)
            return
        match message:
            case Running(part, loss):
                worker.part, worker.loss = part, loss
            case Finished():
                self.cost_done += worker.job.cost
                worker.job = None
            case Failed(error):
                self.errors.append(error)
                worker.job = None

    def _lost(self, worker: _Worker, job: Job) -> None:
        """A worker died: another takes its job, unless that happened before."""
        worker.process.join()
        worker.connection.close()
        self.workers.remove(worker)
        self.attempts[job.label] = self.attempts.get(job.label, 0) + 1
        if self.attempts[job.label] < _ATTEMPTS:
            self.waiting.append(job)
        else:
            code = worker.process.exitcode
            self.errors.append(
                PrismError(
                    f"training {job.label} ended without a word {_ATTEMPTS} times (exit code {code})",
                    "is there enough memory? run again with --workers 1",
                )
            )
        self.workers.append(self._start())

    def _show(self) -> None:
        running = tuple((w.job.label, w.part, w.loss) for w in self.workers if w.job is not None)
        done = self.cost_done + sum(w.job.cost * w.part for w in self.workers if w.job is not None)
        left = sum(job.cost for job in self.waiting) + sum(
            w.job.cost * (1 - w.part) for w in self.workers if w.job is not None
        )
        seconds = (time.monotonic() - self.began) * left / done if done > 0 else None
        self.progress(Progress(_existing(self.artifacts), len(self.artifacts), running, seconds))

    def _stop(self) -> None:
        for worker in self.workers:
            worker.process.kill() if worker.job is not None else worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
            worker.connection.close()
