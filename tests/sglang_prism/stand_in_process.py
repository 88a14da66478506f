"""A process that can import SGLang: with the stand-ins it needs, on the CPU, one thread."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prism_ae.sglang_prism.stand_ins.paths import stand_in_paths

needs_sglang = pytest.mark.skipif(importlib.util.find_spec("sglang") is None, reason="SGLang is not installed")


def run(script: str, given: str = "", **variables: str) -> str:
    """Run a script of this folder, with ``given`` as its input, and return what it printed; its errors fail the test
    that asked."""
    folders = [*map(str, stand_in_paths()), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"PYTHONPATH": os.pathsep.join(folders), "SGLANG_USE_CPU_ENGINE": "1", "TORCHDYNAMO_DISABLE": "1"}
    process = subprocess.run(
        [sys.executable, str(Path(__file__).parent / script)],
        env={**os.environ, **settings, "OMP_NUM_THREADS": "1", **variables},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
