"""Which devices a run uses: GPUs by number, or slots of the CPU. Wrong numbers are refused before anything starts."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
    """

    label: str
    device: str
    name: str
    threads: int
    environment: Mapping[str, str]
    here: bool = True


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes:
        visible: its entry for CUDA_VISIBLE_DEVICES. Its UUID wherever that is ours to choose: CUDA numbers GPUs by
            speed, nvidia-smi by their place on the bus, and a number could mean another GPU than the one named.
        name: in words.
    """

    visible: str
    name: str


def plan_slots(
    gpus: str | None, workers: int | None, cores: int, processor: str, found: FindGpus, elsewhere: bool = False
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
        if workers is not None and workers < 1:
            raise UsageError(f"--workers must be at least 1, got {workers}")
        count = workers or cores
        hidden = {"CUDA_VISIBLE_DEVICES": ""} | _threads(1)
        return tuple(Slot(f"cpu slot {number}", "cpu", processor, 1, hidden) for number in range(count))
    if workers is not None:
        raise UsageError("--gpus and --workers exclude each other", "a GPU has one worker; leave --workers out")
    numbers = _numbers(gpus)
    there = found()
    absent = [number for number in numbers if number >= len(there)]
    if absent and not elsewhere:
        known = ", ".join(f"{i} ({gpu.name})" for i, gpu in enumerate(there)) or "none"
        hint = "choose others with --gpus, as in --gpus 0" if there else "leave --gpus out to use the CPU"
        raise DeviceError(f"there is no GPU {absent[0]}; GPUs here: {known}", hint)
    threads = max(1, cores // len(numbers))
    return tuple(
        Slot(f"gpu {number}", "cuda:0", "not here", threads, {"CUDA_VISIBLE_DEVICES": ""}, here=False)
        if number in absent
        else Slot(
            label=f"gpu {number}",
            device="cuda:0",
            name=there[number].name,
            threads=threads,
            environment={"CUDA_VISIBLE_DEVICES": there[number].visible} | _threads(threads),
        )
        for number in numbers
    )


def _threads(count: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise UsageError(f"--gpus: '{text}' is not a list of GPU numbers", "write them as in --gpus 0,1")
    numbers = tuple(int(part) for part in parts)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--gpus: '{text}' names a GPU twice", "a GPU has one worker")
    return numbers


FindGpus = Callable[[], Sequence[Gpu]]


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, numbered as nvidia-smi numbers them; () where nvidia-smi is absent.

    ``CUDA_VISIBLE_DEVICES``, when it is set, limits and orders them, as it does for every CUDA program.
    """
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible_gpus(answer, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(answer: str, visible: str | None) -> tuple[Gpu, ...]:
    """From nvidia-smi's answer ("index, uuid, name" lines) and the value of ``CUDA_VISIBLE_DEVICES``."""
    names: dict[str, str] = {}
    everything = []
    for line in answer.splitlines():
        index, uuid, name = (part.strip() for part in line.split(",", maxsplit=2))
        names[index] = names[uuid] = name
        everything.append(Gpu(uuid, name))
    if visible is None:
        return tuple(everything)
    chosen = []
    for entry in (part.strip() for part in visible.split(",")):
        matches = [name for key, name in names.items() if key == entry or (len(entry) > 4 and key.startswith(entry))]
        if not matches and not entry.startswith("MIG-"):
            break  # CUDA ignores everything from the first entry on that it does not know
        chosen.append(Gpu(entry, matches[0] if matches else "MIG device"))
    return tuple(chosen)


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
