"""What every test gets: one thread, no caches or settings of the user, no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported by any test module: it reads these once. Two pools of threads on two cores stand in each
# other's way, and results are promised per thread count.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PRISM_AE_MODELS", None)


@pytest.fixture(scope="session", autouse=True)
def _one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """HOME and caches in a temporary folder, for this process and those it starts."""
    home = tmp_path_factory.mktemp("home")
    kept = pytest.MonkeyPatch()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "MPLCONFIGDIR"):
        kept.setenv(name, str(home))
    yield
    kept.undo()


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
