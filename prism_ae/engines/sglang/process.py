"""The process that hosts SGLang, seen from the worker: started, asked, watched and ended here and nowhere else."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prism_ae.errors import DeviceError, PrismError
from prism_ae.io.temporary import socket_folder
from prism_ae.processes.child import Child
from prism_ae.processes.shadowing import shadowing_error
from prism_ae.sglang_prism.messages import Answered, BatchDone, Configure, EngineState, Interrupt, Refused, Serve, Start

START_PATIENCE, PATIENCE = 1800.0, 900.0
"""Seconds without a response after which a starting, or an answering, engine counts as hung."""

_TICK = 0.2


class HostDied(Exception):  # noqa: N818 - an event
    """The engine's process ended or hung. ``how`` in words; ``words`` is the end of what it printed."""

    def __init__(self, how: str, words: str) -> None:
        super().__init__(how)
        self.how, self.words = how, words


class Host:
    """One SGLang engine in a process of its own.

    Args:
        options: of ``sglang.Engine``.
        environment: variables added to this process's, or with None taken away.
        should_stop: asked while waiting.

    Raises:
        HostDied: it did not start.
        PrismError: nor will it, because of a foreign module.
        Interrupted: ``should_stop()`` while it started.
        DeviceError: no process can be started at all.
        StoreError: there is no temporary folder for it.
    """

    def __init__(
        self, options: Mapping[str, Any], environment: Mapping[str, str | None], should_stop: Callable[[], bool]
    ) -> None:
        self.nonce = secrets.token_hex(8)
        self._should_stop = should_stop
        self._said = 0
        # The engine's processes are ended by force: what they leave behind lies in a folder that goes with them.
        self._folder = str(socket_folder("prism-ae-engine-", os.environ))
        try:
            variables = {**environment, "TMPDIR": self._folder}
            start = Start(options, self.nonce)
            self._child = Child("prism_ae.sglang_prism.host", "a process for SGLang", start, variables)
        except PrismError:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        try:
            self.state: Mapping[str, Any] = self._settings(START_PATIENCE)
        except HostDied as death:
            self.discard()
            raise shadowing_error(death.words) or death from None
        except BaseException:
            self.discard()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    def stop_when(self, should_stop: Callable[[], bool]) -> None:
        """Ask this, from now on, while waiting."""
        self._should_stop = should_stop

    def configure(self, asked: Configure) -> Mapping[str, Any]:
        """What is in effect afterwards; raises DeviceError if it cannot be done, HostDied, Interrupted."""
        self._send(asked)
        self.state = self._settings(PATIENCE)
        return self.state

    def serve(self, asked: Serve) -> Iterator[Answered | BatchDone]:
        """Every answer as it comes, then how long all took; raises DeviceError, HostDied, Interrupted."""
        self._send(asked)
        while True:
            try:
                message = self._receive(PATIENCE)
            except Interrupted:
                self._interrupt()
                raise
            if isinstance(message, Refused):
                raise DeviceError(f"SGLang could not answer: {message.message}", "its log is in engine.log")
            yield message
            if isinstance(message, BatchDone):
                return

    def new_output(self) -> str:
        """What it printed since the last call."""
        text = self._child.output(self._said)
        self._said += len(text)
        return text.decode(errors="replace")

    def close(self) -> None:
        """End the process and everything that it started; what it printed can still be read."""
        self._child.end()
        self._child.connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def discard(self) -> None:
        """`close`, and forget what it printed."""
        self.close()
        self._child.close()

    def _settings(self, patience: float) -> Mapping[str, Any]:
        answer = self._receive(patience)
        if isinstance(answer, Refused):
            raise DeviceError(f"SGLang refused: {answer.message}", "its log is in engine.log")
        assert isinstance(answer, EngineState)
        if answer.settings["nonce"] != self.nonce:
            raise DeviceError("the engine that answered is not the one that was started", "please report this")
        return answer.settings

    def _interrupt(self) -> None:
        """Make it ready for other questions; one that does not answer soon is ended."""
        self._should_stop = lambda: False
        with contextlib.suppress(HostDied, DeviceError):
            self._send(Interrupt())
            while not isinstance(self._receive(60.0), BatchDone | Refused):
                pass
            return
        self.close()

    def _send(self, message: Any) -> None:
        try:
            self._child.connection.send(message)
        except OSError:
            raise self._death() from None

    def _receive(self, patience: float) -> Any:
        deadline = time.monotonic() + patience
        while not self._child.connection.poll(_TICK):
            if self._should_stop():
                raise Interrupted
            if time.monotonic() > deadline:
                how = f"no response for {patience:.0f} s"
                self.close()
                raise HostDied(how, self.last_words())
        try:
            return self._child.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> HostDied:
        how = self._child.wait(30) or "it closed its connection"
        self.close()
        return HostDied(how, self.last_words())

    def last_words(self) -> str:
        """The end of what it printed."""
        return self._child.output().decode(errors="replace")


class Interrupted(Exception):  # noqa: N818 - an event
    """The worker was told to stop while the engine was busy."""
