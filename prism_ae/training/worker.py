"""The process that trains: takes one job after the other from its parent and says how it goes."""

from __future__ import annotations

import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prism_ae.errors import PrismError
from prism_ae.processes.interrupts import leave_to_parent
from prism_ae.processes.pool import AssignmentDone, Ready, Stop
from prism_ae.training.jobs import JobFailed, JobProgress, TrainingJob, run_job

_REPORT_SECONDS = 0.5


def main(connection: Connection[Any, Any]) -> None:
    """Run jobs until told to stop."""
    leave_to_parent()
    recipe_file: Path = connection.recv()
    single_thread()
    connection.send(Ready())
    while not isinstance(job := connection.recv(), Stop):
        if failure := _failure(job, recipe_file, _Reporter(connection)):
            connection.send(failure)
        connection.send(AssignmentDone())


def _failure(job: TrainingJob, recipe_file: Path, report: _Reporter) -> JobFailed | None:
    try:
        run_job(job, recipe_file, report)
    except PrismError as error:
        return JobFailed(error)
    except Exception as error:  # a bug: its trace is for us, the other jobs go on
        what = PrismError(f"training {job.label} failed: {type(error).__name__}: {error}")
        return JobFailed(what, traceback.format_exc())
    return None


def single_thread() -> None:
    """One thread, deterministic kernels: the same recipe gives the same bytes."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


class _Reporter:
    """Passes progress on, not more often than a person can read."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.connection, self.last = connection, 0.0

    def __call__(self, part: float, loss: float | None) -> None:
        now = time.monotonic()
        if now - self.last >= _REPORT_SECONDS:
            self.last = now
            self.connection.send(JobProgress(part, loss))
