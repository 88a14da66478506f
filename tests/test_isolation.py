"""What `conftest.py` promises every test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_no_test_reaches_the_network() -> None:
    with socket.socket() as plug, pytest.raises(AssertionError, match="a test connects to"):
        plug.connect(("192.0.2.1", 80))


def test_home_is_a_folder_of_the_tests() -> None:
    assert Path.home().name.startswith("prism-ae-tests-")
    assert os.environ["XDG_CACHE_HOME"] == str(Path.home())


def test_a_process_of_a_test_uses_one_thread() -> None:
    code = "import torch; print(torch.get_num_threads())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"
