"""Foreign modules in front of this environment's. What counts as one is `prism_ae.processes.shadowing`'s."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from environments import environment, wrong

from prism_ae.doctor import shadows
from prism_ae.doctor.shadows import judge_foreign
from prism_ae.processes.shadowing import own_modules_first


def write(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("raise RuntimeError('foreign')\n")
    return folder


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("typing_extensions.py", "typing_extensions"),
        ("numpy/__init__.py", "numpy"),
        ("torch/__init__.py", "torch"),
        ("queue.py", "queue"),
    ],
)
@pytest.mark.parametrize("variable", [True, False])
def test_a_foreign_module_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, module: str, variable: bool
) -> None:
    place = str(write(tmp_path / "foreign", file))
    monkeypatch.setenv("PYTHONPATH", place if variable else "")
    finding = wrong(shadows.check(environment(path=(place, *sys.path))))["foreign modules"]
    assert finding.level == "problem"
    assert place in finding.what
    assert f"'{module}'" in finding.what
    assert ("PYTHONPATH" in finding.remedy) == variable


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
def test_what_runs_at_every_start_is_named(tmp_path: Path, name: str) -> None:
    place = str(write(tmp_path / "foreign", f"{name}.py"))
    assert place in wrong(shadows.check(environment(path=(place, *sys.path))))[name].what


@pytest.mark.parametrize("file", ["mine.py", "numpy.txt", "numpy/module.py", "data/torch.py"])
def test_modules_of_the_users_own_are_no_trouble(tmp_path: Path, file: str) -> None:
    place = str(write(tmp_path / "foreign", file))
    assert place not in str(wrong(shadows.check(environment(path=(place, *sys.path)))))


def test_a_whole_environment_of_others_is_one_finding() -> None:
    foreign = {f"module{number}": f"/hpc/lib/module{number}/__init__.py" for number in range(40)}
    foreign |= {"queue": "/home/me/queue.py"}
    findings = list(judge_foreign(foreign))
    assert ["/hpc/lib" in finding.what for finding in findings] == [True, False]
    assert "35 more" in findings[0].what
    assert len(findings[0].what) < 600


def test_a_current_folder_that_is_gone_is_no_trouble_here() -> None:
    assert "foreign modules" not in wrong(shadows.check(environment(path=("", *sys.path[1:]), folder=None)))


def test_doctor_itself_is_not_troubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clashing = str(write(tmp_path / "clashing", "typing_extensions.py"))
    own = str(write(tmp_path / "own", "only_here.py"))
    monkeypatch.setattr(sys, "path", [clashing, own, *sys.path])
    own_modules_first()
    assert sys.path[0] == own
    assert sys.path[-1] == clashing
