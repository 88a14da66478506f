"""The driver's list of GPUs: what NVML and nvidia-smi say, whatever that is, is a list or their own words."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from prism_ae.devices.cuda import first_device
from prism_ae.devices.gpus import Device, Listing, Part, ask_cuda, list_gpus, parse_smi
from prism_ae.devices.nvml import devices_of
from prism_ae.processes.child import Said, ask

A, B = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"


class Nvml:
    """The module ``pynvml``, over GPUs that are described: a number of an error, or a name and its MIG devices.

    Its errors are the real module's.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, *gpus: Any, start: int = 0) -> None:
        self.gpus, self.start = gpus, start

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        if self.start:
            raise pynvml.NVMLError(self.start)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Any:  # noqa: N802
        if isinstance(self.gpus[number], int):
            raise pynvml.NVMLError(self.gpus[number])
        return number

    def nvmlDeviceGetUUID(self, handle: Any) -> Any:  # noqa: N802
        return f"GPU-{handle}" if isinstance(handle, int) else handle.encode()

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        return self.gpus[handle][0] if isinstance(handle, int) else f"{handle} in words"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if len(self.gpus[handle]) == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> str:  # noqa: N802
        parts = self.gpus[handle][1:]
        if index not in range(1, 1 + len(parts)):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return parts[index - 1]


def saying(nvml: Said | dict[str, Any], smi: Said | None = None) -> Any:
    """Programs that answer so; nvidia-smi is only asked where an answer is given."""

    def asking(command: Sequence[str], variables: Mapping[str, str]) -> Said:
        if command[0] == "nvidia-smi":
            assert smi is not None
            return smi
        return nvml if isinstance(nvml, Said) else Said(json.dumps(nvml))

    return asking


def test_a_lost_gpu_is_named_and_hides_no_other() -> None:
    found = devices_of(Nvml(["H100"], pynvml.NVML_ERROR_GPU_IS_LOST, ["A800"], pynvml.NVML_ERROR_UNKNOWN))
    listing = list_gpus(saying(found))
    assert listing.devices == (Device(0, "GPU-0", "H100"), Device(2, "GPU-2", "A800"))
    assert set(listing.lost) == {1, 3}
    assert "GPU is lost" in listing.lost[1]
    assert "Unknown Error" in listing.lost[3]
    assert listing.words == ()


def test_mig_devices_are_listed_with_their_gpu() -> None:
    listing = list_gpus(saying(devices_of(Nvml(["H100", "MIG-1", "MIG-2"], ["H100"], ["H100", *()]))))
    assert listing.devices[0].divided
    assert listing.devices[0].parts == (Part("MIG-1", "MIG-1 in words"), Part("MIG-2", "MIG-2 in words"))
    assert not listing.devices[1].divided


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "driver/library version mismatch"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"),
        (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"),
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "operating system has blocked"),
    ],
)
def test_why_nvml_lists_nothing_is_told(code: int, said: str) -> None:
    listing = list_gpus(saying(devices_of(Nvml(start=code)), Said("", how="not found")))
    assert listing.devices == ()
    assert said in listing.words[0]
    assert listing.words[1] == "nvidia-smi: not found"


