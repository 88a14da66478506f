"""Training the whole suite: every missing model, in several processes, surviving anything.

Worker processes run one job at a time, each on one thread. A folder is published whole or not at
all, so whatever is killed, the next call makes the rest; a job that was cut off starts anew (the longest takes a
few minutes, which is less than a resumable state would be worth). Workers die with their parent. A lock keeps a
second run from training the same models.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prism_ae.errors import PrismError, StoreError
from prism_ae.io.locks import locked
from prism_ae.io.paths import why_not
from prism_ae.io.words import duration
from prism_ae.processes import DEATHS
from prism_ae.processes.child import Child
from prism_ae.processes.interrupts import Signals
from prism_ae.processes.pool import Affinity, Pool, Process
from prism_ae.processes.progress import Display
from prism_ae.recipes.catalogue import SUITE, Artifact, SuiteOrder
from prism_ae.training.jobs import JobFailed, JobProgress, TrainingJob, plan_jobs

_LOCK = ".training.lock"


def launch_trainer(recipe_file: Path) -> Process:
    """A worker process; raises DeviceError, StoreError."""
    return Child("prism_ae.training.worker", "a worker", recipe_file, {"TOKENIZERS_PARALLELISM": "false"})


def train_suite(
    order: SuiteOrder, workers: int, display: Display, launch: Callable[[Path], Process] = launch_trainer
) -> tuple[int, int]:
    """Train what is missing of the mini suite.

    Args:
        workers: processes, one thread each.

    Returns:
        Number of models trained now, and of all that were asked for.

    Raises:
        ConfigError: the recipe file is wrong.
        StoreError: the folder cannot be written, or another run is training into it.
        DeviceError: no worker can be started.
        PrismError: a job failed; the others were finished first.
        KeyboardInterrupt: after the workers were stopped; what was finished is kept.
    """
    artifacts, recipe_file = order.artifacts, order.recipe_file
    with _locked(order.models_dir / SUITE):
        before = _existing(artifacts)
        if jobs := plan_jobs(artifacts, recipe_file):
            training = _Training(jobs, artifacts, display)
            slots = {f"cpu slot {number}": lambda: launch(recipe_file) for number in range(min(workers, len(jobs)))}
            # Nobody counts signals: no job can be finished early, and Ctrl-C ends the workers at once.
            pool = Pool(training.queue, slots, training.heard, training.died, interrupts=Signals(), note=display.note)
            pool.run()
            training.show()
            if training.errors:
                raise training.errors[0]
        return len(artifacts) - before, len(artifacts)


def _existing(artifacts: Sequence[Artifact]) -> int:
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


class _JobQueue:
    """The jobs of one run (`pool.WorkQueue`), and how far those under way are: their part done and loss, by label."""

    def __init__(self, jobs: Sequence[TrainingJob]) -> None:
        self.waiting, self.cost_done = list(jobs), 0.0
        self.under_way: dict[str, tuple[TrainingJob, float, float | None]] = {}

    @property
    def unfinished(self) -> int:
        return len(self.under_way) + len(self._ready())

    def wants_worker(self, workers: int) -> bool:
        return bool(self._ready())

    def take(self, held: Affinity, elsewhere: Sequence[Affinity], *, quiet: bool) -> TrainingJob | None:
        """One of the target that the worker has loaded, or else the longest."""
        job = max(self._ready(), key=lambda job: (job.affinity == held, job.cost), default=None)
        if job is not None:
            self.waiting.remove(job)
            self.under_way[job.label] = job, 0.0, None
        return job

    def over(self, job: TrainingJob) -> None:
        self.cost_done += job.cost
        del self.under_way[job.label]

    def put_back(self, job: TrainingJob) -> None:
        self.waiting.append(job)
        del self.under_way[job.label]

    def _ready(self) -> list[TrainingJob]:
        return [job for job in self.waiting if all(folder.exists() for folder in job.artifact.needs)]


class _Training:
    """What becomes of the jobs, shown and noted."""

    def __init__(self, jobs: Sequence[TrainingJob], artifacts: Sequence[Artifact], display: Display) -> None:
        self.queue, self.errors = _JobQueue(jobs), list[PrismError]()
        self._artifacts, self._display = artifacts, display
        self._deaths: Counter[str] = Counter()
        self._began = time.monotonic()

    def heard(self, job: TrainingJob, message: JobProgress | JobFailed) -> None:
        if isinstance(message, JobProgress):
            self.queue.under_way[job.label] = job, message.part, message.loss
            self.show()
            return
        self.errors.append(message.error)
        if message.trace:
            self._display.note(message.trace)

    def died(self, job: TrainingJob, label: str, how: str, words: bytes) -> None:
        """Another worker takes its job, unless that happened before."""
        self._deaths[job.label] += 1
        if self._deaths[job.label] < DEATHS:
            self._display.note(f"the worker of {label} died ({how}); {job.label} is trained again")
            self.queue.put_back(job)
            return
        self.queue.over(job)
        said = f"{how}):\n{words.decode(errors='replace').strip()[-2000:]}" if words.strip() else f"{how})"
        self.errors.append(
            PrismError(
                f"training {job.label} exited without a result {DEATHS} times ({said}",
                "is there enough memory? run again with --workers 1",
            )
        )

    def show(self) -> None:
        under_way = self.queue.under_way.values()
        done = self.queue.cost_done + sum(job.cost * part for job, part, _ in under_way)
        left = sum(job.cost for job in self.queue.waiting) + sum(job.cost * (1 - part) for job, part, _ in under_way)
        seconds = (time.monotonic() - self._began) * left / done if done > 0 else None
        there = _existing(self._artifacts)
        running = [(job.label, part, loss) for job, part, loss in under_way]
        self._display.show(suite_state(there, len(self._artifacts), seconds, running), there)


def suite_state(
    done: int, total: int, seconds_left: float | None, running: Sequence[tuple[str, float, float | None]]
) -> str:
    """ "12 of 77 models, 3:10 left; mini-llama-2 hass 35%, loss 1.21"."""
    left = "" if seconds_left is None else f", {duration(seconds_left)} left"
    return "; ".join([f"{done} of {total} models{left}", *(job_state(*one) for one in running)])


def job_state(label: str, part: float, loss: float | None) -> str:
    """ "prism 35%, loss 1.21": the part done, 0 to 1, and the current loss (None before the first step)."""
    return f"{label} {part:.0%}" + ("" if loss is None else f", loss {loss:.2f}")
