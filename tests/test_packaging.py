"""The package as a user installs it: wheel and sdist work outside the repository, versions are pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of this checkout, and with the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("built")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=repository)
    assert done.returncode == 0, done.stderr
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    [source] = (folder / "unpacked").iterdir()
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    assert done.returncode == 0, done.stderr
    return folder


def data_files(repository: Path) -> Iterator[str]:
    """Where every TOML file of the checkout belongs in a wheel, and the settings that matplotlib is imported with."""
    yield "prism_ae/drawing/settings/matplotlibrc"
    for path in (repository / "prism_ae").rglob("*.toml"):
        yield path.relative_to(repository).as_posix()
    for folder in ("claims", "figures", "tables"):
        for path in (repository / folder).glob("*.toml"):
            yield f"prism_ae/experiments/{folder}/{path.name}"


def test_the_wheel_carries_code_and_data_and_nothing_else(repository: Path, built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = set(data_files(repository))
    assert data <= names
    code = {path.relative_to(repository).as_posix() for path in (repository / "prism_ae").rglob("*.py")}
    assert {name for name in names if not re.match(r"prism_ae-[\d.]+\.dist-info/", name)} == data | code
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_carries_what_make_needs(built: Path) -> None:
    [source] = (built / "unpacked").iterdir()
    for name in (
        "Makefile",
        "requirements.lock",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "docs/glossary.md",
        ".ci/run",
        "tests/conftest.py",
    ):
        assert (source / name).is_file(), name
    assert not [path for path in source.rglob("*") if path.suffix in (".pdf", ".safetensors", ".pyc")]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel in it; what it depends on is borrowed from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder).returncode == 0
    [packages] = folder.glob("lib/python*/site-packages")
    borrowed = Path(pytest.__file__).parents[1]
    # Only the folder's packages, not its .pth files: an editable install of this project must not be found.
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")
    [wheel] = built.glob("*.whl")
    done = run(
        *(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install"),
        *("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_wheel_runs_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import prism_ae; print(prism_ae.__file__)", cwd=tmp_path, env=clean())
    assert str(installed.parent) in where.stdout, where
    helped = run(installed / "prism-ae", "--help", cwd=tmp_path, env=clean())
    assert helped.returncode == 0, helped.stderr
    assert "plan" in helped.stdout
    planned = run(installed / "prism-ae", "plan", "figure4", "--suite", "mini", cwd=tmp_path, env=clean())
    assert planned.returncode == 0, planned.stderr
    assert "480" in planned.stdout
    assert "prism-ae train mini" in planned.stdout


def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "requirements.lock").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    found = dict(line.split("==") for line in listed)
    assert len(found) == len(listed)
    return found


def test_the_lock_names_versions_and_no_places(repository: Path) -> None:
    for name, version in pins(repository).items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert re.fullmatch(r"\d+(\.\d+)*", version), (name, version)


def test_the_lock_satisfies_the_project(repository: Path) -> None:
    pinned = pins(repository)
    project = PROJECT["project"]
    for text in [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *PROJECT["build-system"]["requires"],
    ]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_the_lock_is_closed(repository: Path) -> None:
    """Everything that a pinned package needs on this machine is pinned too, and fits."""
    from importlib import metadata

    pinned = pins(repository)
    for name in pinned:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            pytest.fail(f"{name} is pinned and not installed")
        for need in map(Requirement, needs):
            # A CUDA build of torch brings its libraries with it, each pinned exactly by torch itself.
            if canonicalize_name(need.name).startswith(("nvidia-", "cuda-", "triton")):
                continue
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                version = pinned.get(canonicalize_name(need.name))
                assert version is not None, f"{name} needs {need}"
                assert need.specifier.contains(version), f"{name} needs {need}, pinned is {version}"


def imported(folder: Path) -> set[str]:
    """Top-level modules that any file below a folder imports."""
    import ast

    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"prism_ae"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(repository: Path) -> None:
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["gpu"]]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    declared.add("sgl-kernel")  # a module of SGLang's own requirement sglang-kernel, or ours in its stead
    declared.add("xgrammar")  # SGLang's own requirement, imported beside it alone
    modules = imported(repository / "prism_ae") - {"pynvml"} | {"nvidia-ml-py"}  # the package that this module is of
    assert {canonicalize_name(name) for name in modules} == declared


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_explains_itself(repository: Path) -> None:
    done = run("make", cwd=repository)
    assert done.returncode == 0, done.stderr
    for target in ("setup", "mini", "test", "coverage", "all-figures", "clean"):
        assert re.search(rf"^  {target} +\S", done.stdout, re.MULTILINE), target
    for target in re.findall(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)[0].split():
        assert f"  {target} " in done.stdout


def test_the_version_is_said_once_and_cited(repository: Path) -> None:
    from prism_ae import __version__

    assert f"\nversion: {__version__}\n" in (repository / "CITATION.cff").read_text()


def test_continuous_integration_may_start_it(repository: Path) -> None:
    assert os.access(repository / ".ci/run", os.X_OK)
    assert run("bash", "-n", ".ci/run", cwd=repository).returncode == 0
