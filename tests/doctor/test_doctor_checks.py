"""How checks are carried out: each on its own, and one that fails is a finding."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from environments import HEALTHY, environment, levels, wrong

import prism_ae.doctor
from prism_ae.doctor import drawing, installation
from prism_ae.doctor.checks import CHECKS, Check, examine
from prism_ae.doctor.findings import Finding, listed, ok, printable, problem, shown, worst
from prism_ae.doctor.snapshot import Snapshot, take_snapshot
from prism_ae.drawing.style import FONTS
from prism_ae.errors import DeviceError, UsageError


def fine(snapshot: Snapshot) -> Iterable[Finding]:
    return [ok("fine", "it is")]


def raising(error: BaseException) -> Check:
    def run(snapshot: Snapshot) -> Iterable[Finding]:
        yield ok("first", "that went well")
        raise error

    return Check("raising", run)


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), ImportError("no module"), SystemExit("a foreign module"), RuntimeError(), MemoryError()],
)
def test_a_check_that_fails_is_a_finding_and_the_others_go_on(error: BaseException) -> None:
    found = examine(HEALTHY, [raising(error), Check("fine", fine)])
    assert [finding.name for finding in found] == ["raising", "fine"]
    assert found[0].level == "problem"
    assert type(error).__name__ in found[0].what
    assert found[0].remedy


def test_a_programs_own_error_is_its_own_finding() -> None:
    [found] = examine(HEALTHY, [raising(DeviceError("the device is gone", "get another one"))])
    assert (found.level, found.what, found.remedy) == ("problem", "the device is gone", "get another one")


def test_what_is_typed_wrongly_is_an_error_as_everywhere() -> None:
    with pytest.raises(UsageError, match="no such thing"):
        examine(HEALTHY, [Check("fine", fine), raising(UsageError("no such thing"))])


def test_a_check_that_never_answers_does_not_hold_up_the_others() -> None:
    forever = threading.Event()

    def hang(snapshot: Snapshot) -> Iterable[Finding]:
        forever.wait()
        return []

    try:
        found = examine(HEALTHY, [Check("hanging", hang), Check("fine", fine)], patience=0.2)
    finally:
        forever.set()
    assert found[0].name == "hanging"
    assert found[0].level == "problem"


def test_every_module_of_checks_is_carried_out() -> None:
    others = {"__init__", "checks", "findings", "probe", "snapshot", "suite"}
    modules = {path.stem for path in Path(prism_ae.doctor.__file__).parent.glob("*.py")}
    assert {check.name for check in CHECKS} == modules - others


def test_a_finding_that_asks_for_something_says_for_what() -> None:
    with pytest.raises(ValueError, match="no remedy"):
        Finding("x", "warning", "something is wrong")
    assert worst([]) == "ok"
    assert worst([ok("a", "b"), problem("c", "d", "e"), ok("f", "g")]) == "problem"


def test_what_is_shown_is_one_clean_line() -> None:
    assert shown("a\x1b[31m\nb") == "a\\x1b[31m b"
    assert len(shown("x" * 10_000)) < 300
    assert shown("https://me:pass-word@host/") == "https://***@host/"
    assert printable("é ü 模型") == "é ü 模型"
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_a_snapshot_of_a_process(tmp_path: Path) -> None:
    code = (
        "import os, resource, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))\n"
        f"os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from prism_ae.doctor.snapshot import take_snapshot\n"
        "found = take_snapshot(Path('m'), Path('r'), None)\n"
        "print(sorted(found.ignored), sorted(found.blocked), found.limits['-n'], found.folder)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['SIGINT'] ['SIGHUP'] 99 None\n"


def test_a_snapshot_is_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = take_snapshot(Path("m"), Path("r"), "0")
    assert (found.folder, found.gpus, found.python) == (tmp_path, "0", sys.version_info[:3])


def test_packages_against_what_is_required() -> None:
    versions = {"numpy": "1.26.4", "torch": "2.9.1+cu128", "httpx": "0.28.0rc1"}
    needs = ["numpy>=1.26", "torch>=2.10", "httpx>=0.27", "rich>=13.7", 'sglang==0.5; extra == "gpu"']
    found = wrong(installation.judge_packages(needs, versions.get))
    assert set(found) == {"torch", "rich"}
    assert "2.9.1" in found["torch"].what
    assert not wrong(installation.judge_packages(needs[:1], versions.get))
    assert levels(installation.judge_packages(None, versions.get)) == {"warning"}


def test_python_itself() -> None:
    assert not wrong(installation.judge_python(environment()))
    assert wrong(installation.judge_python(environment(python=(3, 10, 4))))["Python"].level == "problem"
    assert "PYTHONOPTIMIZE" in wrong(installation.judge_python(environment(optimize=2)))
    assert "darwin" in wrong(installation.judge_python(environment(platform="darwin")))["system"].what


def test_drawings_fonts_and_the_users_settings(tmp_path: Path) -> None:
    assert drawing.judge_fonts([], Path("/fonts")).level == "ok"
    assert drawing.judge_fonts([next(iter(FONTS.values()))[0]], Path("/fonts")).level == "problem"
    assert drawing.judge_fonts([], None).level == "problem"
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    given = {"MPLBACKEND": "agx", "MATPLOTLIBRC": "/gone", "MPLCONFIGDIR": "/proc"}
    findings = list(drawing.judge_settings(given, tmp_path))
    assert levels(findings) == {"ok"}
    assert {finding.name for finding in findings} == {*given, "matplotlibrc"}
    assert list(drawing.judge_settings({}, None)) == []
    assert levels(drawing.check(environment())) == {"ok"}
