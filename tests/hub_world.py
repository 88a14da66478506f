"""A small paper suite that is published on a local server, and the environment in which the clients find it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hubs

import prism_ae.suites.load
from prism_ae.hub import calls
from prism_ae.hub.download import DownloadPlan, DownloadProgress, Reports, download
from prism_ae.hub.environment import CERTIFICATES, TOKENS
from prism_ae.hub.selection import HubName, published
from prism_ae.suites.records import Suite

TARGET = "Llama-2-7b-chat-hf"
EAGLE = "Llama-2-7B-drafter/Eagle2-100k"
HASS = "Llama-2-7B-drafter/HASS-1-100k"
FOLDERS = (TARGET, EAGLE, HASS)
REPOSITORIES = {"modelscope": "Akemiiii/Prism-AE", "huggingface": "Akem1i/Prism-AE"}
OFFICIAL = "meta-llama/Llama-2-7b-chat-hf"


def content(name: str, size: int = 40_000) -> bytes:
    return random.Random(name).randbytes(size)


def checkpoint(folder: str, prefix: str, pickled: bool = False) -> dict[str, bytes]:
    """A folder's files as they are published, with what nobody needs beside them."""
    weights = "pytorch_model.bin" if pickled else "model.safetensors"
    files = {
        "config.json": f'{{"of": "{folder}"}}'.encode(),
        "tokenizer.json": content(f"{folder} tokenizer", 900),
        weights: content(folder),
        "modeling.py": b"raise SystemExit('code of a repository was run')",
        "training/optimizer.bin": content("optimizer"),
    }
    return {f"{prefix}{name}": data for name, data in files.items()}


def fill(hubs: Hubs) -> None:
    """The paper's repository on both hubs, an official one, and six question files."""
    files: dict[str, bytes] = {"README.md": b"hello"}
    for folder in FOLDERS:
        files |= checkpoint(folder, f"{folder}/", pickled=folder == HASS)
    for name in REPOSITORIES.values():
        hubs.repositories[name] = dict(files)
    hubs.repositories[OFFICIAL] = checkpoint(TARGET, "") | {"pytorch_model.bin": content("the same again")}
    for name in ("mt_bench", "humaneval", "gsm8k", "alpaca", "sum", "qa"):
        hubs.questions[f"{name}/question.jsonl"] = content(name, 300)


def suite_of(hubs: Hubs) -> Suite:
    data = tables(hubs)
    return prism_ae.suites.load.parse_suite(data, "test")


def tables(hubs: Hubs) -> dict[str, Any]:
    """The paper suite's tables, its questions published by the server."""
    path = Path(prism_ae.suites.load.__file__).parent / "paper.toml"
    data = tomllib.loads(path.read_text())
    sums = {path.partition("/")[0]: hashlib.sha256(text).hexdigest() for path, text in hubs.questions.items()}
    data["hub"] |= {"questions": f"{hubs.address}/questions/{{file}}", "question_sums": sums}
    return data


def environment(hubs: Hubs, home: Path) -> dict[str, str]:
    """What makes the client libraries of a new process talk to the server."""
    return {
        "HF_ENDPOINT": hubs.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MODELSCOPE_ENDPOINT": hubs.address,
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "MODELSCOPE_HOME": str(home / "modelscope-home"),
        "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
    }


def patch(monkeypatch: pytest.MonkeyPatch, hubs: Hubs, home: Path) -> None:
    """The same for this process, whose Hugging Face client has read its environment already."""
    from huggingface_hub import close_session, constants

    close_session()  # it was made for the environment of another test
    of_user = [name for name in os.environ if name.lower().endswith("_proxy")]
    for name in (*of_user, *CERTIFICATES, *(name for names in TOKENS.values() for name in names)):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(hubs, home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hubs.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hubs.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what a broken connection loses at most
    monkeypatch.setattr(calls, "PAUSES", (0.0, 0.0))
    import modelscope_hub.config

    monkeypatch.setattr(modelscope_hub._legacy_api, "REPO_TREE_PAGE_RETRY_MAX_DELAY_SECONDS", 0)
    monkeypatch.setattr(modelscope_hub._download, "DOWNLOAD_RETRY_MAX_DELAY_SECONDS", 0)
    monkeypatch.setattr(modelscope_hub._download, "DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    modelscope_hub.config.set_default_config(modelscope_hub.config.HubConfig())


@dataclasses.dataclass
class World:
    """A server, a suite and a models folder; ``get`` downloads."""

    hubs: Hubs
    models: Path
    hub: HubName = "modelscope"
    said: list[DownloadPlan] = dataclasses.field(default_factory=list)
    states: list[DownloadProgress] = dataclasses.field(default_factory=list)

    def get(
        self, folders: Iterable[str] = FOLDERS, official: bool = False, renew: bool = False, dry_run: bool = False
    ) -> None:
        suite = suite_of(self.hubs)
        assert suite.hub is not None
        wanted = published(suite.hub, folders, self.hub, official=official)
        self.hubs.asked.clear()
        download(
            suite, self.models, wanted, Reports(self.said.append, self.states.append), renew=renew, dry_run=dry_run
        )

    @property
    def repository(self) -> dict[str, bytes]:
        return self.hubs.repositories[REPOSITORIES[self.hub]]

    def here(self) -> dict[str, bytes]:
        """Every file of the models folder that is no note of ours, by path."""
        found = {}
        for path in self.models.rglob("*"):
            name = path.relative_to(self.models).as_posix()
            if path.is_file() and not name.startswith((".", "downloads.json", "benchmarks/")):
                found[name] = path.read_bytes()
        return found

    def expected(self, *folders: str) -> dict[str, bytes]:
        """What these folders must hold: nothing that no engine reads."""
        wanted = ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin")
        return {
            f"{folder}/{name}": self.repository[f"{folder}/{name}"]
            for folder in folders or FOLDERS
            for name in wanted
            if f"{folder}/{name}" in self.repository
        }
