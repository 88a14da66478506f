"""Starting a process, waiting for it and ending it: the only place that does.

A `Program` is any command; what is merely to be asked of one, `ask` does. A `Child` is a module of this package in a
fresh interpreter: it inherits what it is told to, as a run's lock, talks with its parent over a connection, writes
whatever it prints to a file without a name that its parent can read after its death, and never outlives its parent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import prism_ae
from prism_ae.errors import DeviceError
from prism_ae.io.temporary import output_file
from prism_ae.processes.parent_death import die_with

PATIENCE = 60.0
"""Seconds that a driver may take: several GPUs that nothing has used for a while are woken one after another."""

ABSENT = "not found"

_TAIL = 20_000
"""Bytes of its output that are shown of a child that died."""

Variables = Mapping[str, str | None]
"""Set beside those of this process; None takes one away."""


class Program:
    """A program that was started, in a process group of its own: Ctrl-C in a terminal reaches its parent alone.

    Args:
        out, err: where its output goes; None: where this process's does.
        inherited: descriptors that it keeps open.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Variables,
        out: IO[bytes] | int | None = None,
        err: IO[bytes] | int | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        environment = {**os.environ, **variables}
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={name: value for name, value in environment.items() if value is not None},
            pass_fds=inherited,
            process_group=0,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait(self, seconds: float) -> str | None:
        """How it ended, in words; None if it has not within ``seconds``."""
        try:
            return _ending(self._popen.wait(seconds))
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """By force, with everything that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self, grace: float = 0.0) -> None:
        """As Ctrl-C ends it, and after so many seconds of ``grace`` by force; returns when it is gone."""
        if grace and self.wait(0) is None:
            self._popen.send_signal(signal.SIGINT)
            self.wait(grace)
        self.kill()
        self._popen.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def python_path(first: str | None = None) -> str:
    """PYTHONPATH for a child that runs a module of this very package.

    Args:
        first: folders that go in front.
    """
    package = str(Path(prism_ae.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [first, package, os.environ.get("PYTHONPATH")]))


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module in a fresh interpreter; -P: whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


class Child(Program):
    """A child, seen from its parent. ``connection`` is closed on its side when it ends.

    Args:
        module: its ``main`` is called with the other end of the connection.
        what: it is, for messages: "a worker for cpu slot 0".
        first: what it hears first; a child that is gone by then is noticed when its end of the connection is read.
        variables: PYTHONPATH goes in front of this package.
        inherited: descriptors that it keeps open, and none of its own children does.

    Raises:
        DeviceError: no process can be started.
        StoreError: its output cannot be written.
    """

    def __init__(
        self, module: str, what: str, first: object, variables: Variables, inherited: Sequence[int] = ()
    ) -> None:
        self._output = output_file()
        ours, theirs = socket.socketpair()
        passed = (theirs.fileno(), *inherited)
        command = module_command(__name__, module, *(str(number) for number in (os.getpid(), *passed)))
        variables = {**variables, "PYTHONPATH": python_path(variables.get("PYTHONPATH"))}
        try:
            super().__init__(command, variables, self._output, self._output, passed)
        except OSError as error:
            ours.close()
            self._output.close()
            raise DeviceError(f"cannot start {what}: {error.strerror}", "use fewer --workers") from error
        finally:
            theirs.close()
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        with contextlib.suppress(OSError):
            self.connection.send(first)

    def output(self, start: int | None = None) -> bytes:
        """What it printed from byte ``start`` on; None: the end of it."""
        return printed_to(self._output.fileno(), start)

    def close(self) -> None:
        """Forget what it said and printed."""
        self.connection.close()
        self._output.close()


def printed_to(descriptor: int, start: int | None = None) -> bytes:
    """A file's content from byte ``start`` on; None: the end of it."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL) if start is None else start
    return os.pread(descriptor, size - start, start)


@dataclasses.dataclass(frozen=True)
class Said:
    """What a program said.

    Attributes:
        out: on its standard output.
        err: on standard error.
        how: "" when it ended well; else how it ended, or why it was not started.
        silent: whether it was ended because it gave no answer.
    """

    out: str
    err: str = ""
    how: str = ""
    silent: bool = False


Ask = Callable[[Sequence[str], Mapping[str, str]], Said]
"""Runs a command with further variables set."""


def ask(command: Sequence[str], variables: Mapping[str, str], patience: float = PATIENCE) -> Said:
    """Run a program that may hang, and whose process may then not even be killed: nobody waits for that one.

    Args:
        patience: seconds.
    """
    try:
        program = Program(command, variables, subprocess.PIPE, subprocess.PIPE)
    except OSError as error:
        return Said("", how=ABSENT if isinstance(error, FileNotFoundError) else error.strerror or str(error))
    popen = program._popen
    try:
        out, err = (text.decode(errors="replace") for text in popen.communicate(timeout=patience))
    except subprocess.TimeoutExpired:
        return Said("", how=f"no answer within {patience:g} s", silent=True)
    finally:
        program.kill()
        program.wait(1)
        for pipe in (popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()
    return Said(out, err, _ending(popen.returncode) if popen.returncode else "")


def main() -> None:
    """In a child. It ends quietly when its parent is gone: nobody is left to tell."""
    parent, descriptor, *others = (int(argument) for argument in sys.argv[2:])
    die_with(parent)
    for inherited in (descriptor, *others):
        os.set_inheritable(inherited, False)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), Connection(descriptor) as connection:
        importlib.import_module(sys.argv[1]).main(connection)


if __name__ == "__main__":
    main()
