"""A changed word changes the digest; a changed name does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from raising import raises
from tokenizer_files import CONFIG, LLAMA_2, LLAMA_2_RULES, NEW, OLD, SYSTEM

from prism_ae.errors import CheckpointError, ConfigError, MissingError, PrismError
from prism_ae.planning.lookup import LocalLookup
from prism_ae.prompts.conversation import open_conversation
from prism_ae.prompts.fingerprint import prompts_fingerprint
from prism_ae.prompts.questions import Question
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
TARGET = "llama-2-7b-chat"
QUESTIONS = (Question("1", ("one",)), Question("2", ("two",)))


def write(folder: Path, rules: dict[str, Any] = LLAMA_2_RULES, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"config": json.dumps(CONFIG), "tokenizer": OLD, "tokenizer_config": json.dumps(rules)} | files
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    return folder


def fingerprint(folder: Path, questions: Any = QUESTIONS, system: str = SYSTEM, **changes: Any) -> str:
    return prompts_fingerprint(open_conversation(folder, dataclasses.replace(LLAMA_2, **changes), system), questions)


def test_what_a_model_reads_counts(tmp_path: Path) -> None:
    folder = write(tmp_path)
    base = fingerprint(folder)
    others = [
        fingerprint(folder, QUESTIONS[:1]),
        fingerprint(folder, QUESTIONS[::-1]),
        fingerprint(folder, (QUESTIONS[0], Question("2", ("two.",)))),
        fingerprint(folder, (QUESTIONS[0], Question("3", ("two",)))),
        fingerprint(folder, system=SYSTEM.replace(".  ", ". ")),
        fingerprint(folder, first="<s>{system}{user}"),
        fingerprint(folder, stop=("</s>", "<s>")),
        fingerprint(folder, trim=True),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_the_tokenizers_rules_and_the_targets_ends_count(tmp_path: Path) -> None:
    """They decide ids and where answers end, and are not in tokenizer.json."""
    base = fingerprint(write(tmp_path))
    found = {
        base,
        fingerprint(write(tmp_path, LLAMA_2_RULES | {"legacy": True})),
        fingerprint(write(tmp_path, LLAMA_2_RULES | {"clean_up_tokenization_spaces": True})),
        fingerprint(write(tmp_path, generation_config=json.dumps({"eos_token_id": [2, 7]}))),
        fingerprint(write(tmp_path, config=json.dumps(CONFIG | {"eos_token_id": [2, 7, 8]}))),
    }
    assert len(found) == 5
    for unread in ({"eos_token_id": None}, {"eos_token_id": 2}, {"temperature": 0.6}):
        folder = write(
            tmp_path / "other", LLAMA_2_RULES | {"model_max_length": 9}, generation_config=json.dumps(unread)
        )
        assert fingerprint(folder) == base


def test_what_a_model_does_not_read_does_not_count(tmp_path: Path) -> None:
    assert fingerprint(write(tmp_path), name="renamed") == fingerprint(write(tmp_path))


@pytest.mark.parametrize("files", [{"generation_config": "{"}, {"generation_config": '{"eos_token_id": "2"}'}])
def test_ends_that_cannot_be_read_are_refused(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        fingerprint(write(tmp_path, **files))
    for wrong in ([2, None], [[2]], True, -1, 2.0, {"a": 1}):
        with raises(CheckpointError, tmp_path / "config.json", "eos_token_id"):
            fingerprint(write(tmp_path, config=json.dumps(CONFIG | {"eos_token_id": wrong}), generation_config="{}"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with what a plan looks at: the paper's target without weights of use, and questions."""
    folder = write(tmp_path / PAPER.targets[TARGET].folder)
    (folder / "model.safetensors").write_bytes(b"")
    write_questions(tmp_path, "one", "two", "three")
    return tmp_path


def write_questions(models: Path, *texts: str) -> None:
    path = models / "benchmarks/qa/question.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps({"question_id": n, "turns": [text]}) for n, text in enumerate(texts)))


def test_a_plan_asks_for_all_that_asking_the_target_will_need(models: Path) -> None:
    target = models / PAPER.targets[TARGET].folder

    def problem(count: int = 3) -> PrismError:
        with pytest.raises(PrismError) as caught:
            LocalLookup(PAPER, models).prompts(TARGET, "qa", count)
        return caught.value

    assert len(LocalLookup(PAPER, models).prompts(TARGET, "qa", 3)) == 64
    assert isinstance(problem(4), ConfigError)
    (target / "tokenizer_config.json").unlink()
    error = problem()
    assert isinstance(error, CheckpointError)
    assert str(target / "tokenizer_config.json") in error.what
    write(target, tokenizer=NEW.replace("</s>", "</end>"))
    assert "'</s>'" in problem().what
    write(target, tokenizer="{")
    assert isinstance(problem(), CheckpointError)
    (target / "tokenizer.json").unlink()
    (models / "benchmarks/qa/question.jsonl").unlink()
    assert isinstance(problem(), MissingError)


def test_every_question_that_the_target_has_no_tokens_for_is_named(models: Path) -> None:
    """A tokenizer may have more tokens than the target: that is wrong where one of them is used."""
    data = json.loads(OLD)
    token = dict(data["added_tokens"][-1]) | {"id": CONFIG["vocab_size"], "content": "<extra>"}
    data["added_tokens"].append(token)
    write(models / PAPER.targets[TARGET].folder, tokenizer=json.dumps(data))
    assert LocalLookup(PAPER, models).prompts(TARGET, "qa", 3)
    write_questions(models, "fine", "an <extra> one", "fine", "and <extra> again")
    assert LocalLookup(PAPER, models).prompts(TARGET, "qa", 1)
    with pytest.raises(ConfigError) as caught:
        LocalLookup(PAPER, models).prompts(TARGET, "qa", 4)
    lines = caught.value.what.splitlines()
    assert [f"question {number}:" in line for number, line in zip((1, 3), lines, strict=True)] == [True, True]
    assert all("question.jsonl" in line and "<extra>" in line for line in lines)


def test_without_the_target_questions_are_looked_for_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"question\.jsonl"):
        LocalLookup(PAPER, tmp_path).prompts(TARGET, "qa", 1)
    write_questions(tmp_path, "one")
    assert LocalLookup(PAPER, tmp_path).prompts(TARGET, "qa", 1) == ""
