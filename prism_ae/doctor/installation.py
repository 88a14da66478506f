"""Python, the packages that this program needs, and SGLang."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from prism_ae.doctor.findings import Finding, from_error, ok, problem, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.errors import MissingError

PYTHON = (3, 11)
"""The oldest that this program runs with (pyproject.toml)."""

_REPAIR = "run 'make setup' (with a GPU: 'make setup GPU=1'), or install prism-ae again"


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about Python, packages and SGLang."""
    yield from judge_python(snapshot)
    yield from judge_packages(_requirements(), _version)
    yield _sglang()


def judge_python(snapshot: Snapshot) -> Iterator[Finding]:
    """Pure."""
    version = ".".join(map(str, snapshot.python))
    if snapshot.python[:2] < PYTHON:
        needed = ".".join(map(str, PYTHON))
        yield problem("Python", f"Python {version} is older than {needed}", f"make setup PYTHON=python{needed}")
    else:
        yield ok("Python", f"{version}, {snapshot.executable or 'it does not know its own place'}")
    if not snapshot.platform.startswith("linux"):
        yield warning(
            "system", f"this is {snapshot.platform}; the program is made for and tested on Linux", "use Linux"
        )
    if snapshot.optimize:
        yield warning(
            "PYTHONOPTIMIZE",
            f"Python leaves out assertions (level {snapshot.optimize}), by which libraries notice wrong results",
            "unset PYTHONOPTIMIZE, and leave out -O",
        )


def judge_packages(requirements: Sequence[str] | None, version: Callable[[str], str | None]) -> Iterator[Finding]:
    """Whether every required package is there in a version that fits.

    Args:
        requirements: as in the installed package's metadata, those of extras included; None where it is not installed.
        version: a package's installed version, None where it is absent.
    """
    if requirements is None:
        yield warning("packages", "prism-ae runs without being installed, so what it needs is not known", _REPAIR)
        return
    from packaging.requirements import Requirement

    count = wrong = 0
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        found = version(requirement.name)
        if found is not None and requirement.specifier.contains(found, prereleases=True):
            continue
        wrong += 1
        state = "is not installed" if found is None else f"{found} is installed"
        yield problem(requirement.name, f"{requirement.name} {state}; prism-ae needs {requirement}", _REPAIR)
    if not wrong:
        yield ok("packages", f"the {count} packages that prism-ae needs are there, in versions that fit")


def _requirements() -> list[str] | None:
    try:
        return metadata.requires("prism-ae") or []
    except metadata.PackageNotFoundError:
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sglang() -> Finding:
    from prism_ae.engines.registry import identify
    from prism_ae.sglang_prism.version import SGLANG_VERSION

    try:
        identify("sglang")
    except MissingError as error:
        found = from_error("SGLang", error, "warning")
        return warning(found.name, f"{found.what}; it is needed for what measures time, and for 'serve'", found.remedy)
    return ok("SGLang", f"{SGLANG_VERSION}, and it finds this program's plugin")
