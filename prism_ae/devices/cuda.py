"""Which GPU CUDA itself takes for the first: its uuid and name, as JSON.

Run as ``python -m prism_ae.devices.cuda``. CUDA numbers GPUs in an order of its own, so that only it can say which
one a number in ``CUDA_VISIBLE_DEVICES`` is. The driver is asked, without torch and without a context: that takes none
of the GPU's memory.
"""

from __future__ import annotations

import ctypes
import json
import uuid
from typing import Any


def first_device(cuda: Any) -> dict[str, str]:
    """The "uuid" and "name" of CUDA's device 0, or in "words" why there is none.

    Args:
        cuda: the driver's library, loaded.
    """
    device, name, identity = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    calls = (
        ("cuInit", lambda: cuda.cuInit(0)),
        ("cuDeviceGet", lambda: cuda.cuDeviceGet(ctypes.byref(device), 0)),
        ("cuDeviceGetName", lambda: cuda.cuDeviceGetName(name, len(name), device)),
        ("cuDeviceGetUuid", lambda: cuda.cuDeviceGetUuid(identity, device)),
    )
    for called, call in calls:
        if code := call():
            return {"words": f"{called} failed with CUDA error {code}"}
    return {"uuid": f"GPU-{uuid.UUID(bytes=identity.raw)}", "name": name.value.decode(errors="replace")}


def main() -> None:
    try:
        found = first_device(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        found = {"words": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
