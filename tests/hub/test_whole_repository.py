"""A suite whose repository is its one folder, at a revision and with sums that the suite names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hubs
from hub_world import TARGET, checkpoint, patch, tables
from raising import raises

from prism_ae.errors import CheckpointError, ConfigError
from prism_ae.hub.download import DownloadPlan, Reports, download
from prism_ae.hub.selection import HubName, published
from prism_ae.suites.load import load_suite, parse_suite
from prism_ae.suites.records import Suite

REPOSITORY, REVISION = "Some/Llama", "0123456789" * 4
FILES = ("config.json", "tokenizer.json", "model.safetensors")


def whole(hubs: Hubs, **changes: Any) -> Suite:
    data = tables(hubs)
    files = checkpoint(TARGET, "")
    hubs.repositories[REPOSITORY] = dict(files)
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES}
    own = {"modelscope": REPOSITORY, "huggingface": REPOSITORY, "whole": TARGET, "revision": REVISION, "sums": sums}
    data["hub"] |= own | changes
    return parse_suite(data, "test")


def get(suite: Suite, models: Path, hub: HubName, said: list[DownloadPlan] | None = None) -> None:
    assert suite.hub is not None
    wanted = published(suite.hub, [TARGET], hub, official=False)
    download(suite, models, wanted, Reports([].append if said is None else said.append))


@pytest.fixture(params=["modelscope", "huggingface"])
def hub(request: pytest.FixtureRequest, hubs: Hubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubName:
    patch(monkeypatch, hubs, tmp_path)
    return request.param  # type: ignore[no-any-return]


def test_its_files_arrive_of_that_revision(hubs: Hubs, hub: HubName, tmp_path: Path) -> None:
    get(whole(hubs), tmp_path / "models", hub)
    assert {path.name for path in (tmp_path / "models" / TARGET).iterdir()} == set(FILES)
    asked = f"/api/models/{REPOSITORY}/revision/{REVISION}"
    assert (hubs.requests[asked] > 0) == (hub == "huggingface")
    hubs.asked.clear()
    get(whole(hubs), tmp_path / "models", hub)
    assert not hubs.asked


def test_other_files_than_the_suite_names_are_refused(hubs: Hubs, hub: HubName, tmp_path: Path) -> None:
    suite = whole(hubs)
    hubs.repositories[REPOSITORY]["model.safetensors"] += b"."
    with raises(CheckpointError, "model.safetensors", "the suite's file says"):
        get(suite, tmp_path / "models", hub)
    assert not (tmp_path / "models" / TARGET).exists()
    small = dict(hubs.repositories[REPOSITORY])
    suite = whole(hubs)
    hubs.repositories[REPOSITORY]["config.json"] = small["config.json"].replace(b"L", b"M")  # no sha256 is listed
    with raises(CheckpointError, "config.json"):
        get(suite, tmp_path / "models", hub)
    assert not (tmp_path / "models" / TARGET).exists()


@pytest.mark.parametrize(
    ("key", "value", "subject"),
    [
        ("whole", "elsewhere", "hub.whole: 'elsewhere'"),
        ("whole", "", "hub.whole: is missing"),
        ("revision", "main", "hub.revision: 'main'"),
        ("sums", {"config.json": "0"}, "hub.sums.config.json: '0' is no sha256"),
    ],
)
def test_what_is_impossible_is_refused(hubs: Hubs, key: str, value: Any, subject: str) -> None:
    with pytest.raises(ConfigError, match=subject):
        whole(hubs, **{key: value})


SMOLLM2 = load_suite("smollm2")
SOURCE = {
    "project": "x", "version": "1", "wheel_size": 1, "wheel_sum": "0" * 64, "file": "a/b", "file_size": 1,
    "file_sum": "0" * 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"project": "--index-url"}, "project: '--index-url'"),
        ({"project": "x @ http://y"}, "project: 'x @ http://y'"),
        ({"version": "1 --pre"}, "version: '1 --pre'"),
        ({"file": "../b"}, r"file: '\.\./b'"),
        ({"file": ""}, "file: must not be empty"),
        ({"file_size": 0}, "file_size: must be at least 1"),
        ({"wheel_sum": "1"}, "wheel_sum: '1' is no sha256"),
    ],
)
def test_a_package_that_could_lead_elsewhere_is_refused(hubs: Hubs, changes: dict[str, Any], subject: str) -> None:
    with pytest.raises(ConfigError, match=f"hub.packages.{TARGET}.source.{subject}"):
        whole(hubs, packages={TARGET: {"source": SOURCE | changes, "folder_size": 1}})
    questions = {"source": SOURCE | changes, "before": "", "order": [1]}
    with pytest.raises(ConfigError, match=f"hub.packaged_questions.qa.source.{subject}"):
        whole(hubs, packaged_questions={"qa": questions})


def test_packages_of_what_the_suite_has_not_are_refused(hubs: Hubs) -> None:
    with raises(ConfigError, "hub.packages: 'elsewhere'"):
        whole(hubs, packages={"elsewhere": {"source": SOURCE, "folder_size": 1}})
    with raises(ConfigError, "hub.packaged_questions: 'arc'"):
        whole(hubs, packaged_questions={"arc": {"source": SOURCE, "before": "", "order": [1]}})
    for order in ([], [-1], [2, 2]):
        with raises(ConfigError, "hub.packaged_questions.qa.order"):
            whole(hubs, packaged_questions={"qa": {"source": SOURCE, "before": "", "order": order}})


def test_the_smollm2_suite_names_a_commit_and_every_file_that_an_engine_reads() -> None:
    assert SMOLLM2.hub is not None
    (wanted,) = published(SMOLLM2.hub, ["SmolLM2-135M-Instruct"], "huggingface", official=False)
    assert (wanted.within, wanted.revision) == ("", SMOLLM2.hub.revision)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(SMOLLM2.hub.sums)
