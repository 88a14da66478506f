"""The process that trains: takes one job after the other from its parent and says how it goes."""

from __future__ import annotations

import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from prism_ae.devices.slots import Slot
from prism_ae.errors import PrismError
from prism_ae.processes.interrupts import leave_to_parent
from prism_ae.processes.pool import AssignmentDone, Ready, Stop
from prism_ae.training.jobs import JobEffort, JobFailed, JobProgress, TrainingJob
from prism_ae.training.workbench import Workbench

_REPORT_SECONDS = 0.5


def main(connection: Connection[Any, Any]) -> None:
    """Run jobs until told to stop."""
    leave_to_parent()
    order, slot = connection.recv()
    use_threads(slot)
    bench, report = Workbench(order, slot.device), _Reporter(connection)
    connection.send(Ready())
    while not isinstance(job := connection.recv(), Stop):
        if failure := _failure(job, bench, report):
            connection.send(failure)
        connection.send(AssignmentDone())


def _failure(job: TrainingJob, bench: Workbench, report: _Reporter) -> JobFailed | None:
    try:
        bench.run(job, report)
    except PrismError as error:
        return JobFailed(error)
    except Exception as error:  # a bug: its trace is for us, the other jobs go on
        what = PrismError(f"training {job.label} failed: {type(error).__name__}: {error}")
        return JobFailed(what, traceback.format_exc())
    return None


def use_threads(slot: Slot) -> None:
    """Deterministic kernels on a CPU: the same recipe and number of threads give the same bytes."""
    import torch

    torch.set_num_threads(slot.threads)
    torch.use_deterministic_algorithms(mode=slot.device == "cpu")


class _Reporter:
    """Passes progress on, not more often than a person can read."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self.connection, self.last = connection, 0.0

    def __call__(self, message: JobProgress | JobEffort) -> None:
        now = time.monotonic()
        if isinstance(message, JobEffort) or now - self.last >= _REPORT_SECONDS:
            self.last = now
            self.connection.send(message)
