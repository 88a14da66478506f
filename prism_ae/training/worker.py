"""The process that trains: takes one job after the other from its parent and says how it goes."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from prism_ae.errors import PrismError
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
    die_with_parent()
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
        else:
            connection.send(Finished())


def single_thread() -> None:
    """One thread, deterministic kernels: the same recipe gives the same bytes."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent dies, however that happens.

    Only Linux can; elsewhere a worker ends with its job, when it finds the pipe closed.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


class _Reporter:
    """Passes progress on, not more often than a person can read."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.last = connection, 0.0

    def __call__(self, part: float, loss: float | None) -> None:
        now = time.monotonic()
        if now - self.last >= _REPORT_SECONDS:
            self.last = now
            self.connection.send(Running(part, loss))
