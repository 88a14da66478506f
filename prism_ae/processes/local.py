"""Starting and ending worker processes on this machine: the only place that does.

A worker is a fresh interpreter in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone,
which then asks its workers to stop. A worker inherits the run's lock and writes whatever it prints to a file that the
parent can read after its death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import prism_ae
from prism_ae.devices.slots import Slot
from prism_ae.errors import DeviceError
from prism_ae.io.temporary import output_file


class Process(Protocol):
    """A worker, seen from the parent. ``connection`` is closed on its side when it ends."""

    connection: Connection[Any, Any]

    def kill(self) -> None: ...

    def wait(self, seconds: float) -> str | None:
        """How it ended, in words; None if it has not within ``seconds``."""
        ...

    def output(self) -> bytes:
        """The end of what it printed."""
        ...

    def close(self) -> None: ...


Launch = Callable[[Slot], Process]


class LocalProcess:
    """A `Process` on this machine."""

    def __init__(self, slot: Slot, lock: int) -> None:
        self._output = output_file()
        ours, theirs = socket.socketpair()
        package = str(Path(prism_ae.__file__).resolve().parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P and the path: the worker runs this very package, whatever lies in the current folder.
        inherited = (theirs.fileno(), lock)
        numbers = (str(number) for number in (os.getpid(), *inherited))
        command = [sys.executable, "-P", "-m", "prism_ae.execution.worker", *numbers]
        environment = {**os.environ, **slot.environment, "PYTHONPATH": os.pathsep.join(paths)}
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                pass_fds=inherited,
                process_group=0,
            )
        except OSError as error:
            ours.close()
            self._output.close()
            raise DeviceError(
                f"cannot start a worker for {slot.label}: {error.strerror}", "use fewer --workers"
            ) from error
        finally:
            theirs.close()
        self.connection: Connection[Any, Any] = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._popen.pid

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()

    def wait(self, seconds: float) -> str | None:
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
        return f"signal {-code}"

    def output(self) -> bytes:
        size = os.fstat(self._output.fileno()).st_size
        start = max(0, size - 20_000)
        return os.pread(self._output.fileno(), size - start, start)

    def close(self) -> None:
        self.connection.close()
        self._output.close()
