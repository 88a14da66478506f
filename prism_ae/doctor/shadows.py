"""Foreign modules that Python finds before those of this environment: in PYTHONPATH, user site, current folder."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder

from prism_ae.doctor.findings import Finding, from_error, ok, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.processes.shadowing import entry_of, foreign_modules, shadowing_error

HOOKS = ("sitecustomize", "usercustomize")
"""Modules that Python runs at every start, wherever it finds them."""

_SHOWN = 5
"""Modules of one folder that a finding names."""


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about modules that are taken from elsewhere."""
    path = [entry for entry in snapshot.path if entry or snapshot.folder is not None]
    foreign = foreign_modules(path)
    hooks = list(_hooks(path))
    yield from judge_foreign(foreign)
    yield from hooks
    if not foreign and not hooks:
        yield ok("modules", "nothing stands in front of the packages of this environment")


def judge_foreign(foreign: Mapping[str, str]) -> Iterator[Finding]:
    """A finding per folder, for a whole environment of others may lie in one.

    Args:
        foreign: as `shadowing.foreign_modules` tells.
    """
    folders: dict[str, dict[str, str]] = {}
    for name, file in foreign.items():
        folders.setdefault(entry_of(file), {})[name] = file
    for folder, modules in folders.items():
        named = dict(list(modules.items())[:_SHOWN])
        error = shadowing_error(" ".join(f"'{name}'" for name in named), named)
        assert error is not None
        more = f", and {len(modules) - len(named)} more of {folder}" if len(modules) > len(named) else ""
        finding = from_error("foreign modules", error)
        yield Finding(finding.name, finding.level, finding.what + more, finding.remedy)


def _hooks(path: list[str]) -> Iterator[Finding]:
    homes = [sys.prefix, sys.base_prefix, *site.getsitepackages(), sysconfig.get_path("stdlib")]
    for name in HOOKS:
        spec = PathFinder.find_spec(name, path)
        file = spec.origin if spec else None
        if file and not any(os.path.realpath(file).startswith(f"{os.path.realpath(home)}/") for home in homes):
            yield warning(
                name,
                f"Python runs {file} at every start, here and in each worker",
                f"take {entry_of(file)} out of Python's path, unless that is meant",
            )
