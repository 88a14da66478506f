"""Environments for doctor's checks: one in which nothing is wrong, changed where a test says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prism_ae.doctor.findings import Finding
from prism_ae.doctor.snapshot import Snapshot

HEALTHY = Snapshot(
    variables={},
    uid=1000,
    platform="linux",
    python=(3, 11, 7),
    executable="/env/bin/python",
    optimize=0,
    path=("/env/bin", "/usr/lib/python311.zip", "/usr/lib/python3.11", "/env/lib/python3.11/site-packages"),
    folder=Path("/work"),
    models_dir=Path("models"),
    runs_dir=Path("runs"),
    gpus=None,
    limits={},
    ignored=frozenset(),
    blocked=frozenset(),
    encodings={"standard output": "utf-8", "file names": "utf-8", "text files": "UTF-8"},
)


def environment(**changes: Any) -> Snapshot:
    return dataclasses.replace(HEALTHY, **changes)


def wrong(findings: Iterable[Finding]) -> dict[str, Finding]:
    """What is not ok, by its name; a name twice would hide one."""
    found = [finding for finding in findings if finding.level != "ok"]
    by_name = {finding.name: finding for finding in found}
    assert len(by_name) == len(found), found
    return by_name


def levels(findings: Iterable[Finding]) -> set[str]:
    return {finding.level for finding in findings}
