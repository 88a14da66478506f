"""Training the suite: repeats byte for byte, survives being killed anywhere, never shows a half folder."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from raising import raises
from transformers import AutoModelForCausalLM

from prism_ae.devices.slots import Slot, cpu_threads
from prism_ae.drafters.checkpoint import load_drafter
from prism_ae.drafters.model import Drafter
from prism_ae.errors import DeviceError, PrismError, StoreError
from prism_ae.io.digests import file_digest
from prism_ae.models.checkpoints import load_target, read_manifest
from prism_ae.models.llama import Llama
from prism_ae.processes.pool import Ready
from prism_ae.recipes.catalogue import Artifact, Catalogue, SuiteOrder
from prism_ae.suites.load import load_suite
from prism_ae.training.drafter import Data, new_drafter, train, training_steps
from prism_ae.training.examples import Example
from prism_ae.training.features import Features
from prism_ae.training.jobs import plan_jobs
from prism_ae.training.run import train_suite
from prism_ae.training.workbench import Workbench

TINY = dataclasses.replace(load_suite("mini"), recipes=str(Path(__file__).parent / "tiny.toml"))
SLOTS = tuple(Slot(f"cpu slot {number}", "cpu", "CPU", 1, cpu_threads(1)) for number in range(2))


def order(models: Path, **asked: Any) -> SuiteOrder:
    return SuiteOrder(Catalogue(TINY, models), **asked)


_CHILD = """
import pickle, sys
from prism_ae.training.run import train_suite
from prism_ae.processes.progress import PlainLines
train_suite(*pickle.loads(bytes.fromhex(sys.argv[1])), PlainLines(sys.stderr))
"""


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.notes: list[str] = []

    def show(self, text: str, done: int = 0) -> None:
        self.texts.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def _content(models: Path) -> dict[str, dict[str, str]]:
    """Label -> the sums of its files, as the manifest states them, after checking them."""
    found = {}
    for artifact in order(models).artifacts:
        manifest = read_manifest(artifact.folder)
        assert manifest is not None, artifact.label
        for name, digest in manifest.files.items():
            assert file_digest(artifact.folder / name) == digest
        found[artifact.label] = dict(manifest.files)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    shown = Shown()
    found = train_suite(order(models), SLOTS, shown)
    assert found.made == found.total == len(order(models).artifacts) == 17
    assert shown.texts[-1] == "17 of 17 models, 0:00 left"
    assert any(" left; mini-llama-3 " in text and "%, loss " in text for text in shown.texts)
    return models


def test_everything_is_there_and_loads(trained: Path) -> None:
    by_label = {artifact.label: artifact for artifact in order(trained).artifacts}
    target = load_target(by_label["mini-llama-3"].folder, torch.float32, torch.device("cpu"))
    for artifact in by_label.values():
        if artifact.kind == "draft-head":
            load_drafter(artifact.folder, target, torch.float32, torch.device("cpu"))
        else:
            theirs = AutoModelForCausalLM.from_pretrained(artifact.folder)
            assert theirs.config.eos_token_id == 3
    sums = {file_digest(a.folder / "tokenizer.json") for a in by_label.values() if a.kind != "draft-head"}
    assert len(sums) == 1
    manifest = read_manifest(by_label["mini-llama-3"].folder)
    assert manifest is not None
    assert set(manifest.provenance["unseen"]) == {"nll", "entropy", "top1"}


def test_running_again_trains_nothing(trained: Path) -> None:
    again = train_suite(order(trained), SLOTS, Shown())
    assert (again.made, again.total) == (0, 17)
    assert plan_jobs(order(trained)) == ()


@pytest.mark.parametrize("seed", range(2))
def test_parents_killed_at_any_moment_leave_whole_folders_and_the_same_bytes(
    trained: Path, tmp_path: Path, seed: int
) -> None:
    """A worker, then the parent, killed while they train: the next run makes the rest, as if nothing had been."""
    chance = random.Random(seed)
    parent = subprocess.Popen([sys.executable, "-c", _CHILD, pickle.dumps((order(tmp_path), SLOTS)).hex()])
    _wait_for(lambda: _folders(tmp_path) >= 1)
    time.sleep(chance.uniform(0.0, 1.0))
    chance.choice(_workers(parent.pid)).kill()
    _wait_for(lambda: _folders(tmp_path) >= 7 or parent.poll() is not None)
    time.sleep(chance.uniform(0.0, 1.0))
    workers = _workers(parent.pid)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "workers outlive their parent"
    assert _folders(tmp_path) < 17
    train_suite(order(tmp_path), SLOTS, Shown())
    assert _content(tmp_path) == _content(trained)
    assert not [path for path in (tmp_path / "mini").glob(".*") if path.is_dir()]


def _workers(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "prism_ae.training.worker" in child.cmdline()]


@pytest.mark.parametrize("seed", range(2))
def test_workers_killed_at_any_moment_lose_nothing(trained: Path, tmp_path: Path, seed: int) -> None:
    """What a worker was at is trained again by another one, and nobody has to start anything."""
    _link(trained, tmp_path, lambda artifact: artifact.kind != "draft-head")
    chance, shown, killed, over = random.Random(seed), Shown(), list[int](), threading.Event()

    def kill() -> None:
        while len(killed) < 2 and not over.wait(chance.uniform(0.5, 1.5)):
            if workers := _workers(os.getpid()):
                worker = chance.choice(workers)
                worker.kill()
                killed.append(worker.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with contextlib.suppress(PrismError):  # where the same job was under way at both deaths
        train_suite(order(tmp_path), SLOTS, shown)
    over.set()
    killer.join()
    assert killed
    assert all("died (signal SIGKILL)" in note for note in shown.notes)
    train_suite(order(tmp_path), SLOTS, Shown())
    assert _content(tmp_path) == _content(trained)


def _folders(models: Path) -> int:
    return sum(artifact.folder.exists() for artifact in order(models).artifacts)


def _wait_for(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        time.sleep(0.02)


def test_ctrl_c_stops_at_once_and_keeps_what_is_finished(tmp_path: Path) -> None:
    class Stop(Shown):
        def show(self, text: str, done: int = 0) -> None:
            if done >= 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_suite(order(tmp_path), SLOTS[:1], Stop())
    assert 1 <= _folders(tmp_path) < 17
    assert not _workers(os.getpid())


def test_two_runs_do_not_train_the_same_models(tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    descriptor = os.open(tmp_path / "mini" / ".training.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with raises(StoreError, tmp_path / "mini"):
            train_suite(order(tmp_path), SLOTS[:1], Shown())
    finally:
        os.close(descriptor)


class _Mayfly:
    """A worker that dies once it has a job, or before it can have one."""

    def __init__(self, *, starts: bool) -> None:
        self.connection, theirs = multiprocessing.Pipe()

        def live() -> None:
            with theirs:
                if starts:
                    theirs.send(Ready())
                    theirs.recv()

        threading.Thread(target=live, daemon=True).start()

    def kill(self) -> None: ...

    def wait(self, seconds: float) -> str:
        return "exit code 9"

    def output(self) -> bytes:
        return b"famous last words\n"

    def close(self) -> None:
        self.connection.close()


def test_a_worker_that_keeps_dying_is_an_error(trained: Path, tmp_path: Path) -> None:
    _link(trained, tmp_path, lambda artifact: artifact.scale is None or artifact.name == "eagle3")
    said = r"mini-llama-3 hass .*2 .*exit code 9.*\n.*famous last words"
    with pytest.raises(PrismError, match=said):
        train_suite(order(tmp_path), SLOTS[:1], Shown(), launch=lambda asked, slot: _Mayfly(starts=True))
    assert _folders(tmp_path) == 7
    with pytest.raises(DeviceError, match=r"cpu slot 0 .*exit code 9"):
        train_suite(order(tmp_path), SLOTS[:1], Shown(), launch=lambda asked, slot: _Mayfly(starts=False))


def _link(trained: Path, models: Path, keep: Callable[[Artifact], bool]) -> None:
    (models / "mini").mkdir(parents=True)
    for artifact in order(trained).artifacts:
        if keep(artifact):
            (models / "mini" / artifact.folder.name).symlink_to(artifact.folder)


def test_a_damaged_parent_is_one_message(trained: Path, tmp_path: Path) -> None:
    _link(trained, tmp_path, lambda artifact: artifact.scale is None and artifact.kind == "model")
    target = next(a for a in order(tmp_path).artifacts if a.kind == "target")
    target.folder.mkdir()
    (target.folder / "config.json").write_text(json.dumps({}))
    with pytest.raises(PrismError, match=r"config\.json"):
        train_suite(order(tmp_path), SLOTS[:1], Shown())


def test_scales_are_nested_and_a_scale_sees_only_its_own_data(trained: Path) -> None:
    data = Workbench(order(trained)).data("mini-llama-3")
    counts = [one.count for one in data.values()]
    assert list(data) == ["1x", "2x", "4x", "6x", "8x"]
    assert counts == sorted(counts)
    assert counts[-1] == len(data["8x"].features.examples)
    assert [len(one.examples) for one in data.values()] == counts


def test_a_scale_does_not_depend_on_other_data(trained: Path) -> None:
    """Train a scale with everything behind its data replaced by rubbish: the same weights."""
    recipes = order(trained).catalogue.recipes
    data = Workbench(order(trained)).data("mini-llama-3")["2x"]
    target, recipe, training = data.features.target, recipes.drafters["eagle3"], recipes.drafter_training
    capture = (2, 6, 9)
    rubbish = [Example((1, 2, 3, 4), 1)] * 20
    changed = Data(Features(target, [*data.examples, *rubbish], capture), data.count, "2x")
    ours = new_drafter(recipe, target, capture, changed.examples, training.seed)
    train(recipe, training, changed, ours, lambda steps, loss: None)
    theirs = _stored(trained, "eagle3", "2x", target)
    assert torch.equal(ours.draft_ids, theirs.draft_ids)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.detach(), dict(theirs.named_parameters())[name])


def _stored(models: Path, name: str, scale: str, target: Llama) -> Drafter:
    artifact = next(a for a in order(models).artifacts if (a.name, a.scale) == (name, scale))
    return load_drafter(artifact.folder, target, torch.float32, torch.device("cpu"))


def test_a_training_takes_its_passes_and_ends_with_a_falling_rate(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, the examples of each pass, and the rate at every step."""
    recipes = order(trained).catalogue.recipes
    data = Workbench(order(trained)).data("mini-llama-3")["4x"]
    seen: list[tuple[list[int], float]] = []

    def step(self: Any, rows: list[int], rate: float) -> float:
        seen.append((rows, rate))
        return 0.0

    monkeypatch.setattr("prism_ae.training.drafter._Trainer.step", step)
    hass = recipes.drafters["hass"]
    drafter = new_drafter(hass, data.features.target, (), data.examples, 1)
    a_pass = -(-data.count // 4)
    for name, passes, rate, decay in (("hass", 2.0, 4e-3, 0.5), ("prism", 0.7, 2e-3, 1.0)):
        seen.clear()
        train(recipes.drafters[name], recipes.drafter_training, data, drafter, lambda steps, loss: None)
        total = round(passes * a_pass)
        assert len(seen) == training_steps(recipes.drafters[name], recipes.drafter_training, data) == total
        assert [one for _, one in seen] == pytest.approx(
            [rate * min((n + 1) / 2, 1, (total - n) / (decay * total)) for n in range(total)]
        )
        if passes > 1:  # a whole pass has every example, and the next is in another order
            first, second = ([row for rows, _ in part for row in rows] for part in (seen[:a_pass], seen[a_pass:]))
            assert set(first) == set(second) == set(range(data.count))
            assert first != second
        assert max(row for rows, _ in seen for row in rows) < data.count


def test_further_seeds_and_variants_are_trained_on_request(trained: Path, tmp_path: Path) -> None:
    """Only the further ones, from other weights and in another order; what was there stays."""
    _link(trained, tmp_path, lambda artifact: True)
    found = train_suite(order(tmp_path, seeds=2, variants=True), SLOTS, Shown())
    assert (found.made, found.total) == (5 + 3 * 2 + 2, 30)
    artifacts = order(tmp_path, seeds=2, variants=True).artifacts
    target_artifact = next(a for a in artifacts if a.kind == "target")
    target = load_target(target_artifact.folder, torch.float32, torch.device("cpu"))
    by_label = {a.label: load_drafter(a.folder, target, torch.float32, torch.device("cpu")) for a in artifacts
                if a.kind == "draft-head"}  # fmt: skip
    for name in ("hass 8x", "eagle3 2x", "prism 8x", "prism_entry 2x"):
        first, second = (by_label[f"mini-llama-3 {name}{seed}"] for seed in ("", " seed 1"))
        assert not torch.allclose(first.modules_[0].attention.qkv.weight if "eagle3" in name
                                  else first.modules_[0].fusion.weight,
                                  second.modules_[0].attention.qkv.weight if "eagle3" in name
                                  else second.modules_[0].fusion.weight, rtol=0.05)  # fmt: skip
    entry, own = by_label["mini-llama-3 prism_entry 8x"], by_label["mini-llama-3 prism 8x"]
    assert not torch.equal(entry.modules_[1].fusion.weight, own.modules_[1].fusion.weight)
