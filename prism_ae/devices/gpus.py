"""The GPUs of this machine, as its driver lists them, or the driver's own words where it lists none.

NVML is asked, and nvidia-smi only where NVML cannot be: the two look for their library in different ways. Both are
asked in processes of their own and with patience, since a driver may hang.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import prism_ae

PATIENCE = 60.0
"""Seconds that a driver may take: several GPUs that nothing has used for a while are woken one after another."""

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader")
_GPU = re.compile(r"(\d+)\s*,\s*(GPU-[\w-]+)\s*,\s*([^\s\[].*)")
_LOST = re.compile(r"(\d+)\s*,\s*(.*)")
_ABSENT = "not found"
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


@dataclasses.dataclass(frozen=True)
class Said:
    """What a program said.

    Attributes:
        out: on its standard output.
        err: on standard error.
        how: "" when it ended well; else how it ended, or why it was not started.
        silent: whether it was ended because it gave no answer.
    """

    out: str
    err: str = ""
    how: str = ""
    silent: bool = False


Ask = Callable[[Sequence[str], Mapping[str, str]], Said]
"""Runs a command with further variables set."""


def ask(command: Sequence[str], variables: Mapping[str, str], patience: float = PATIENCE) -> Said:
    """Run a program that may hang, and whose process may then not even be killed: nobody waits for that one.

    Args:
        variables: set beside those of this process.
        patience: seconds.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **variables},
            process_group=0,
        )
    except OSError as error:
        return Said("", how=_ABSENT if isinstance(error, FileNotFoundError) else error.strerror or str(error))
    try:
        out, err = (text.decode(errors="replace") for text in process.communicate(timeout=patience))
    except subprocess.TimeoutExpired:
        return Said("", how=f"no answer within {patience:g} s", silent=True)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Said(out, err, _end(process.returncode))


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}" if code else ""
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def list_gpus(asking: Ask = ask) -> Listing:
    """This machine's GPUs; never raises."""
    said = asking(_module("nvml"), _PATH)
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
    elif unable and smi.how == _ABSENT:
        said_first = (unable, words)
    else:
        said_first = (words,)
    return dataclasses.replace(listing, words=(*said_first, *listing.words), driver=driver)


def ask_cuda(entry: str, asking: Ask = ask) -> Part | str:
    """Which GPU an entry of CUDA_VISIBLE_DEVICES is to CUDA, or why CUDA does not say."""
    said = asking(_module("cuda"), _PATH | {"CUDA_VISIBLE_DEVICES": entry})
    try:
        found = json.loads(said.out)
        return Part(found["uuid"], found["name"]) if "uuid" in found else printable(found["words"])
    except (ValueError, KeyError, TypeError):
        return _shortened(said)


_PATH = {
    "PYTHONPATH": os.pathsep.join(
        [str(Path(prism_ae.__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
}


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-m", f"prism_ae.devices.{name}"


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
