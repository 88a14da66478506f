"""Which devices a run uses: GPUs by number, or slots of the CPU. Wrong numbers are refused before anything starts."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from prism_ae.devices.gpus import ask_cuda, list_gpus
from prism_ae.devices.visible import Found, visible_gpus
from prism_ae.errors import DeviceError, UsageError


@dataclasses.dataclass(frozen=True)
class Slot:
    """Room for one worker.

    Attributes:
        label: for messages, "gpu 0" or "cpu slot 1".
        device: what the worker's engine is told, "cuda:0" (it sees its own GPU alone) or "cpu".
        name: the device's name, in words.
        threads: of the CPU.
        environment: variables set for the worker.
        here: False for a GPU that is only planned for; no worker can be started on it.
        why: it is not here, or "".
    """

    label: str
    device: str
    name: str
    threads: int
    environment: Mapping[str, str]
    here: bool = True
    why: str = ""


_MOST_WORKERS = 4096


def plan_slots(
    gpus: str | None, workers: int | None, cores: int, processor: str, found: FindGpus, *, elsewhere: bool = False
) -> tuple[Slot, ...]:
    """The slots that ``--gpus`` or ``--workers`` asks for.

    Args:
        gpus: as typed, "0,1", or None for the CPU.
        workers: number of CPU slots; None takes one per core.
        cores: physical cores that this process may use.
        processor: the CPU's name.
        found: lists the GPUs; called only when some are asked for.
        elsewhere: whether a GPU that does not exist is taken for one of another machine (`Slot.here`).

    Raises:
        UsageError: not a list of numbers, or both kinds asked for.
        DeviceError: a GPU that does not exist, unless it may be elsewhere.
    """
    if gpus is None:
        if workers is not None and not 1 <= workers <= _MOST_WORKERS:
            raise UsageError(f"--workers must be from 1 to {_MOST_WORKERS:,}, got {workers:,}")
        count = workers or cores
        hidden = {"CUDA_VISIBLE_DEVICES": ""} | cpu_threads(1)
        return tuple(Slot(f"cpu slot {number}", "cpu", processor, 1, hidden) for number in range(count))
    if workers is not None:
        raise UsageError("--gpus and --workers exclude each other", "a GPU has one worker; leave --workers out")
    numbers = _numbers(gpus)
    there = found()
    absent = [number for number in numbers if number not in there.gpus]
    if absent and not elsewhere:
        raise _absence(absent[0], there)
    threads = max(1, cores // len(numbers))
    return tuple(
        Slot(
            label=f"gpu {number}",
            device="cuda:0",
            name="not here",
            threads=threads,
            environment={"CUDA_VISIBLE_DEVICES": ""},
            here=False,
            why=there.unusable.get(number) or "; ".join(there.notes),
        )
        if number in absent
        else Slot(
            label=f"gpu {number}",
            device="cuda:0",
            name=there.gpus[number].name,
            threads=threads,
            environment={"CUDA_VISIBLE_DEVICES": there.gpus[number].visible} | cpu_threads(threads),
        )
        for number in numbers
    )


def _absence(number: int, there: Found) -> DeviceError:
    known = ", ".join(f"{i} ({gpu.name})" for i, gpu in there.gpus.items()) or "none"
    if number in there.unusable:
        what = f"GPU {number} cannot be used: {there.unusable[number]}; GPUs here: {known}"
    else:
        what = f"there is no GPU {number}; GPUs here: {known}"
    first = next(iter(there.gpus), None)
    hint = "leave --gpus out to use the CPU" if first is None else f"choose others with --gpus, as in --gpus {first}"
    return DeviceError(": ".join([what, *filter(None, ["; ".join(there.notes)])]), hint)


def cpu_threads(count: int) -> dict[str, str]:
    """Variables that give a process so many threads."""
    return {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise UsageError(f"--gpus: '{text}' is not a list of GPU numbers", "write them as in --gpus 0,1")
    numbers = tuple(int(part) for part in parts)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--gpus: '{text}' names a GPU twice", "a GPU has one worker")
    return numbers


FindGpus = Callable[[], Found]


def find_gpus() -> Found:
    """The GPUs that this process may use, and in words why there are not more. Asks the driver; never raises."""
    return visible_gpus(list_gpus(), os.environ, ask_cuda)


def usable_cores() -> int:
    """Physical cores that this process may use: within its affinity and its container's quota."""
    import psutil  # type: ignore[import-untyped]

    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.floor(int(quota) / int(period))))
