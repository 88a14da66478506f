"""Provenance says where a number comes from, and nothing secret."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import prism_ae
from prism_ae.store.provenance import provenance, redact


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["run", "figure1", "--gpus", "0,1"], ["run", "figure1", "--gpus", "0,1"]),
        (["--hf-token", "abc", "x"], ["--hf-token", "***", "x"]),
        (["--token=abc"], ["--token=***"]),
        (["--api-key", "abc"], ["--api-key", "***"]),
        (["--password", "--suite"], ["--password", "--suite"]),
        (["https://me:secret@example.org/x"], ["https://***@example.org/x"]),
        (["x=hf_abcdefghijklmnop"], ["x=***"]),
        (["--keyboard", "us"], ["--keyboard", "us"]),
    ],
)
def test_secrets_are_left_out(argv: list[str], shown: list[str]) -> None:
    assert redact(argv) == shown


def test_it_names_versions_machine_and_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True
        ).stdout

    package = tmp_path / "prism_ae"
    package.mkdir()
    assert provenance([], package)["commit"] is None
    git("init", "--quiet")
    (package / "a.py").write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    facts = provenance(["prism-ae"], package)
    head = git("rev-parse", "HEAD").strip()
    assert facts["commit"] == head
    assert facts["versions"]["prism-ae"] == prism_ae.__version__
    assert "torch" in facts["versions"]
    assert facts["host"]
    assert facts["processor"]
    (package / "a.py").write_text("2")
    assert provenance([], package)["commit"] == f"{head}+changes"


def test_an_argument_in_another_encoding_can_be_written_down() -> None:
    argument = os.fsdecode(b"m\xf6dels")
    assert redact([argument]) == ["m\ufffddels"]
    assert redact([os.fsdecode("mödels".encode())]) == ["mödels"]
