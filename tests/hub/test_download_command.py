"""``prism-ae download`` as a user meets it: words, exit codes, interruption, two at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hubs, serve
from hub_world import EAGLE, HASS, REPOSITORIES, TARGET, checkpoint, environment, fill, patch, suite_of

import prism_ae.hub.download
import prism_ae.suites.load
from prism_ae import __main__ as entry
from prism_ae.hub.selection import folders_of_target
from prism_ae.suites.load import load_suite


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    hubs = Hubs()
    fill(hubs)
    for folder in folders_of_target(load_suite("paper"), "llama-2-7b-chat"):
        hubs.repositories[REPOSITORIES["modelscope"]] |= checkpoint(folder, f"{folder}/")
    with serve(hubs):
        yield hubs


@pytest.fixture
def suite(hubs: Hubs, tmp_path: Path) -> Path:
    """The paper's suite file with the server's address and sums."""
    hub = suite_of(hubs).hub
    assert hub is not None
    text = (Path(prism_ae.suites.load.__file__).parent / "paper.toml").read_text()
    text = re.sub(r'^questions = """\n.*?"""', f'questions = "{hub.questions}"', text, flags=re.MULTILINE | re.DOTALL)
    for name, total in hub.question_sums.items():
        text = re.sub(rf'^{name} = "[0-9a-f]{{64}}"', f'{name} = "{total}"', text, flags=re.MULTILINE)
    path = tmp_path / "published.toml"
    path.write_text(text)
    return path


def arguments(suite: Path, models: Path, *more: str) -> list[str]:
    return ["download", "--suite", str(suite), "--models-dir", str(models), "--only", "llama-2", *more]


def start(hubs: Hubs, suite: Path, tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "prism_ae", *arguments(suite, tmp_path / "models")]
    return subprocess.Popen(
        command,
        env=os.environ | environment(hubs, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.02)


def test_words_and_exit_codes(
    hubs: Hubs, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, hubs, tmp_path)
    models = tmp_path / "models"
    assert entry.run(arguments(suite, models, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert " 0 folders " in f" {said}"
    assert "mt_bench" in said
    assert not (models / TARGET).exists()
    assert entry.run(arguments(suite, models)) == 0
    assert str(models) in capsys.readouterr().out
    assert (models / EAGLE / "model.safetensors").is_file()
    assert (models / "LD-800k/model.safetensors").is_file()
    assert entry.run(arguments(suite, models, "--only", "llama-3")) == 4
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 1
    assert "Meta-Llama-3-8B-Instruct of Akemiiii/Prism-AE" in captured.err
    assert entry.run(arguments(suite, models, "--from", "hugging")) == 2
    assert entry.run(["download", "--suite", "mini"]) == 2
    (models / HASS / "config.json").unlink()
    hubs.faults[f"{HASS}/config.json"] = ["corrupt"] * 9
    assert entry.run(arguments(suite, models)) == 5


def test_an_interrupted_download_goes_on_later(hubs: Hubs, suite: Path, tmp_path: Path) -> None:
    hubs.slow = threading.Event()
    process = start(hubs, suite, tmp_path)
    ready = tmp_path / "models/.staging/ready"
    wait_for(lambda: any(ready.rglob("config.json")) and len(hubs.asked) > 8)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said
    gathered = {path.relative_to(ready).as_posix() for path in ready.rglob("*") if path.is_file()}
    hubs.slow.set()
    hubs.asked.clear()
    process = start(hubs, suite, tmp_path)
    out, said = process.communicate()
    assert (process.returncode, said.count("Traceback")) == (0, 0), said
    assert str(tmp_path / "models") in out
    assert gathered
    assert not gathered & hubs.fetched()


def test_two_at_once_do_not_get_in_each_others_way(
    hubs: Hubs, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, hubs, tmp_path)
    monkeypatch.setattr(prism_ae.hub.download, "_PATIENCE", 0.05)
    hubs.slow = threading.Event()
    process = start(hubs, suite, tmp_path)
    wait_for(lambda: len(hubs.asked) > 8)
    assert entry.run(arguments(suite, tmp_path / "models")) == 7
    assert str(process.pid) in capsys.readouterr().err
    hubs.slow.set()
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "%|" not in said  # the clients' own bars
    assert "of 20 folders" in said
    assert entry.run(arguments(suite, tmp_path / "models")) == 0
    assert " 20 folders " in " " + capsys.readouterr().out


@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_without_a_network_the_reason_is_one_line(hubs: Hubs, suite: Path, tmp_path: Path, hub: str) -> None:
    nowhere = dict.fromkeys(("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"), "http://127.0.0.1:9")
    said = subprocess.run(
        [sys.executable, "-m", "prism_ae", *arguments(suite, tmp_path / "models", "--from", hub)],
        env=os.environ | environment(hubs, tmp_path) | nowhere,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 4
    assert re.search(r"^error: Akem\S+ on .* cannot be fetched: Connection refused$", said.stderr, re.MULTILINE)
