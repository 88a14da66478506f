"""SGLang servers as a user starts them, on a CPU, and what is asked of them over HTTP on this machine.

Asked with httpx: it comes with huggingface-hub, so it is there wherever the tests are, it is what the ``openai``
client is made of, and one client of it serves several threads and streams.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
from sglang_prism.http_place import HttpPlace

from prism_ae.sglang_prism.stand_ins.paths import stand_in_paths

STEPS, BRANCH, VERIFIED = 5, 4, 16
POOL = 8192
"""Tokens of a server's KV cache, unless a test wants it small."""

_READY, _GRACE = 240.0, 20.0
"""Seconds that a server may take to start, on a busy machine, and to end when it is asked to."""

_LAUNCH = """
import os, sys
from prism_ae.processes.parent_death import die_with
die_with(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that does not outlive this process, even if it is killed."""


_USUAL = re.compile(r"\] (Prefill|Decode) batch|HTTP/1.1\"|DeprecationWarning|^ +return self.create_error")


@dataclasses.dataclass(frozen=True)
class Case:
    """One request. ``body`` says "stream" where the answer is to be streamed."""

    name: str
    path: str
    body: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        body: the JSON object, or the text where it is none; of a stream its last event.
        events: of a stream, without the closing ``[DONE]``.
        closed: whether a stream ended with ``[DONE]``.
    """

    status: int
    body: Any
    events: tuple[Any, ...] = ()
    closed: bool = False


class Server:
    """A server that answers. It has ended when the block of `start` is left."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._log = log
        # No settings of the user's: a proxy would be asked for this machine, too.
        self.client = httpx.Client(base_url=self.url, timeout=300, trust_env=False)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def processes(self) -> list[psutil.Process]:
        """The whole process group."""
        return members(self.process.pid)

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def post(self, path: str, body: Any) -> Answer:
        return Answer((reply := self.client.post(path, json=body)).status_code, read(reply))

    def stream(self, path: str, body: dict[str, Any]) -> Answer:
        """All events of a stream; a refusal is an answer without any."""
        with self.client.stream("POST", path, json=body | {"stream": True}) as reply:
            if not reply.headers["content-type"].startswith("text/event-stream"):
                reply.read()
                return Answer(reply.status_code, read(reply))
            lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
            events = tuple(json.loads(line) for line in lines if line != "[DONE]")
            return Answer(reply.status_code, events[-1] if events else None, events, lines[-1:] == ["[DONE]"])

    def answer(self, case: Case) -> Answer:
        if case.body.get("stream"):
            return self.stream(case.path, case.body)
        return self.post(case.path, case.body)

    def answers(self, cases: Sequence[Case], concurrency: int = 8) -> dict[str, Answer]:
        """Several at a time, so that the server has to batch them; by name, which must be unique."""
        assert len({case.name for case in cases}) == len(cases)
        with ThreadPoolExecutor(concurrency) as threads:
            try:
                return dict(zip([case.name for case in cases], threads.map(self.answer, cases), strict=True))
            except httpx.TransportError as error:
                threads.shutdown(cancel_futures=True)
                raise AssertionError(f"{error}; the server said last:\n{tail(self._log)}") from error

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self) -> None:
        """Raises AssertionError with the end of the log where it does not come to that."""
        deadline = time.monotonic() + _READY
        while time.monotonic() < deadline:
            assert self.alive, f"the server ended while it started:\n{tail(self._log)}"
            with contextlib.suppress(httpx.TransportError):
                if self.get("/health").status_code == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"no answer within {_READY:.0f} s:\n{tail(self._log)}")


@contextlib.contextmanager
def start(
    place: HttpPlace, drafter: str | None, *options: str, pool: int = POOL, variables: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server with a drafter of the place, or without drafts; yields when it answers.

    Args:
        variables: added to its environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="http-"))  # short: sockets below it have long names
    port = free_port()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command(place, drafter, port, pool), *options],
            env=environment(folder) | dict(variables or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.client.close()
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def refused(place: HttpPlace, drafter: str | None, *options: str) -> str:
    """What a server says that ends instead of starting."""
    with tempfile.TemporaryDirectory(prefix="http-") as folder:
        process = subprocess.Popen(
            [*command(place, drafter, free_port(), POOL), *options],
            env=environment(Path(folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_READY)
        finally:
            end(process)
    assert process.returncode != 0, said
    return said


def command(place: HttpPlace, drafter: str | None, port: int, pool: int) -> list[str]:
    """As a user types it, on a CPU: with and without drafts the same but for what concerns drafts.

    SGLang does not overlap on a CPU when it drafts. Without drafts it would, and then counts a token for penalties
    one step late: so it is told not to.
    """
    found = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(place.target)]
    found += ["--device", "cpu", "--dtype", "float32", "--attention-backend", "intel_amx", "--sampling-backend"]
    found += ["pytorch", "--mem-fraction-static", "0.1", "--max-total-tokens", str(pool), "--disable-overlap-schedule"]
    found += ["--sleep-on-idle", "--host", "127.0.0.1", "--port", str(port)]
    if drafter:
        found += ["--speculative-algorithm", "PRISM", "--speculative-draft-model-path", str(place.drafter(drafter))]
        found += ["--speculative-num-steps", str(STEPS), "--speculative-eagle-topk", str(BRANCH)]
        found += ["--speculative-num-draft-tokens", str(VERIFIED)]
    return found


def environment(folder: Path) -> dict[str, str]:
    """Of a server whose temporary files belong into ``folder``."""
    paths = [*map(str, stand_in_paths()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "SGLANG_USE_CPU_ENGINE": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def members(group: int) -> list[psutil.Process]:
    """Processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(process: subprocess.Popen[Any]) -> None:
    """Ask the leader of a process group to end, then end the group; returns when none of it is left."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    while members(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    process.wait()


def read(reply: httpx.Response) -> Any:
    """A body that is JSON, or text."""
    try:
        return reply.json()
    except json.JSONDecodeError:
        return reply.text


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log, without the lines that every batch and every request adds."""
    said = [line for line in log.read_text(errors="replace").splitlines() if not _USUAL.search(line)]
    return "\n".join(said[-lines:])