def test_a_machine_without_gpus_is_told_from_one_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_gpus(saying(devices_of(Nvml()))).words == ("NVML: no devices were found",)

    def absent(name: str) -> None:
        raise OSError(f"{name}: wrong ELF class: ELFCLASS32")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    found = devices_of(Nvml(start=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    text = "; ".join(list_gpus(saying(found, Said("", how="not found"))).words)
    assert "NVIDIA" in text
    assert "wrong ELF class" in text


def test_a_driver_that_hangs_is_not_asked_twice() -> None:
    listing = list_gpus(saying(Said("", how="no answer within 60 s", silent=True)))
    assert "60 s" in listing.words[0]


@pytest.mark.parametrize("broken", [Said("", how="signal SIGSEGV"), Said("[1, 2]"), Said("{}"), Said('{"devices": 3}')])
def test_what_nvml_cannot_tell_nvidia_smi_may(broken: Said) -> None:
    listing = list_gpus(saying(broken, Said(f"0, {A}, NVIDIA A100\n")))
    assert listing.devices == (Device(0, A, "NVIDIA A100"),)
    assert "NVML" in listing.words[0]


LINES = f"0, {A}, NVIDIA A100, 80 GB\n1, {B}, NVIDIA A100\n"


@pytest.mark.parametrize(
    ("said", "numbers", "lost", "words"),
    [
        (Said(LINES), [0, 1], [], ""),
        (Said(LINES + "WARNING: infoROM is corrupted\n", how="exit code 14"), [0, 1], [], "infoROM"),
        (Said(LINES, "WARNING: persistence mode, is, off\n"), [0, 1], [], "persistence"),
        (Said("WARNING: a, b, c\n\n" + LINES), [0, 1], [], "a, b, c"),
        (Said(f"0, [Unknown Error], [Unknown Error]\n1, {B}, X\n"), [1], [0], ""),
        (Said(f"0, {A}, [Unknown Error]\n1, {B}, X\n"), [1], [0], ""),
        (Said(f"0, {A}, [GPU is lost]\n1, {B}, X\n"), [1], [0], ""),
        (Said("Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.\n"), [], [], "GPU is lost"),
        (Said("No devices were found\n"), [], [], "No devices were found"),
        (Said("No devices were found\n", how="exit code 6"), [], [], "exit code 6"),
        (Said("", how="no answer within 60 s", silent=True), [], [], "no answer within 60 s"),
        (Said(""), [], [], "said nothing"),
        (Said("\x1b[31mred\x00\n"), [], [], "?[31mred?"),
        (Said("x" * 10_000), [], [], "…"),
    ],
)
def test_whatever_nvidia_smi_says(said: Said, numbers: list[int], lost: list[int], words: str) -> None:
    listing = parse_smi(said)
    assert [device.number for device in listing.devices] == numbers
    assert sorted(listing.lost) == lost
    assert words in "".join(listing.words)
    assert bool(listing.words) == bool(words)


def program(folder: Path, text: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_programs_are_asked_with_patience(tmp_path: Path) -> None:
    said = ask([program(tmp_path, "echo $A; echo b >&2; exit 3")], {"A": "a"})
    assert said == Said("a\n", "b\n", "exit code 3")
    assert ask([program(tmp_path, "kill -SEGV $$")], {}).how == "signal SIGSEGV"
    assert ask([str(tmp_path / "absent")], {}).how == "not found"
    (tmp_path / "text").write_text("no program")
    assert ask([str(tmp_path / "text")], {}).how == "Permission denied"
    # A child of its own keeps the pipe open: neither is waited for.
    hanging = ask([program(tmp_path, "sleep 600; echo late")], {}, patience=0.2)
    assert hanging.silent
    assert "no answer within 0.2 s" in hanging.how


def test_the_real_children_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On this machine, whatever it has: a list or words, and nothing that is raised."""
    listing = list_gpus()
    assert isinstance(listing, Listing)
    assert listing.devices or listing.words
    cuda = ask_cuda("0")
    assert isinstance(cuda, Part | str)
    assert "No module" not in f"{listing.words} {cuda}"
    # Another package called pynvml is no end, and its file is named.
    (tmp_path / "pynvml.py").write_text("raise RuntimeError('a foreign pynvml')")
    said = ask([sys.executable, "-m", "prism_ae.devices.nvml"], {"PYTHONPATH": f"{tmp_path}{os.pathsep}."})
    assert "a foreign pynvml" in json.loads(said.out)["words"]


class Cuda:
    """The driver's library with one device, or with a call that fails."""

    IDENTITY = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 100
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H100"
            if name == "cuDeviceGetUuid":
                arguments[0].raw = self.IDENTITY.bytes
            return 0

        return call


def test_cuda_says_which_gpu_it_takes_for_the_first() -> None:
    found = first_device(Cuda())
    assert found == {"uuid": f"GPU-{Cuda.IDENTITY}", "name": "NVIDIA H100"}
    assert ask_cuda("1", saying(found)) == Part(found["uuid"], found["name"])
    assert "cuInit failed with CUDA error 100" in str(ask_cuda("1", saying(first_device(Cuda("cuInit")))))
    assert ask_cuda("1", saying(Said("", how="signal SIGSEGV"))) == "signal SIGSEGV"


@pytest.mark.parametrize("name", [b"H100 \xff", b"\xe9\xe8", "H100é".encode("latin-1")])
def test_a_name_that_is_no_utf_8_hides_no_gpu(name: bytes) -> None:
    class Odd(Nvml):
        """As pynvml, which decodes what the library says."""

        def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
            return name.decode() if handle == 1 else "H100"

    listing = list_gpus(saying(devices_of(Odd(["H100"], ["odd"], ["H100"]))))
    assert [device.number for device in listing.devices] == [0, 1, 2]
    assert listing.devices[1].name == name.decode(errors="replace")
    assert not listing.lost


def test_a_library_that_is_there_and_fails_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    smi = Said("", how="not found")
    assert list_gpus(saying(Said("", how="signal SIGABRT"), smi)).driver
    assert list_gpus(saying(devices_of(Nvml(start=pynvml.NVML_ERROR_UNKNOWN)), smi)).driver
    assert list_gpus(saying(devices_of(Nvml()), smi)).driver
    for words, driver in (("cannot open shared object file: No such file or directory", False), ("wrong ELF", True)):

        def refuse(name: str, words: str = words) -> None:
            raise OSError(f"{name}: {words}")

        monkeypatch.setattr(ctypes, "CDLL", refuse)
        found = devices_of(Nvml(start=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
        assert list_gpus(saying(found, smi)).driver == driver
