"""The process that trains: takes one job after the other from its parent and says how it goes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from prism_ae.errors import PrismError
from prism_ae.processes.parent_death import die_with
from prism_ae.training.jobs import Job, run_job


@dataclasses.dataclass(frozen=True)
class Running:
    part: float
    loss: float | None


@dataclasses.dataclass(frozen=True)
class Finished:
    pass


@dataclasses.dataclass(frozen=True)
class Failed:
    error: PrismError


_REPORT_SECONDS = 0.5


def work(connection: Connection, recipe_file: str) -> None:
    """Run jobs until the parent closes the connection or dies."""
    # Ctrl-C reaches the whole process group: the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    die_with(parent.pid)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    single_thread()
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        try:
            run_job(job, Path(recipe_file), _Reporter(connection))
        except PrismError as error:
            connection.send(Failed(error))
        except Exception as error:  # a bug: its trace is for us, the other jobs go on
            traceback.print_exc()
            connection.send(Failed(PrismError(f"training {job.label} failed: {type(error).__name__}: {error}")))
        else:
            connection.send(Finished())


def single_thread() -> None:
    """One thread, deterministic kernels: the same recipe gives the same bytes."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


class _Reporter:
    """Passes progress on, not more often than a person can read."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.last = connection, 0.0

    def __call__(self, part: float, loss: float | None) -> None:
        now = time.monotonic()
        if now - self.last >= _REPORT_SECONDS:
            self.last = now
            self.connection.send(Running(part, loss))
