"""A tiny suite whose models have no weights: with the fake engine everything of a sweep but the measuring is real."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shells
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import prism_ae.suites
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.configs import FORMAT
from prism_ae.io.digests import file_digest
from prism_ae.mini import corpus
from prism_ae.store import Store
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite, Template
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer

FOLDERS = {"vanilla": None, "lookup": None, "standard": "{small}-standard"}
"""Of the drafters that are not trained at scales."""


def write_suite(folder: Path) -> Path:
    """``tiny.toml`` in ``folder``: the mini suite, its times measured once, with folders below ``models`` for all its
    targets and drafters."""
    lines: list[str] = []
    table = ""
    for line in (Path(prism_ae.suites.__file__).parent / "mini.toml").read_text().splitlines():
        changed = {"name": 'name = "tiny"', "repeats": "repeats = 1"}.get(line.partition(" = ")[0], line)
        if not line.startswith("recipes = "):
            lines.append(line if table else changed)
        if line.startswith("["):
            table, _, name = line.strip("[]").partition(".")
            if table == "targets":
                lines += [f'{key} = "{name}"' for key in ("folder", "drafter_folder", "small_folder")]
            elif table == "drafters" and (place := FOLDERS.get(name, f"{{drafters}}-{name}-{{scale}}")):
                lines.append(f'folder = "{place}"')
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_models(folder: Path, suite: Suite) -> Path:
    """Checkpoint folders without weights, each with a manifest of its own, for all targets and scaled drafters."""
    for target in suite.targets.values():
        _checkpoint(folder / target.folder, head=False)
        _talking(folder / target.folder, suite.templates[target.template])
        for drafter in suite.drafters.values():
            if drafter.has_checkpoint and drafter.exists_for(target):
                for scale in suite.scales if drafter.scaled else [None]:
                    names = {"drafters": target.name, "small": target.name, "scale": scale and scale.name}
                    _checkpoint(folder / drafter.folder.format(**names), head=drafter.kind == "draft-head")
    return folder


@functools.cache
def _tokenizer(template: Template) -> Tokenizer:
    return train_tokenizer(corpus.conversations(20, 1), template, "Be brief.", 400, single_digits=False)


def _talking(folder: Path, template: Template) -> None:
    """What a plan asks of a target: whether it can be talked to."""
    save_tokenizer(folder, _tokenizer(template), template, 512)


def _checkpoint(folder: Path, head: bool) -> None:
    """A model that nothing but a plan reads: the config of a draft head or of a Llama, and the name of a tensor."""
    folder.mkdir(parents=True)
    config = dataclasses.replace(shells.CONFIG, vocab_size=400, num_hidden_layers=12, max_position_embeddings=512)
    if head:
        drafter = DrafterConfig("eagle", dataclasses.replace(config, num_hidden_layers=1))
        data = {"format": FORMAT, **drafter.fields()}
    else:
        data = config.to_hf()
    (folder / "config.json").write_text(json.dumps(data))
    (folder / "name").write_text(folder.name)
    save_file({"lm_head.weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    manifest = {
        "kind": "drafter",
        "name": folder.name,
        "scale": None,
        "recipe": {},
        "files": {name: file_digest(folder / name) for name in ("config.json", "name")},
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
