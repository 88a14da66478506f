"""Child processes: what they are given, how they end, and that nothing of them stays."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from raising import raises

import prism_ae
from prism_ae.errors import DeviceError, StoreError
from prism_ae.processes.child import Child

HERE = str(Path(__file__).parent)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    with (tmp_path / "lock").open("w") as lock:
        variables = {"ASKED": "yes", "HOME": None, "PYTHONPATH": HERE}
        child = Child("echoing", "an echo", "hello", variables, [lock.fileno()])
        child.inherited = lock.fileno()  # type: ignore[attr-defined]
        yield child
        child.end()
        child.close()


def test_a_child_has_what_it_was_given(child: Child) -> None:
    assert child.connection.recv()[:3] == ("hello", "yes", None)
    child.connection.send(child.inherited)  # type: ignore[attr-defined]
    assert child.connection.recv() is False, "its own children would keep the lock"
    assert os.getpgid(child.pid) == child.pid
    assert child.wait(0) is None


def test_how_a_child_ended_and_what_it_printed_last(child: Child) -> None:
    child.connection.recv()
    child.connection.send("exit")
    with pytest.raises((EOFError, ConnectionResetError)):
        child.connection.recv()
    assert child.wait(30) == "exit code 3"
    assert child.output().endswith(b"xthe last words\n")
    assert len(child.output()) == 20_000
    assert child.output(30_000) == b"the last words\n"


def test_a_child_is_ended_with_what_it_started(child: Child) -> None:
    program = psutil.Process(child.connection.recv()[3])
    child.end()
    assert child.wait(0) == "signal SIGKILL"
    program.wait(10)  # raises TimeoutExpired


def test_a_child_ends_with_its_parent() -> None:
    code = f"""
import os, time
from prism_ae.processes.child import Child
print(Child("echoing", "an echo", "hello", {{"PYTHONPATH": {HERE!r}}}).pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(10)  # raises TimeoutExpired


def test_processes_are_started_in_one_place() -> None:
    package = Path(prism_ae.__file__).parent
    starts = re.compile(
        r"\bPopen\(|subprocess\.(run|call|check_|getoutput)|get_context\(\"|os\.(spawn|fork|system|popen)"
    )
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if starts.search(path.read_text())}
    assert found == {"processes/child.py"}


def refusing(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refusing(errno.ENOSPC))
    with raises(StoreError, "No space left on device", "TMPDIR"):
        Child("prism_ae.execution.worker", "a worker for cpu slot 0", None, {})


def test_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", refusing(errno.EAGAIN))
    with raises(DeviceError, "a worker for cpu slot 0"):
        Child("prism_ae.execution.worker", "a worker for cpu slot 0", None, {})
