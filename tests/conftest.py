"""What every test gets: one thread, no settings or caches of the user, no network, signals that are not ignored."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

_PLUGINS = str(Path(__file__).parent / "plugins")
"""An engine for tests, which is found by its entry point, here and in the processes that tests start."""

_HOME = tempfile.mkdtemp(prefix="prism-ae-tests-")

# Set before any test module imports torch or matplotlib, which read them once; processes that tests start inherit them.
# Two pools of threads on two cores stand in each other's way, and results are promised per thread count.
os.environ.update(
    dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "MPLCONFIGDIR"), _HOME),
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    PYTHONPATH=os.pathsep.join(filter(None, [_PLUGINS, os.environ.get("PYTHONPATH")])),
)
sys.path.append(_PLUGINS)
os.environ.pop("PRISM_AE_MODELS", None)


def _signals_as_in_a_terminal() -> None:
    """Processes that tests start find every signal as a terminal would leave it, however the tests were started.

    ``nohup``, ``&`` and ``trap ''`` make a process ignore signals, and so all that it starts; what is handled by a
    function is back at its default there. SIGHUP is dropped here, not obeyed: tests under ``nohup`` outlive a terminal.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)


_ORDERS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
_signals_as_in_a_terminal()


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails; sockets on this machine are allowed."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent
