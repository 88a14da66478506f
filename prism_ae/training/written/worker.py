"""The process that writes shards: takes one after the other from its parent and says how it goes."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from prism_ae.devices.slots import Slot
from prism_ae.errors import PrismError
from prism_ae.processes.interrupts import leave_to_parent
from prism_ae.processes.pool import AssignmentDone, Ready, Stop
from prism_ae.training.jobs import JobFailed
from prism_ae.training.written.order import DataOrder, ShardJob, ShardProgress
from prism_ae.training.written.shards import save_shard

if TYPE_CHECKING:
    from prism_ae.training.written.writing import ShardWriter

_REPORT_SECONDS = 0.5


def main(connection: Connection[Any, Any]) -> None:
    """Write shards until told to stop."""
    leave_to_parent()
    order, slot = connection.recv()
    writer: ShardWriter | None = None
    connection.send(Ready())
    while not isinstance(job := connection.recv(), Stop):
        try:
            writer = writer or _writer(order, slot)
            _write(writer, order, job, connection)
        except PrismError as error:
            connection.send(JobFailed(error))
        except Exception as error:  # a bug: its trace is for us
            what = PrismError(f"writing {job.label} of the data failed: {type(error).__name__}: {error}")
            connection.send(JobFailed(what, traceback.format_exc()))
        connection.send(AssignmentDone())


def _writer(order: DataOrder, slot: Slot) -> ShardWriter:
    import torch

    from prism_ae.models.checkpoints import load_target
    from prism_ae.prompts.conversation import open_conversation
    from prism_ae.training.written.writing import ShardWriter

    torch.set_num_threads(slot.threads)
    target = load_target(order.target.path, getattr(torch, order.recipe.dtype), torch.device(slot.device))
    return ShardWriter(target, open_conversation(order.target.path, order.template, order.system), order.recipe)


def _write(writer: ShardWriter, order: DataOrder, job: ShardJob, connection: Connection[Any, Any]) -> None:
    tokens = {"user": 0, "answer": 0}
    told = 0.0

    def tick(side: str, count: int) -> None:
        nonlocal told
        tokens[side] += count
        if time.monotonic() - told >= _REPORT_SECONDS:
            told = time.monotonic()
            connection.send(ShardProgress(tokens["user"], tokens["answer"], os.getpid(), _peak_bytes()))

    shard = writer.write(job.number, tick)
    save_shard(order.folder, job.number, shard)
    connection.send(ShardProgress(tokens["user"], tokens["answer"], os.getpid(), _peak_bytes()))


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
