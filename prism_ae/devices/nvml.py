"""What NVML, the library behind nvidia-smi, says of this machine's GPUs.

Run as ``python -m prism_ae.devices.nvml`` it prints that as JSON. It is a process of its own because a call into a
driver that hangs never returns, and because a broken library can take its process with it.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from typing import Any

_ABSENT = "NVMLError_LibraryNotFound"
_MEANT = {
    _ABSENT: "its library cannot be loaded",
    "NVMLError_DriverNotLoaded": "the NVIDIA kernel driver is not loaded",
    "NVMLError_LibRmVersionMismatch": (
        "driver/library version mismatch: the kernel runs another version of the driver than the one that is installed "
        "(after an update a reboot helps)"
    ),
    "NVMLError_GpuIsLost": "it has fallen off the bus, or is not reachable for another reason",
    "NVMLError_NoPermission": "this process may not use it (a container, or a scheduler's limits)",
}
"""What an error of NVML's means, where its own words do not say it."""


def devices_of(nvml: Any) -> dict[str, Any]:
    """What NVML says.

    Args:
        nvml: the module ``pynvml``.

    Returns:
        "devices", each with its "number", "uuid", "name", "divided" (MIG) and "parts" (uuid and name of its MIG
        devices), and "lost": why of another number nothing is known. Else "words": why NVML lists
        nothing, whether its library is "absent" (or cannot be loaded), and whether there is "none" of it at all.
    """
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        words = _words(error)
        absent = type(error).__name__ == _ABSENT
        return {"words": words, "absent": absent, "none": absent and "No such file" in words}
    devices, lost = [], {}
    for number in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            devices.append(
                {
                    "number": number,
                    "uuid": _text(nvml.nvmlDeviceGetUUID, handle),
                    "name": _text(nvml.nvmlDeviceGetName, handle),
                }
                | _division(nvml, handle)
            )
        except nvml.NVMLError as error:  # one GPU that is lost does not hide the others
            lost[str(number)] = _words(error)
    return {"devices": devices, "lost": lost}


def _division(nvml: Any, handle: Any) -> dict[str, Any]:
    """Whether a GPU is divided into MIG devices, and which this process may use."""
    try:
        divided = bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:
        divided = False  # a GPU that cannot be divided says "Not Supported", an old driver "Function Not Found"
    parts = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if divided else 0):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            parts.append((_text(nvml.nvmlDeviceGetUUID, part), _text(nvml.nvmlDeviceGetName, part)))
        except nvml.NVMLError:
            continue  # places without a device, and devices of others
    return {"divided": divided, "parts": parts}


def _text(call: Callable[[Any], str | bytes], handle: Any) -> str:
    """What a call says of a device; a letter that is no UTF-8 becomes a mark, and hides neither this GPU nor others."""
    try:
        value = call(handle)
    except UnicodeDecodeError as error:
        value = bytes(error.object)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _words(error: Exception) -> str:
    kind = type(error).__name__
    meant = [_MEANT[kind]] if kind in _MEANT else []
    if kind == _ABSENT:
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError as loader:  # the loader's words: is it absent, not readable, of another machine?
            return f"{meant[0]} ({loader})"
    return ": ".join([str(error).rstrip("."), *meant])


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library itself prints is no part of the answer
    try:
        import pynvml  # type: ignore[import-untyped]

        found = devices_of(pynvml)
    except Exception as error:  # another package of that name, a library without a function
        found = {"words": f"{type(error).__name__}: {error}"}
    json.dump(found, answer)
    answer.close()


if __name__ == "__main__":
    main()
