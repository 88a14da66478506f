"""Whole sweeps with real processes and the fake engine: whatever is killed, the next run finishes the rest."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_engine import fake_samples
from sweeps import Sweep

from prism_ae.errors import StoreError
from prism_ae.store.lock import run_lock

CELLS = 28


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def ids(sweep: Sweep) -> list[str]:
    """All cells of the sweep, in the order of the plan."""
    planned = json.loads(sweep.run(sweep.arguments("plan", "--json")).stdout)
    return [cell["id"] for assignment in planned["assignments"] for cell in assignment["cells"]]


def finished(sweep: Sweep) -> set[str]:
    return {cell_id for cell_id, record in sweep.store().records().items() if record.ok}


def content(sweep: Sweep) -> dict[str, tuple[object, ...]]:
    """Everything in the store except times."""
    store = sweep.store()
    return {
        cell_id: (record.status, record.cell, record.settings, record.samples_sha256, store.samples(record))
        for cell_id, record in store.records().items()
    }


def workers_of(pid: int) -> list[psutil.Process]:
    try:
        return [child for child in psutil.Process(pid).children() if "prism_ae.execution.worker" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"))
    done = sweep.run(sweep.arguments("run", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert sorted(Counter(sweep.measured()).values()) == [1] * CELLS
    return content(sweep)


def test_every_cell_has_the_engines_numbers(undisturbed: dict[str, tuple[Any, ...]]) -> None:
    assert len(undisturbed) == CELLS
    for status, cell, settings, _, samples in undisturbed.values():
        assert (status, settings) == ("ok", {"device": "cpu"})
        assert samples == fake_samples(cell)


@pytest.mark.parametrize("seed", range(2))
def test_parents_killed_at_any_moment_lose_and_repeat_nothing(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]], seed: int
) -> None:
    chance = random.Random(seed)
    before: set[str] = set()
    kills = 0
    while True:
        measured = len(sweep.measured())
        process = sweep.start(sweep.arguments("run", "--workers", "2"), {"seconds": 0.03})
        if kills < 4:
            moment = time.monotonic() + chance.uniform(0.2, 0.9)
            workers: list[psutil.Process] = []
            while time.monotonic() < moment and process.poll() is None:
                workers = workers_of(process.pid) or workers
                time.sleep(0.005)
            process.kill()
            kills += 1
        _, err = process.communicate(timeout=60)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
        assert not before & set(sweep.measured()[measured:]), "a finished cell ran twice"
        before = finished(sweep) if sweep.root.exists() else set()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
    assert content(sweep) == undisturbed
    assert kills == 4
    assert sorted(os.listdir(sweep.root / "cells")) == sorted(undisturbed)


@pytest.mark.parametrize("seed", range(2))
def test_workers_killed_at_any_moment_lose_and_repeat_nothing(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]], seed: int
) -> None:
    chance = random.Random(seed)
    process = sweep.start(sweep.arguments("run", "--workers", "2"), {"seconds": 0.03})
    moments: list[tuple[set[str], int]] = []
    while len(moments) < 4 and process.poll() is None:
        time.sleep(chance.uniform(0.02, 0.3))
        if workers := workers_of(process.pid):
            moments.append((finished(sweep) if sweep.root.exists() else set(), len(sweep.measured())))
            chance.choice(workers).kill()
    _, err = process.communicate(timeout=60)
    assert moments
    assert process.returncode in (0, 8), err  # 8: the same cell was under way at two of the deaths
    if process.returncode == 8:
        assert " 2 times" in err
        again = sweep.run(sweep.arguments("run", "--workers", "2"))
        assert again.returncode == 0, again.stderr
    assert content(sweep) == undisturbed
    for before, measured in moments:
        assert not before & set(sweep.measured()[measured:]), "a finished cell ran twice"


def test_a_cell_that_kills_its_worker_is_given_up_and_the_run_goes_on(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    bad = ids(sweep)[5]
    done = sweep.run(sweep.arguments("run", "--workers", "2"), {"crash": [bad]})
    assert done.returncode == 8, done.stderr
    assert "2 times (signal SIGKILL)" in done.stderr
    assert "1 of 28 cells" in done.stderr
    assert finished(sweep) == set(undisturbed) - {bad}
    record = sweep.store().records()[bad]
    assert record.status == "killed"
    assert sorted(Counter(sweep.measured()).values()) == [1] * (CELLS - 1)
    assert sweep.run(sweep.arguments("run", "--workers", "1")).returncode == 0
    assert content(sweep) == undisturbed


def test_failures_are_recorded_with_their_reason_and_tried_again(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    planned = ids(sweep)
    behaviour = {"fail": [planned[3]], "bug": [planned[7]], "memory": [planned[11]], "silent": [planned[14]]}
    done = sweep.run(sweep.arguments("run", "--workers", "2"), behaviour)
    assert done.returncode == 8, done.stderr
    records = sweep.store().records()
    assert (records[planned[3]].status, records[planned[7]].status) == ("failed", "failed")
    assert records[planned[11]].status == "out-of-memory"
    assert records[planned[3]].message == f"cell {planned[3]} was told to fail\n  tell it otherwise"
    assert "ValueError" in records[planned[7]].message
    assert records[planned[14]].message == "the engine gave no result"
    log = (sweep.root / "cells" / records[planned[7]].attempt / "engine.log").read_text()
    assert "Traceback" in log
    assert f"cell {planned[7]} has a bug" in log
    assert len(finished(sweep)) == CELLS - 4
    assert sweep.run(sweep.arguments("run")).returncode == 0
    assert content(sweep) == undisturbed


def test_one_interrupt_keeps_what_is_measured_and_the_next_run_goes_on(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    process = sweep.start(sweep.arguments("run", "--workers", "2"), {"seconds": 0.1}, start_new_session=True)
    wait_for(lambda: len(sweep.measured()) >= 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    before = sweep.measured()
    assert 5 <= len(before) < CELLS
    assert finished(sweep) == set(before)
    assert sweep.run(sweep.arguments("run", "--workers", "2")).returncode == 0
    assert content(sweep) == undisturbed
    assert sorted(Counter(sweep.measured()).values()) == [1] * CELLS


def test_terminating_is_like_an_interrupt_also_when_every_process_is_told(sweep: Sweep) -> None:
    process = sweep.start(sweep.arguments("run", "--workers", "1"), {"seconds": 0.1})
    wait_for(lambda: len(sweep.measured()) >= 2)
    for worker in workers_of(process.pid):
        assert os.getpgid(worker.pid) != os.getpgid(process.pid)
        worker.terminate()
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "died" not in err
    assert finished(sweep) == set(sweep.measured())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_a_run_was_started_to_ignore_does_not_stop_it(sweep: Sweep, number: signal.Signals) -> None:
    """As ``nohup`` and ``&`` start it: every process is told, and all cells are measured."""
    started = sweep.start(
        sweep.arguments("run", "--workers", "1"),
        {"seconds": 0.02},
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    wait_for(lambda: len(sweep.measured()) >= 2)
    assert len(sweep.measured()) < CELLS
    for process in (psutil.Process(started.pid), *workers_of(started.pid)):
        process.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    assert len(finished(sweep)) == CELLS


def test_workers_die_with_their_parent_even_when_they_do_not_listen(sweep: Sweep) -> None:
    process = sweep.start(sweep.arguments("run", "--workers", "2"), {"seconds": 60, "deaf": True})
    wait_for(lambda: len(list(sweep.root.glob("cells/*/provenance.json"))) == 8)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert psutil.wait_procs(workers, timeout=5)[1] == []


def test_a_second_interrupt_does_not_wait(sweep: Sweep) -> None:
    process = sweep.start(sweep.arguments("run", "--workers", "2"), {"seconds": 60, "deaf": True})
    wait_for(lambda: len(workers_of(process.pid)) == 2 and len(list(sweep.root.glob("cells/*/provenance.json"))) == 8)
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert psutil.wait_procs(workers, timeout=5)[1] == []


def test_a_second_run_on_the_same_suite_is_refused(sweep: Sweep) -> None:
    first = sweep.start(sweep.arguments("run", "--workers", "1"), {"seconds": 0.2})
    wait_for(lambda: sweep.measured())
    second = sweep.run(sweep.arguments("run", "--workers", "1"))
    assert second.returncode == 7
    assert f"process {first.pid} " in second.stderr
    assert "Traceback" not in second.stderr
    first.terminate()
    first.communicate(timeout=30)
    with run_lock(sweep.root, patience=0):
        pass


def test_a_disk_that_fills_up_stops_the_run_and_keeps_what_is_there(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # its notes would not fit on the disk either

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    process = sweep.start(sweep.arguments("run", "--workers", "2"), preexec_fn=small_files)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 7, err
    assert "log.jsonl: File too large" in err
    assert "Traceback" not in err
    kept = finished(sweep)
    assert 0 < len(kept) < CELLS
    assert sweep.store().quarantined == ()
    measured = len(sweep.measured())
    assert sweep.run(sweep.arguments("run", "--workers", "2")).returncode == 0
    assert content(sweep) == undisturbed
    assert not kept & set(sweep.measured()[measured:])


def test_a_really_full_disk(sweep: Sweep) -> None:
    import subprocess

    small = sweep.folder / "runs"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        done = sweep.run(sweep.arguments("run", "--workers", "2"))
        assert done.returncode == 7, done.stderr
        assert "No space left on device" in done.stderr
        kept = finished(sweep)
        assert 0 < len(kept) < CELLS
        subprocess.run(["mount", "-o", "remount,size=10m", str(small)], check=True)
        measured = len(sweep.measured())
        assert sweep.run(sweep.arguments("run", "--workers", "2")).returncode == 0
        assert not kept & set(sweep.measured()[measured:])
        assert len(finished(sweep)) == CELLS
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_engine_that_cannot_use_its_device_ends_the_run_and_blames_no_cell(sweep: Sweep) -> None:
    done = sweep.run(sweep.arguments("run", "--workers", "2"), {"unusable": True})
    assert done.returncode == 6
    assert "cpu was told to be unusable" in done.stderr
    assert sweep.store().records() == {}


def test_a_damaged_line_is_said_and_its_cell_measured_again(
    sweep: Sweep, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    assert sweep.run(sweep.arguments("run")).returncode == 0
    path = sweep.root / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"tiny", b"tinY", 1), *lines[4:-1], lines[-1][:-40]]))
    done = sweep.run(sweep.arguments("run"))
    assert done.returncode == 0
    assert f"4, {CELLS}" in done.stderr
    assert " 2 cells" in done.stderr
    assert content(sweep) == undisturbed


def test_a_finished_sweep_measures_nothing_and_draws_again(sweep: Sweep) -> None:
    first = sweep.run(sweep.arguments("run"))
    log = (sweep.root / "log.jsonl").read_bytes()
    second = sweep.run(sweep.arguments("run"))
    assert second.returncode == 0
    assert "28 of 28 cells" in second.stderr
    assert second.stdout == first.stdout
    assert (sweep.root / "log.jsonl").read_bytes() == log
    with pytest.raises(StoreError), run_lock(sweep.root), run_lock(sweep.root, patience=0):
        pass
