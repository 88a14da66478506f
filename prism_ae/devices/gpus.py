"""The GPUs of this machine, as its driver lists them, or the driver's own words where it lists none.

NVML is asked, and nvidia-smi only where NVML cannot be: the two look for their library in different ways. Both are
asked in processes of their own and with patience, since a driver may hang.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from prism_ae.processes.child import ABSENT, Ask, Said, ask, module_command, python_path

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
_GPU = re.compile(r"(\d+)\s*,\s*(GPU-[\w-]+)\s*,\s*([^\s\[].*)")
_LOST = re.compile(r"(\d+)\s*,\s*(.*)")
_LONGEST = 300
"""Letters of what a program said that a message repeats."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A GPU, or a MIG device, for CUDA: its UUID and its name in words."""

    uuid: str
    name: str


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU as the driver lists it.

    Attributes:
        number: the driver's, by place on the bus.
        divided: whether it is in MIG mode.
        parts: its MIG devices that this process may use.
    """

    number: int
    uuid: str
    name: str
    divided: bool = False
    parts: tuple[Part, ...] = ()


@dataclasses.dataclass(frozen=True)
class Listing:
    """All GPUs of this machine.

    Attributes:
        devices: by their numbers.
        lost: number of a GPU that cannot be used -> why.
        words: what else was said: why there are none, or why there might be more.
        driver: whether NVML's library is there, so that there should be an NVIDIA driver; it may have failed.
    """

    devices: tuple[Device, ...] = ()
    lost: Mapping[int, str] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()
    driver: bool = False


def list_gpus(asking: Ask = ask) -> Listing:
    """This machine's GPUs; never raises."""
    said = asking(module_command("prism_ae.devices.nvml"), {"PYTHONPATH": python_path()})
    unable, driver = "", True
    try:
        return _from_nvml(json.loads(said.out))
    except (ValueError, KeyError, TypeError, AttributeError):
        words = f"NVML: {_shortened(said)}"
    except _NothingSaid as error:
        words, driver = f"NVML: {printable(error.words)}", not error.none
        if error.absent:
            unable = "only NVIDIA GPUs can be used, and no driver of theirs is found"
    if said.silent:
        return Listing(words=(f"{words}: the driver hangs",), driver=True)  # nvidia-smi would wait for the same driver
    smi = asking(_QUERY, {})
    listing = parse_smi(smi)
    if listing.devices:
        said_first: tuple[str, ...] = (f"{words}; nvidia-smi lists GPUs all the same",)
    elif unable and smi.how == ABSENT:
        said_first = (unable, words)
    else:
        said_first = (words,)
    return dataclasses.replace(listing, words=(*said_first, *listing.words), driver=driver)


def ask_cuda(entry: str, asking: Ask = ask) -> Part | str:
    """Which GPU an entry of CUDA_VISIBLE_DEVICES is to CUDA, or why CUDA does not say."""
    said = asking(module_command("prism_ae.devices.cuda"), {"PYTHONPATH": python_path(), "CUDA_VISIBLE_DEVICES": entry})
    try:
        found = json.loads(said.out)
        return Part(found["uuid"], found["name"]) if "uuid" in found else printable(found["words"])
    except (ValueError, KeyError, TypeError):
        return _shortened(said)


class _NothingSaid(Exception):  # noqa: N818 - an event
    """NVML has no list: why, in its words, whether its library is absent, and whether there is none of it at all."""

    def __init__(self, words: str, *, absent: bool, none: bool) -> None:
        super().__init__(words)
        self.words, self.absent, self.none = words, absent, none


def _from_nvml(found: Any) -> Listing:
    if "devices" not in found:
        raise _NothingSaid(found["words"], absent=bool(found.get("absent")), none=bool(found.get("none")))
    devices = tuple(
        Device(
            number=one["number"],
            uuid=one["uuid"],
            name=one["name"],
            divided=one["divided"],
            parts=tuple(Part(*part) for part in one["parts"]),
        )
        for one in found["devices"]
    )
    lost = {int(number): f"NVML: {words}" for number, words in found["lost"].items()}
    return Listing(devices, lost, () if devices or lost else ("NVML: no devices were found",), driver=True)


def parse_smi(said: Said) -> Listing:
    """From nvidia-smi's "index, uuid, name" lines: warnings stand among them, and its exit code says little."""
    devices, lost, others = [], {}, []
    for line in filter(None, map(str.strip, f"{said.out}\n{said.err}".splitlines())):
        if match := _GPU.fullmatch(line):
            devices.append(Device(int(match[1]), match[2], printable(match[3])))
        elif match := _LOST.fullmatch(line):
            lost[int(match[1])] = f"nvidia-smi: {printable(match[2])}"
        else:
            others.append(line)
    words = f"nvidia-smi: {_shortened(Said(' '.join(others), how=said.how))}"
    return Listing(tuple(devices), lost, (words,) if others or said.how or not devices else ())


def _shortened(said: Said) -> str:
    """The words of a program and how it ended, in one line."""
    words = printable(" ".join(f"{said.out}\n{said.err}".split()))
    return f"{words} ({said.how})" if words and said.how else words or said.how or "it said nothing"


def printable(text: str, most: int = _LONGEST) -> str:
    """A text from outside in one line, without letters that steer a terminal, cut to ``most`` of them."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= most else f"{clean[:most]}…"
