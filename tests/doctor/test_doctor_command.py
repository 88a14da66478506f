"""``prism-ae doctor`` as a user starts it, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prism_ae
from prism_ae import __main__ as entry
from prism_ae.cli.doctor import lines
from prism_ae.doctor.findings import Finding

ROOT = str(Path(prism_ae.__file__).parents[1])
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.upper().endswith(("_PROXY", "_CA_BUNDLE")) and not name.startswith(("SSL_CERT", "CUDA_", "HF_"))
}


def doctor(
    folder: Path, *arguments: str, start: str = "", paths: tuple[Path, ...] = (), **variables: str
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON report; ``start`` is carried out in the process before doctor."""
    code = f"{start}\nfrom prism_ae.__main__ import main\nmain(['doctor', '--json', *{list(arguments)!r}])\n"
    where = os.pathsep.join([*map(str, paths), ROOT])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=CLEAN | {"PYTHONPATH": where} | variables,
        capture_output=True,
        text=True,
    )
    assert done.stderr == "", done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 1) == (report["problem"] > 0)
    assert done.returncode in (0, 1)
    return done.returncode, report


def named(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["findings"] if one["name"] == name)
    return found


def test_here_nothing_is_a_problem_and_nothing_is_written(tmp_path: Path) -> None:
    code, report = doctor(tmp_path)
    assert (code, report["problem"]) == (0, 0), report
    assert {"Python", "torch", "GPUs", "TMPDIR", "runs folder", "signals"} <= {
        one["name"] for one in report["findings"]
    }
    assert list(tmp_path.iterdir()) == []


def test_foreign_modules_do_not_keep_doctor_from_naming_them(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    for module in ("typing_extensions", "numpy", "pydantic", "psutil"):
        (foreign / module).mkdir(parents=True)
        (foreign / module / "__init__.py").write_text("raise RuntimeError('foreign')\n")
    code, report = doctor(tmp_path, paths=(foreign,))
    assert code == 1
    finding = named(report, "foreign modules")
    assert str(foreign) in finding["what"]
    for module in ("typing_extensions", "numpy", "pydantic", "psutil"):
        assert module in finding["what"]


@pytest.mark.parametrize("module", ["json", "typing", "dataclasses", "contextlib", "sysconfig"])
def test_a_foreign_module_of_the_standard_library_is_a_finding_of_the_report(tmp_path: Path, module: str) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / f"{module}.py").write_text("raise RuntimeError('foreign')\n")
    code, report = doctor(tmp_path, paths=(foreign,))
    assert code == 1
    assert str(foreign / f"{module}.py") in named(report, "foreign modules")["what"]


def test_a_disk_without_locks(tmp_path: Path) -> None:
    start = (
        "import fcntl, os\n"
        "def flock(*arguments): raise OSError(38, os.strerror(38))\n"
        "fcntl.flock = fcntl.lockf = flock\n"
    )
    code, report = doctor(tmp_path, start=start)
    assert code == 1
    assert named(report, "runs folder")["level"] == "problem"


@pytest.mark.parametrize("uid", [54321, 0])
def test_a_user_without_a_name_a_home_and_a_place_to_write(tmp_path: Path, uid: int) -> None:
    start = f"import os; os.getuid = lambda: {uid}"
    code, report = doctor(tmp_path, "--runs-dir", "/proc/runs", start=start, HOME="/proc", XDG_CACHE_HOME="")
    assert code == 1
    assert named(report, "runs folder")["level"] == "problem"
    assert named(report, "TORCHINDUCTOR_CACHE_DIR")["level"] == "warning"


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code, report = doctor(gone, start=f"import os; os.rmdir({str(gone)!r})")
    assert code == 1
    assert named(report, "current folder")["level"] == "problem"


def test_limits_signals_and_settings_of_a_shell(tmp_path: Path) -> None:
    start = (
        "import resource, signal\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    )
    variables = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "MPLBACKEND": "agx",
        "TMPDIR": str(tmp_path / "gone"),
        "SGLANG_SIMULATE_ACC_LEN": "3",
    }
    code, report = doctor(tmp_path, start=start, **variables)
    assert code == 0
    found = {one["name"]: one["level"] for one in report["findings"] if one["level"] != "ok"}
    assert found == dict.fromkeys(("SGLANG_SIMULATE_ACC_LEN", "TMPDIR", "ulimit -n", "signals", "encoding"), "warning")
    assert "agx" in named(report, "MPLBACKEND")["what"]


@pytest.mark.parametrize("arguments", [("--suite", "papper"), ("--gpus", "0,0"), ("--gpus", "x"), ("--what",)])
def test_what_is_typed_wrongly_is_refused_as_everywhere(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert entry.run(["doctor", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert arguments[-1] in captured.err


def test_a_suites_file_that_is_wrong_is_a_problem_like_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prism_ae.doctor import checks

    monkeypatch.setattr(checks, "CHECKS", ())
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("name = 3\n")
    for name in ("mine.toml", "gone.toml"):
        assert entry.run(["doctor", "--suite", name]) == 1
        [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
        assert name in line


def test_one_line_for_what_is_found_and_one_for_its_remedy() -> None:
    finding = Finding("TMPDIR", "warning", "a folder\nin two lines\x1b[2J", "choose another")
    assert lines(finding, None) == [
        "warning  TMPDIR: a folder in two lines\\x1b[2J",
        "         remedy: choose another",
    ]


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_terminals_width_is_kept(width: int) -> None:
    finding = Finding("models folder", "problem", "words " * 40, "other words " * 20)
    found = lines(finding, width)
    assert all(len(line) <= width for line in found)
    assert " ".join(" ".join(found).split()) == " ".join(
        f"PROBLEM models folder: {finding.what} remedy: {finding.remedy}".split()
    )
    assert all(line.startswith(" " * 9) for line in found[1:])
