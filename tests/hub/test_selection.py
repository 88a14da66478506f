"""Words to folders, folders to files, and what the suite file may say about its hub."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import prism_ae.suites.load
from prism_ae.cli.download import _folders
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.load import experiment_names
from prism_ae.hub.files import name_problem
from prism_ae.hub.selection import folders_of_target, needed, published
from prism_ae.models.locate import Absent, DrafterKey, locate_drafter, locate_target
from prism_ae.suites.load import load_suite, parse_suite

PAPER = load_suite("paper")


def test_folders_are_those_where_models_are_looked_for(tmp_path: Path) -> None:
    """`locate_drafter` says which folder does not exist; where nothing is published it names none."""
    checked = 0
    for target in PAPER.targets:
        located = locate_target(PAPER, target, tmp_path)
        assert located == Absent(f"{tmp_path / PAPER.targets[target].folder} does not exist", PAPER.models_hint)
        for drafter in PAPER.drafters.values():
            for scale in [scale.name for scale in PAPER.scales] if drafter.scaled else [None]:
                for engine in ("torch", "sglang"):
                    folder = PAPER.drafter_folder(target, drafter.name, scale, engine)
                    if not drafter.has_checkpoint:
                        assert folder is None
                        continue
                    located = locate_drafter(PAPER, DrafterKey(target, drafter.name, scale, engine), tmp_path)
                    assert isinstance(located, Absent)
                    assert (located.reason == f"{tmp_path / (folder or '')} does not exist") == bool(folder), located
                    checked += 1
    assert checked > 100


def test_figure7_needs_what_was_published_for_sglang() -> None:
    folders = _folders(PAPER, ["figure7"])
    assert "EAGLE2-800K-SGLANG/llama2-7b" in folders
    assert "Llama-2-7b-chat-hf" in folders
    assert not [folder for folder in folders if "100k" in folder]


def test_figure1_needs_no_sglang_folder() -> None:
    assert not [folder for folder in _folders(PAPER, ["figure1"]) if "SGLANG" in folder]


@pytest.mark.parametrize("word", ["llama-2-7b-chat", "llama-2", "LLaMA-2-7B", "llama-2-7b"])
def test_a_target_is_called_by_name_role_or_label(word: str) -> None:
    folders = _folders(PAPER, [word])
    assert folders == list(folders_of_target(PAPER, "llama-2-7b-chat"))
    assert {"Llama-2-7b-chat-hf", "llama-160m", "LD-800k", "Llama-2-7B-drafter/PRISM-400k"} <= set(folders)
    assert not [folder for folder in folders if "lama-3" in folder]


def test_words_add_up_and_none_is_everything() -> None:
    both = set(_folders(PAPER, ["llama-2"])) | set(_folders(PAPER, ["llama-3"]))
    assert set(_folders(PAPER, [])) == both
    assert set(_folders(PAPER, ["llama-2", "llama-3", "llama-2"])) == both
    assert len(_folders(PAPER, [])) == len(both)
    for name in experiment_names():
        assert set(_folders(PAPER, [name])) <= both


def test_an_unknown_word_is_refused_with_a_proposal() -> None:
    with pytest.raises(UsageError, match=r"figure77.*figure7"):
        _folders(PAPER, ["figure77"])


def test_official_places_are_whole_repositories() -> None:
    assert PAPER.hub is not None
    [target, drafter] = published(PAPER.hub, ["Llama-2-7b-chat-hf", "LD-800k"], "modelscope", official=True)
    assert (target.hub, target.repository, target.within) == ("huggingface", "meta-llama/Llama-2-7b-chat-hf", "")
    assert (drafter.hub, drafter.repository, drafter.within) == ("modelscope", "Akemiiii/Prism-AE", "LD-800k")


@pytest.mark.parametrize(
    ("held", "taken"),
    [
        (
            "config.json model.safetensors pytorch_model.bin README.md run.py",
            "config.json model.safetensors",
        ),
        (
            "config.json pytorch_model-1-of-2.bin pytorch_model-2-of-2.bin pytorch_model.bin.index.json",
            "config.json pytorch_model-1-of-2.bin pytorch_model-2-of-2.bin pytorch_model.bin.index.json",
        ),
        (
            "model-1-of-1.safetensors model.safetensors.index.json tokenizer.model optimizer.bin old/config.json",
            "model-1-of-1.safetensors model.safetensors.index.json tokenizer.model",
        ),
    ],
)
def test_of_a_folder_only_what_an_engine_reads_is_taken(held: str, taken: str) -> None:
    assert set(needed(held.split(), "")) == set(taken.split())
    beside = [f"other/{name}" for name in held.split()] + [f"a/bc/{name}" for name in held.split()]
    inside = [f"a/b/{name}" for name in held.split()]
    assert set(needed([*beside, *inside], "a/b")) == {f"a/b/{name}" for name in taken.split()}


@pytest.mark.parametrize("name", ["a", "a/b.json", "a..b/c", ".gitattributes", "ä/ö"])
def test_plain_names_are_fine(name: str) -> None:
    assert name_problem(name) == ""


def tables() -> dict[str, Any]:
    return tomllib.loads((Path(prism_ae.suites.load.__file__).parent / "paper.toml").read_text())


@pytest.mark.parametrize(
    ("key", "value", "subject"),
    [
        ("modelscope", "Prism-AE", "hub.modelscope: 'Prism-AE'"),
        ("huggingface", "../x", "hub.huggingface: '../x'"),
        ("official", {"Llama-2": "a/b"}, "hub.official: 'Llama-2'"),
        ("official", {"llama-160m": "a"}, "hub.official.llama-160m: 'a'"),
        ("questions", "http://x/", "hub.questions: .*{file}"),
        ("question_sums", {}, "hub.question_sums.alpaca: "),
        ("question_sums", tables()["hub"]["question_sums"] | {"arc": "0" * 64}, "hub.question_sums.arc: "),
        ("question_sums", tables()["hub"]["question_sums"] | {"qa": "0" * 63}, "hub.question_sums.qa: '0+'.*sha256"),
    ],
)
def test_a_suite_that_says_something_impossible_about_its_hub_is_refused(key: str, value: Any, subject: str) -> None:
    data = tables()
    data["hub"][key] = value
    with pytest.raises(ConfigError, match=subject):
        parse_suite(data, "test")
