"""In a process of its own: torch is imported and asked for its devices. Prints one JSON object as its last line.

Whatever an import does (end the process, write to the output, never return) happens here and not in doctor.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any


def look() -> dict[str, Any]:
    """``version`` and ``cuda`` (the version it is built for, or None), ``file``; ``devices`` (names), ``words`` (its
    warnings); or ``error``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            import torch

            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            devices = [torch.cuda.get_device_name(number) for number in range(count)]
        except BaseException as error:
            return {"error": f"{type(error).__name__}: {error}"}
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "file": torch.__file__,
        "devices": devices,
        "words": [str(one.message).strip() for one in caught if "CUDA" in str(one.message)],
    }


if __name__ == "__main__":
    found = look()
    sys.stdout.flush()
    print("\n" + json.dumps(found), flush=True)
