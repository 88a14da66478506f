"""A tiny suite whose models are empty folders: with the fake engine everything of a sweep but the measuring is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import prism_ae.suites
from prism_ae.fingerprint import file_digest
from prism_ae.store import Store
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

FOLDERS = {"vanilla": "", "standard": "{small}-standard"}
"""Of the drafters that are not trained at scales."""


def write_suite(folder: Path) -> Path:
    """``tiny.toml`` in ``folder``: the mini suite, with folders below ``models`` for all its targets and drafters."""
    lines, table, name = [], "", ""
    for line in (Path(prism_ae.suites.__file__).parent / "mini.toml").read_text().splitlines():
        if line.startswith("["):
            table, _, name = line.strip("[]").partition(".")
        key = line.partition(" = ")[0]
        if not table and key == "name":
            line = 'name = "tiny"'
        elif table == "targets" and key in ("folder", "drafter_folder", "small_folder"):
            line = f'{key} = "{name}"'
        elif table == "drafters" and key == "folder":
            line = f'folder = "{FOLDERS.get(name, "{drafters}-" + name + "-{scale}")}"'
        lines.append(line)
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_models(folder: Path, suite: Suite) -> Path:
    """Empty checkpoint folders, each with a manifest of its own content, for all targets and scaled drafters."""
    for target in suite.targets.values():
        _checkpoint(folder / target.folder)
        for drafter in suite.drafters.values():
            if drafter.kind != "vanilla" and target.role in drafter.roles:
                for scale in suite.scales if drafter.scaled else [None]:
                    _checkpoint(
                        folder
                        / drafter.folder.format(drafters=target.name, small=target.name, scale=scale and scale.name)
                    )
    return folder


def _checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"is": folder.name}))
    manifest = {
        "kind": "drafter",
        "name": folder.name,
        "scale": None,
        "recipe": {},
        "files": {"config.json": file_digest(folder / "config.json")},
        "provenance": {},
    }
    (folder / "checkpoint.json").write_text(json.dumps(manifest))


class Sweep:
    """A workplace with the tiny suite, its models and a trace of what the fake engine measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite_file = write_suite(folder)
        self.suite = load_suite(self.suite_file)
        self.models = write_models(folder / "models", self.suite)
        self.trace = folder / "trace"

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "tiny"

    def store(self) -> Store:
        return Store(self.root, self.suite.name, self.suite.version)

    def measured(self) -> list[str]:
        """Ids in the order in which the fake engine measured them."""
        return self.trace.read_text().split() if self.trace.exists() else []

    def arguments(self, verb: str, *more: str) -> list[str]:
        """A command line about figure 1 of the tiny suite: 28 cells in 7 assignments."""
        places = ["--models-dir", str(self.models), "--runs-dir", str(self.folder / "runs")]
        common = ["figure1", "--suite", str(self.suite_file), *places]
        chosen = ["--engine", "fake", "--benches", "humaneval,qa", "--questions", "3", "--targets", "llama-2,llama-3"]
        drawn = ["--out", str(self.folder / "figures")] if verb in ("run", "render") else []
        return [verb, *common, *chosen, *drawn, *more]

    def start(
        self, arguments: Sequence[str], behaviour: Mapping[str, Any] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command line in a process of its own."""
        fake = {"trace": str(self.trace), **(behaviour or {})}
        return subprocess.Popen(
            [sys.executable, "-m", "prism_ae", *arguments],
            env=os.environ | {"PRISM_AE_FAKE": json.dumps(fake)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(
        self, arguments: Sequence[str], behaviour: Mapping[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end."""
        process = self.start(arguments, behaviour)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
