"""One run per suite: a second one is told who is there, and a killed one leaves nothing locked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from raising import raises

from prism_ae.errors import StoreError
from prism_ae.store.lock import run_lock


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with run_lock(tmp_path), raises(StoreError, tmp_path, f"process {os.getpid()}"), run_lock(tmp_path, patience=0.1):
        pass
    with run_lock(tmp_path):
        pass


def test_a_worker_that_is_left_keeps_its_share_of_the_lock(tmp_path: Path) -> None:
    with run_lock(tmp_path) as lock:
        share = os.dup(lock)
    with raises(StoreError, tmp_path), run_lock(tmp_path, patience=0.1):
        pass
    os.close(share)
    with run_lock(tmp_path, patience=0):
        pass


def test_a_killed_run_leaves_the_folder_free_once_its_workers_are_gone(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from pathlib import Path; from prism_ae.store.lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])) as lock:\n"
        "    worker = subprocess.Popen(['sleep', '100'], pass_fds=[lock])\n"
        "    print(worker.pid, flush=True); time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with raises(StoreError, tmp_path), run_lock(tmp_path, patience=0.1):
        pass
    os.kill(worker, signal.SIGKILL)
    with run_lock(tmp_path, patience=5.0):
        pass
