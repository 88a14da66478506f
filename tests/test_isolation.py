"""What `conftest.py` promises every test."""

from __future__ import annotations

import os
import signal
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


@pytest.mark.parametrize("wrapper", [["nohup"], ["sh", "-c", "trap '' INT HUP TERM; exec \"$@\"", "sh"]])
def test_processes_of_tests_ignore_no_signal_however_the_tests_were_started(wrapper: list[str], tmp_path: Path) -> None:
    """Their order is that of a terminal; the tests themselves still outlive one under ``nohup``."""
    shown = (
        "import signal as s; print([s.getsignal(each) is not s.SIG_IGN for each in (s.SIGINT, s.SIGHUP, s.SIGTERM)])"
    )
    code = (
        "import conftest, os, signal, subprocess, sys; os.kill(os.getpid(), signal.SIGHUP); "
        f"subprocess.run([sys.executable, '-c', {shown!r}], check=True)"
    )

    def ignoring() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = subprocess.run(
        [*wrapper, sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=ignoring,
    )
    assert (done.returncode, done.stdout) == (0, "[True, True, True]\n"), done.stderr
