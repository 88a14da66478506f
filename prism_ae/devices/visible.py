"""Which of a machine's GPUs this process may use, and under which numbers: ``CUDA_VISIBLE_DEVICES``, exactly as CUDA
reads it. Where it hides a GPU, says so."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

from prism_ae.devices.gpus import Device, Listing, Part, printable

VARIABLE = "CUDA_VISIBLE_DEVICES"

_CONTAINER, _NO_GPUS = "NVIDIA_VISIBLE_DEVICES", ("", "none", "void")

_NUMBERED = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL", "PBS_GPUFILE", "_CONDOR_AssignedGPUs")
_COUNTED = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE")
"""What schedulers say about a job's GPUs: which ones, or how many."""


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


@dataclasses.dataclass(frozen=True)
class Found:
    """The GPUs that ``--gpus`` may name.

    Attributes:
        gpus: by their numbers: the driver's, or places in CUDA_VISIBLE_DEVICES where that is set.
        unusable: another number -> why it cannot be used.
        notes: why there are not more, in words: the driver's, and what the environment hides.
    """

    gpus: Mapping[int, Gpu]
    unusable: Mapping[int, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


AskCuda = Callable[[str], Part | str]
"""Which GPU an entry is to CUDA, or why CUDA does not say."""


def visible_gpus(listing: Listing, environ: Mapping[str, str], ask_cuda: AskCuda) -> Found:
    """The GPUs of a listing that the environment leaves.

    Args:
        ask_cuda: asked only where a number may mean another GPU to CUDA than to the driver.
    """
    value = environ.get(VARIABLE)
    if value is None:
        found = _all(listing)
    elif listing.devices or listing.lost:
        found = _chosen(listing, value, environ, ask_cuda)
    else:
        found = Found({}, notes=(f"{VARIABLE}={_shown(value)} is set",))
    hints = () if listing.devices or listing.lost else _hints(environ)
    return dataclasses.replace(found, notes=(*found.notes, *listing.words, *hints))


def _all(listing: Listing) -> Found:
    gpus: dict[int, Gpu] = {}
    unusable = dict(listing.lost)
    for device in listing.devices:
        one = _usable(device)
        if isinstance(one, Part):
            gpus[device.number] = Gpu(one.uuid, one.name)
        else:
            unusable[device.number] = one
    return Found(gpus, unusable)


def _chosen(listing: Listing, value: str, environ: Mapping[str, str], ask_cuda: AskCuda) -> Found:
    """CUDA stops at the first entry that it does not know, and offers nothing at all where one GPU stands twice."""
    setting = f"{VARIABLE}={_shown(value)}"
    certain = _same_order(listing, environ)
    gpus: dict[int, Gpu] = {}
    unusable: dict[int, str] = {}
    seen: dict[str, str] = {}
    notes = [f"{setting} allows no others, and --gpus counts within it"]
    entries = [part.strip() for part in value.split(",")]
    for place, entry in enumerate(entries):
        meant = _meant(entry, listing)
        if meant is None:
            if not place and entry in ("", "-1", "NoDevFiles"):
                notes = [f"{setting} hides every GPU; unset it, or name GPUs in it"]
            elif entry or place + 1 < len(entries):
                known = ", ".join(str(device.number) for device in listing.devices) or "none that can be used"
                notes = [f"{setting}: '{_shown(entry)}' is none of the GPUs here ({known}); CUDA ends the list there"]
            break
        if isinstance(meant, Device) and _is_number(entry) and not certain:
            meant = _asked(entry, setting, ask_cuda, listing)
        one = _usable(meant) if isinstance(meant, Device) else meant
        if isinstance(one, str):
            unusable[place] = one
            continue
        if one.uuid in seen:
            twice = f"'{_shown(seen[one.uuid])}' and '{_shown(entry)}' in {setting} are one GPU ({one.name})"
            return Found({}, notes=(f"{twice}; CUDA then offers none: name each once",))
        seen[one.uuid] = entry
        divided = isinstance(meant, Device) and meant.divided
        as_given = not divided and (certain or not _is_number(entry))
        gpus[place] = Gpu(entry if as_given else one.uuid, one.name)
    return Found(gpus, unusable, tuple(notes))


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit() and len(entry) < 5


def _meant(entry: str, listing: Listing) -> Device | Part | str | None:
    """What an entry names: a GPU, a MIG device, one that is lost (why); None where CUDA knows nothing of that name."""
    if _is_number(entry):
        number = int(entry)
        return next((one for one in listing.devices if one.number == number), listing.lost.get(number))
    if len(entry) <= 4:
        return None
    matches = [device for device in listing.devices if device.uuid.startswith(entry)]
    parts = [part for device in listing.devices for part in device.parts if part.uuid.startswith(entry)]
    if len(matches) + len(parts) == 1:
        return (matches or parts)[0]
    # MIG devices are not always listed to everyone, and an older driver names them in another way: CUDA will see.
    return Part(entry, "MIG device") if entry.startswith("MIG-") and not parts else None


def _same_order(listing: Listing, environ: Mapping[str, str]) -> bool:
    """Whether a number means to CUDA a GPU of the same name as to the driver.

    CUDA counts by speed unless it is told otherwise, and what it cannot use it does not count.
    """
    alike = len({device.name for device in listing.devices}) <= 1
    return not listing.lost and (alike or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID")


def _asked(entry: str, setting: str, ask_cuda: AskCuda, listing: Listing) -> Device | Part | str:
    answer = ask_cuda(entry)
    if isinstance(answer, Part):
        return next((device for device in listing.devices if device.uuid == answer.uuid), answer)
    return (
        f"which GPU number {entry} in {setting} is, only CUDA can say, and it does not ({answer}); name GPUs by their "
        f"UUIDs there (nvidia-smi -L)"
    )


def _usable(device: Device) -> Part | str:
    """What CUDA may be given of a GPU, or why nothing."""
    if not device.divided:
        return Part(device.uuid, device.name)
    if len(device.parts) == 1:
        return device.parts[0]  # all of it that this process may use, as in a container that was given one MIG device
    if not device.parts:
        return f"{device.name} is in MIG mode and has no MIG device for this process; make one, or turn the mode off"
    names = ", ".join(part.uuid for part in device.parts)
    return f"{device.name} is divided into MIG devices; name those to use in {VARIABLE}: {names}"


def gpus_meant(environ: Mapping[str, str]) -> bool:
    """Whether a scheduler or a container's start says that this process has GPUs."""
    return environ.get(_CONTAINER, "") not in _NO_GPUS or _scheduled(environ) != ""


def _scheduled(environ: Mapping[str, str]) -> str:
    """The first variable by which a scheduler says that it gave this job GPUs, "" where there is none."""
    given = [name for name in _NUMBERED if environ.get(name, "").strip()]
    given += [name for name in _COUNTED if environ.get(name, "").strip() not in ("", "0")]
    return given[0] if given else ""


def _hints(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What in the environment may be the reason that there is no GPU at all."""
    hints = []
    if (given := environ.get(_CONTAINER)) is not None:
        started = "was started without GPUs" if given in _NO_GPUS else "should have GPUs: start it with --gpus all"
        hints.append(f"{_CONTAINER}={_shown(given)}: this container {started}")
    if scheduled := _scheduled(environ):
        hints.append(f"the scheduler gave {scheduled}={_shown(environ[scheduled])}")
    elif "SLURM_JOB_ID" in environ:
        hints.append("Slurm gave this job no GPU; ask for one, as in srun --gpus=1")
    others = [name for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if name in environ]
    if others or os.path.exists("/dev/kfd"):
        hints.append(f"{others[0] if others else '/dev/kfd'} is for AMD GPUs, which this program cannot use")
    return tuple(hints)


def _shown(value: str) -> str:
    return printable(value, 100)
