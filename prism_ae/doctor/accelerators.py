"""GPUs as the driver lists them and the environment leaves them, and torch, asked in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_ae.devices.gpus import Listing, ask_cuda, list_gpus
from prism_ae.devices.slots import plan_slots
from prism_ae.devices.visible import VARIABLE, Found, gpus_meant, visible_gpus
from prism_ae.doctor.findings import Finding, from_error, ok, problem, shown, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.errors import DeviceError
from prism_ae.processes.child import Said, ask, module_command

_DRIVER = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"))

_CPU_BUILD = "run 'make setup GPU=1', which installs a torch that is built for CUDA"


@dataclasses.dataclass(frozen=True)
class Torch:
    """What torch said of itself: ``error`` where it cannot be imported, else the rest.

    Attributes:
        cuda: version of CUDA that it is built for, None for a CPU build.
        devices: names of the GPUs that it can use.
        words: its own warnings about CUDA.
    """

    error: str = ""
    version: str = ""
    cuda: str | None = None
    devices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about GPUs and torch."""
    asked: list[Torch] = []
    torch = threading.Thread(target=lambda: asked.append(ask_torch()), daemon=True)
    torch.start()  # torch takes its seconds, and so may a driver
    listing = list_gpus()
    found = visible_gpus(listing, snapshot.variables, ask_cuda)
    driver = listing.driver or shutil.which("nvidia-smi") is not None or any(path.exists() for path in _DRIVER)
    yield from judge_gpus(listing, found, signs=driver or gpus_meant(snapshot.variables), gpus=snapshot.gpus)
    torch.join()
    yield judge_torch(asked[0], len(found.gpus), asked=snapshot.gpus is not None)


def ask_torch() -> Torch:
    """Import torch in another process and read what it says; never raises."""
    return read_torch(ask(module_command("prism_ae.doctor.probe"), {}))


def read_torch(said: Said) -> Torch:
    """From what `probe` printed, or how it ended instead."""
    try:
        found: dict[str, Any] = json.loads(said.out.splitlines()[-1])
        if "error" in found:
            return Torch(error=found["error"])
        return Torch("", found["version"], found["cuda"], tuple(found["devices"]), tuple(found["words"]))
    except (IndexError, ValueError, KeyError, TypeError):
        words = (said.err.strip() or said.out.strip()).splitlines()[-1:]
        return Torch(error=", ".join([*words, *filter(None, [said.how])]) or "it said nothing")


def judge_gpus(listing: Listing, found: Found, *, signs: bool, gpus: str | None) -> Iterator[Finding]:
    """Pure.

    Args:
        listing: all GPUs of the machine.
        found: what of them the environment leaves to this process.
        signs: whether there are signs of NVIDIA GPUs: a driver, or a scheduler that gave some.
        gpus: as asked for, or None.
    """
    notes = "; ".join(found.notes) or "the driver lists none"
    if VARIABLE in notes:
        remedy = f"correct or unset {VARIABLE}"
    else:
        remedy = "look after the driver until nvidia-smi lists all GPUs without a complaint"
    for number, why in found.unusable.items():
        yield warning("GPUs", f"GPU {number} cannot be used: {why}", "use the other GPUs, or do what this says")
    if gpus is not None:
        try:
            plan_slots(gpus, None, 1, "", lambda: found)
        except DeviceError as error:
            yield from_error("GPUs", error)
            return
    if found.gpus:
        names = ", ".join(f"{number} ({gpu.name})" for number, gpu in found.gpus.items())
        if found.notes:
            yield warning("GPUs", f"{names}; {notes}", f"nothing, if that is meant; else {remedy}")
        else:
            yield ok("GPUs", names)
    elif found.unusable and not found.notes:
        return  # each of them was said
    elif there := len(listing.devices) + len(listing.lost):
        yield warning("GPUs", f"this machine has {there}, and none can be used: {notes}", remedy)
    elif signs:
        yield warning("GPUs", f"none, though there are signs of NVIDIA GPUs: {notes}", remedy)
    else:
        yield ok("GPUs", f"none; the CPU is used ({notes})")


def judge_torch(torch: Torch, gpus: int, *, asked: bool) -> Finding:
    """Pure.

    Args:
        gpus: number of GPUs that torch should see.
        asked: whether GPUs are asked for.
    """
    if torch.error:
        return problem(
            "torch",
            f"torch cannot be imported: {shown(torch.error)}",
            "run 'make setup' (with a GPU: 'make setup GPU=1'), and remove foreign modules that are named here",
        )
    build = f"torch {torch.version}, built for {f'CUDA {torch.cuda}' if torch.cuda else 'CPUs'}"
    make = problem if asked else warning
    if not gpus:
        return ok("torch", build)
    if torch.cuda is None:
        return make("torch", f"{build}: it cannot use the {gpus} GPU(s) that the driver shows", _CPU_BUILD)
    if len(torch.devices) != gpus:
        words = f" ({shown('; '.join(torch.words))})" if torch.words else ""
        return make(
            "torch",
            f"{build}: it sees {len(torch.devices)} of the {gpus} GPU(s) that the driver shows{words}",
            "install a driver that is new enough for this CUDA, or a torch that is built for an older one",
        )
    return ok("torch", f"{build}, sees {gpus} GPU(s)")
