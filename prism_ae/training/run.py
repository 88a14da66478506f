"""Training a whole suite: every missing model, in several processes, surviving anything.

Worker processes run one job at a time: the mini suite's on one thread each, so that a recipe gives the same bytes
anywhere, real targets' drafters on as many as their slot has. A folder is published whole or not at all, so whatever is
killed, the next call makes the rest. A job of the mini suite that was cut off starts anew (the longest takes a few
minutes, which is less than a state to go on from would be worth), a drafter of a real target goes on. Workers die with
their parent. A lock keeps a second run from training the same models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prism_ae.devices.slots import Slot
from prism_ae.errors import PrismError, StoreError
from prism_ae.io.locks import locked
from prism_ae.io.paths import why_not
from prism_ae.io.words import duration, format_bytes
from prism_ae.processes import DEATHS
from prism_ae.processes.child import Child
from prism_ae.processes.interrupts import Signals
from prism_ae.processes.pool import Affinity, Pool, Process
from prism_ae.processes.progress import Display
from prism_ae.recipes.catalogue import Artifact, Catalogue, SuiteOrder
from prism_ae.training.jobs import JobEffort, JobFailed, JobProgress, TrainingJob, plan_jobs, work_folder

_LOCK = ".training.lock"


Launch = Callable[[SuiteOrder, Slot], Process]


def launch_trainer(order: SuiteOrder, slot: Slot) -> Process:
    """A worker process; raises DeviceError, StoreError."""
    variables = {"TOKENIZERS_PARALLELISM": "false", **slot.environment}
    return Child("prism_ae.training.worker", "a worker", (order, slot), variables)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What there is, and what this run did for it.

    Attributes:
        made: models trained now; total: all that were asked for.
        efforts: of real targets' drafters, what each part took.
        seconds: of the whole run.
    """

    made: int
    total: int
    efforts: tuple[JobEffort, ...] = ()
    seconds: float = 0.0

    def in_words(self) -> list[str]:
        """Lines for people: tokens a second of each part, and memory."""
        lines = []
        for stage, what in (("states", "hidden states of the data"), ("drafters", "drafters")):
            parts = [one for one in self.efforts if one.stage == stage]
            tokens, seconds = sum(one.tokens for one in parts), sum(one.seconds for one in parts)
            if parts and seconds:
                rate = f"{tokens / seconds:,.0f} a second and worker"
                lines.append(f"  {what}: {tokens:,} tokens in {duration(seconds)} of all workers, {rate}")
        if self.efforts:
            peaks = dict[int, int]()
            for one in self.efforts:
                peaks[one.process] = max(one.peak_bytes, peaks.get(one.process, 0))
            lines.append(f"  {duration(self.seconds)} in all; peak memory {format_bytes(sum(peaks.values()))}")
        return lines


def train_suite(order: SuiteOrder, slots: Sequence[Slot], display: Display, launch: Launch = launch_trainer) -> Trained:
    """Train what is missing of a suite; the data must be there.

    Args:
        slots: a worker each.

    Raises:
        ConfigError: the recipe file is wrong.
        StoreError: the folder cannot be written, or another run is training into it.
        DeviceError: no worker can be started.
        PrismError: a job failed; the others were finished first.
        KeyboardInterrupt: after the workers were stopped; what was finished is kept.
    """
    artifacts, began = order.artifacts, time.monotonic()
    with _locked(order.catalogue.folder):
        before, efforts = _existing(artifacts), tuple[JobEffort, ...]()
        if jobs := plan_jobs(order):
            shared = frozenset(order.downloaded_targets) if len(slots) > 1 else frozenset[str]()
            training = _Training(_JobQueue(jobs, shared), artifacts, display)
            starts = {slot.label: _starting(launch, order, slot) for slot in slots[: len(jobs)]}
            # Nobody counts signals: no job can be finished early, and Ctrl-C ends the workers at once.
            pool = Pool(training.queue, starts, training.heard, training.died, interrupts=Signals(), note=display.note)
            pool.run()
            training.show()
            if training.errors:
                raise training.errors[0]
            efforts = tuple(training.efforts)
        _remove_states(order.catalogue)
        return Trained(len(artifacts) - before, len(artifacts), efforts, time.monotonic() - began)


def _starting(launch: Launch, order: SuiteOrder, slot: Slot) -> Callable[[], Process]:
    return lambda: launch(order, slot)


def _remove_states(catalogue: Catalogue) -> None:
    """The target's hidden states, gigabytes that can be computed again; states of unfinished trainings stay."""
    for file in work_folder(catalogue).glob("features-*"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        work_folder(catalogue).rmdir()


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
    """The jobs of one run (`pool.WorkQueue`), and how far those under way are: their part done and loss, by label.

    Args:
        shared: targets whose hidden states one worker computes for all: until they are there, only one job of such a
            target is given out.
    """

    def __init__(self, jobs: Sequence[TrainingJob], shared: frozenset[str] = frozenset()) -> None:
        self.waiting, self.cost_done = list(jobs), 0.0
        self.unprepared = set(shared)
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
        busy = {job.artifact.target for job, _, _ in self.under_way.values()} & self.unprepared
        return [
            job
            for job in self.waiting
            if job.artifact.target not in busy and all(folder.exists() for folder in job.artifact.needs)
        ]


class _Training:
    """What becomes of the jobs, shown and noted."""

    def __init__(self, queue: _JobQueue, artifacts: Sequence[Artifact], display: Display) -> None:
        self.queue, self.errors, self.efforts = queue, list[PrismError](), list[JobEffort]()
        self._artifacts, self._display = artifacts, display
        self._deaths: Counter[str] = Counter()
        self._began = time.monotonic()

    def heard(self, job: TrainingJob, message: JobProgress | JobEffort | JobFailed) -> None:
        if isinstance(message, JobEffort):
            self.efforts.append(message)
            if message.stage == "states":
                self.queue.unprepared.discard(job.artifact.target)
                self._began = time.monotonic()  # what is left is trainings, whose costs compare
            return
        if isinstance(message, JobProgress):
            if message.preparing:
                self._prepare(job, message.part)
                return
            self.queue.under_way[job.label] = job, message.part, message.loss
            self.show()
            return
        self.errors.append(message.error)
        if message.trace:
            self._display.note(message.trace)

    def _prepare(self, job: TrainingJob, part: float) -> None:
        """Show how far the target's hidden states are."""
        seconds = time.monotonic() - self._began
        left = f", {duration(seconds * (1 - part) / part)} left" if part > 0 else ""
        there = _existing(self._artifacts)
        self._display.show(f"{job.artifact.target}: hidden states of the data {part:.0%}{left}", there)

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
