"""Files that stand for modules of the environment: they are named, and nothing else is blamed on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import prism_ae
from prism_ae import __main__ as entry
from prism_ae.errors import DeviceError, PrismError
from prism_ae.processes.pool import not_started
from prism_ae.processes.shadowing import explained, foreign_modules, shadowing_error

REPOSITORY = Path(prism_ae.__file__).parents[1]


def write(folder: Path, **modules: str) -> Path:
    """A folder with modules; a name that ends in an underscore is a package."""
    for name, text in modules.items():
        path = folder / name.rstrip("_") / "__init__.py" if name.endswith("_") else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_only_what_both_have_is_foreign(tmp_path: Path) -> None:
    home = write(tmp_path / "home", numpy_="", six="", random="", parts="")
    first = write(tmp_path / "first", numpy_="", only_here="", random="", prism_ae_="", sys="")
    (first / "parts").mkdir()  # a folder without a module is passed over by Python, too
    (first / "six-1.0.dist-info").mkdir()
    second = write(tmp_path / "second", six="", numpy="")
    found = foreign_modules([str(first), str(second), str(home)], [str(home)])
    assert found == {
        "numpy": str(first / "numpy/__init__.py"),
        "random": str(first / "random.py"),
        "six": str(second / "six.py"),
    }
    assert foreign_modules([str(home), str(first)], [str(home)]) == {}
    assert foreign_modules(["/nowhere", str(home / "six.py"), str(home)], [str(home)]) == {}
    write(home, prism_ae_="")  # this program itself, wherever it is found
    assert set(foreign_modules([str(first), str(home)], [str(home)])) == {"numpy", "random"}
    (tmp_path / "link").symlink_to(home)
    assert foreign_modules([str(tmp_path / "link"), str(home)], [str(home)]) == {}


def test_this_environment_is_its_own() -> None:
    code = "from prism_ae.processes.shadowing import foreign_modules; print(foreign_modules())"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "{}\n", done.stderr


FOREIGN = {"numpy": "/u/numpy/__init__.py", "code": "/u/code.py"}


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ('File "/u/numpy/core/x.py", line 1\nValueError', "/u/numpy/__init__.py"),
        ("AttributeError: module 'numpy' has no attribute 'dtype'", "/u/numpy/__init__.py"),
        ("ModuleNotFoundError: No module named 'numpy.core'", "/u/numpy/__init__.py"),
        ('File "/u/code.py", line 3', "/u/code.py"),
        ("ended with exit code 3", None),
        ('File "/u/numpy_more/x.py"', None),
        ("numpy is slow", None),
    ],
)
def test_who_is_blamed(text: str, file: str | None) -> None:
    error = shadowing_error(text, FOREIGN)
    assert (error is None) == (file is None)
    assert file is None or file in str(error)


def test_a_worker_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, numpy_="")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"/nowhere:{tmp_path}")
    error = not_started(
        "cpu slot 0", "exit code 1", "Traceback …\nAttributeError: module 'numpy' has no attribute 'dtype'"
    )
    assert str(tmp_path / "numpy/__init__.py") in error.what
    assert "PYTHONPATH" in error.hint
    assert "Traceback" not in str(error)
    missing = not_started("cpu slot 0", "exit code 1", "ModuleNotFoundError: No module named 'torch'")
    assert isinstance(missing, DeviceError)
    assert "make setup" in missing.hint
    killed = not_started("cpu slot 0", "signal SIGKILL", "")
    assert "make setup" not in killed.hint


def called(arguments: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [variables.pop("PYTHONPATH", ""), str(REPOSITORY)]))
    # Coverage's start in a child process imports modules of its own before the current folder is on the path.
    left_out = ("PYTHONSAFEPATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": paths} | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("typing_extensions", "raise RuntimeError('foreign')"),
        ("typer_", ""),
        ("annotated_doc", "from annotated_doc import nothing"),
        ("pydantic", "def broken(:"),
        ("typer", "import sys; sys.exit(0)"),
        ("textwrap", "raise OSError('not of the standard library')"),
        ("tomllib", ""),
    ],
)
@pytest.mark.parametrize("where", ["PYTHONPATH", "current folder"])
def test_the_command_line_names_the_file(module: str, text: str, where: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "user's", **{module: text})
    ls = ["-m", "prism_ae", "ls", "--suite", "mini"]
    elsewhere = tmp_path if where == "PYTHONPATH" else folder
    done = called(ls, elsewhere, **({"PYTHONPATH": str(folder)} if where == "PYTHONPATH" else {}))
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert f"{folder / module.rstrip('_')}" in done.stderr
    assert where.replace("current", "another") in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_foreign_modules_that_break_nothing_are_no_trouble(tmp_path: Path) -> None:
    folder = write(tmp_path, sympy_="raise RuntimeError", unknown_to_anyone="", antigravity="")
    done = called(["-m", "prism_ae", "ls", "--suite", "mini"], tmp_path, PYTHONPATH=str(folder))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_stays_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(argv: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(entry, "_call", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        entry.run([])
    assert explained(PrismError("none of them")) is None


def test_no_child_takes_the_current_folder_for_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "run", lambda argv: 0)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    with pytest.raises(SystemExit):
        entry.main([])
    write(tmp_path, random="raise RuntimeError")
    subprocess.run([sys.executable, "-c", "import random"], cwd=tmp_path, check=True)
