"""A changed word changes the digest; a changed name does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from prism_ae.errors import CheckpointError
from prism_ae.prompts.fingerprint import prompts_fingerprint
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

PAPER = load_suite("paper")
TARGET = "llama-2-7b-chat"


def fingerprint(folder: Path, suite: Suite = PAPER, count: int = 2, target: str = TARGET) -> str:
    return prompts_fingerprint(suite, target, "qa", count, folder)


def write(folder: Path, *texts: str) -> Path:
    path = folder / "benchmarks/qa/question.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"question_id": n, "turns": [text]}) for n, text in enumerate(texts)))
    return folder


def with_template(**changes: Any) -> Suite:
    template = dataclasses.replace(PAPER.templates["llama-2-chat"], **changes)
    return dataclasses.replace(PAPER, templates=PAPER.templates | {"llama-2-chat": template})


def test_what_a_model_reads_counts(tmp_path: Path) -> None:
    base = fingerprint(write(tmp_path, "one", "two", "three"))
    others = [
        fingerprint(tmp_path, count=3),
        fingerprint(tmp_path, target="llama-3-8b-instruct"),
        fingerprint(tmp_path, dataclasses.replace(PAPER, system_prompt=PAPER.system_prompt.replace(".  ", ". "))),
        fingerprint(tmp_path, with_template(first="{system}{user}")),
        fingerprint(tmp_path, with_template(stop=("</s>", "x"))),
        fingerprint(tmp_path, with_template(trim=True)),
        fingerprint(write(tmp_path, "one", "two.", "three")),
        fingerprint(write(tmp_path, "two", "one", "three")),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_the_tokenizers_rules_count(tmp_path: Path) -> None:
    """They decide ids, and are not in tokenizer.json."""
    base = fingerprint(write(tmp_path, "one", "two"))
    rules = tmp_path / PAPER.targets[TARGET].folder / "tokenizer_config.json"
    rules.parent.mkdir()
    found = [base]
    for said in ({"tokenizer_class": "LlamaTokenizer"}, {"tokenizer_class": "LlamaTokenizer", "legacy": False}):
        rules.write_text(json.dumps(said | {"model_max_length": 8}))
        found.append(fingerprint(tmp_path))
        rules.write_text(json.dumps(said | {"model_max_length": 9}))
        assert fingerprint(tmp_path) == found[-1]
    assert len(set(found)) == 3


def test_what_a_model_does_not_read_does_not_count(tmp_path: Path) -> None:
    base = fingerprint(write(tmp_path, "one", "two", "three"))
    assert fingerprint(write(tmp_path, "one", "two", "other")) == base
    assert fingerprint(tmp_path, with_template(name="renamed")) == base
    benchmark = dataclasses.replace(PAPER.benchmarks["qa"], label="Questions")
    assert fingerprint(tmp_path, dataclasses.replace(PAPER, benchmarks={"qa": benchmark})) == base
    assert fingerprint(tmp_path, dataclasses.replace(PAPER, name="other", version=9)) == base


@pytest.mark.parametrize("target", load_suite("mini").targets)
def test_the_mini_suite_needs_no_file(tmp_path: Path, target: str) -> None:
    assert len(prompts_fingerprint(load_suite("mini"), target, "qa", 3, tmp_path)) == 64


def test_rules_that_are_not_here_are_said_before_anything_is_measured(tmp_path: Path) -> None:
    write(tmp_path, "one", "two")
    folder = tmp_path / PAPER.targets[TARGET].folder
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"normalizer": {"type": "Prepend", "prepend": "▁"}}))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json does not exist"):
        fingerprint(tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    fingerprint(tmp_path)
