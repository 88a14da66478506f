"""With ``--suite``: models, questions and measurements, each by its own reader."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import levels, wrong
from published import CAPTURE, DRAFTERS, TARGET, change_config, make_drafter
from published import write as write_drafter
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models

from prism_ae.doctor.findings import Finding
from prism_ae.doctor.suite import check_suite, for_engines
from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.models.checkpoints import save_target
from prism_ae.models.llama import Llama
from prism_ae.store.store import Store
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Benchmark, Suite

MINI = load_suite("mini")
NAME = "mini-llama-2"
SIZES = dataclasses.replace(TARGET, num_hidden_layers=5)
"""Of these SGLang captures the hidden states that the drafters read."""
QUESTIONS = [{"question_id": number, "turns": [text]} for number, text in enumerate(["ab", "c d", "efg", "h"])]


def make_suite() -> Suite:
    """One target, "target", with a folder per kind of drafter, and one benchmark."""
    target = dataclasses.replace(
        MINI.targets[NAME], folder="target", drafter_folder="x", capture=CAPTURE, eagle3_capture=CAPTURE
    )
    drafters = {
        name: dataclasses.replace(
            MINI.drafters[name], roles=target.roles, folder=name, scaled=False, served=(), absent=""
        )
        for name in DRAFTERS
    }
    return dataclasses.replace(
        MINI,
        targets={NAME: target},
        drafters={"vanilla": MINI.drafters["vanilla"], **drafters},
        benchmarks={"qa": Benchmark("qa", "QA", 1, "qa.jsonl")},
        limits=dataclasses.replace(MINI.limits, questions=4),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    target = Llama(SIZES)
    letters = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz "]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(letters[:3])
    (folder / "target").mkdir()
    save_target(folder / "target", target, {"bos_token_id": 1, "eos_token_id": 2})
    tokenizer.save(str(folder / "target" / "tokenizer.json"))
    for kind in DRAFTERS:
        (folder / kind).mkdir()
        save_drafter(folder / kind, make_drafter(kind, target))
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "qa.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "models")
    return tmp_path / "models"


def found(place: Path, suite: Suite | None = None) -> list[Finding]:
    return list(check_suite(suite or make_suite(), place, place.parent / "runs"))


def only_trouble(place: Path, suite: Suite | None = None) -> Finding:
    [finding] = [finding for finding in found(place, suite) if finding.level != "ok"]
    return finding


def test_a_complete_suite_is_fine_and_nothing_is_written(place: Path) -> None:
    before = sorted(place.rglob("*"))
    findings = found(place)
    assert not wrong(findings)
    assert "5 checkpoints" in str(findings) or "6 checkpoints" in str(findings)
    assert sorted(place.rglob("*")) == before
    assert not (place.parent / "runs").exists()


def config_key(folder: str, key: str, value: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        change_config(place / folder, lambda data: data.update({key: value}))

    return change


def text(file: str, content: str | bytes) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def tied(place: Path) -> None:
    config_key("target", "tie_word_embeddings", True)(place)


def headless(place: Path) -> None:
    file = place / "target" / "model.safetensors"
    state = load_file(file)
    del state["lm_head.weight"]
    save_file(state, file)


def two_lines(*lines: str) -> Callable[[Path], None]:
    return text("benchmarks/qa.jsonl", "\n".join([*map(json.dumps, QUESTIONS), *lines]))


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (tied, "lm_head.weight"),
        (headless, "lm_head.weight"),
        (config_key("target", "hidden_act", "gelu"), "hidden_act"),
        (config_key("target", "attention_bias", True), "config.json"),
        (config_key("target", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}), "yarn"),
        (config_key("target", "rope_parameters", {"rope_type": "linear", "factor": 2.0}), "linear"),
        (config_key("target", "max_position_embeddings", None), "max_position_embeddings"),
        (text("target/config.json", "{"), "config.json"),
        (text("target/config.json", "version https://git-lfs.github.com/spec/v1\n"), "LFS"),
        (text("target/tokenizer.json", "{}"), "tokenizer.json"),
        (text("target/tokenizer.json", b"\xff\xfe"), "tokenizer.json"),
        (text("target/generation_config.json", '{"eos_token_id": "two"}'), "eos_token_id"),
        (text("target/generation_config.json", "not json"), "generation_config.json"),
        (config_key("prism", "format", "prism-ae-drafter-99"), "prism"),
        (text("eagle2/model.safetensors", b"\x00" * 64), "eagle2"),
        (text("hass2/model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "LFS"),
    ],
)
def test_a_model_that_cannot_be_read_is_named_before_a_run(
    place: Path, change: Callable[[Path], None], subject: str
) -> None:
    change(place)
    troubles = [finding for finding in found(place) if finding.level != "ok"]
    assert any(subject in finding.what for finding in troubles), troubles
    assert all(finding.level == "problem" or "engine torch" in finding.what for finding in troubles)
    assert all(finding.remedy for finding in troubles)


def test_a_drafter_of_another_target(place: Path) -> None:
    def smaller(data: dict[str, Any]) -> None:
        data["layer"]["hidden_size"] = 32
        data["layer"]["num_attention_heads"] = 8

    change_config(place / "prism", smaller)
    finding = only_trouble(place)
    assert finding.level == "problem"
    assert "prism" in finding.what
    assert "another target" in finding.remedy


@pytest.mark.parametrize("key", ["norm_before_residual", "norm_before_fc"])
def test_a_foreign_config_key_that_changes_arithmetic_is_named(place: Path, key: str) -> None:
    shutil.rmtree(place / "eagle3")
    write_drafter(place / "eagle3", "torch eagle3", make_drafter("eagle3", Llama(SIZES)))
    assert "problem" not in levels(found(place))
    change_config(place / "eagle3", lambda data: data.update({key: "of another"}))
    [finding] = [finding for finding in found(place) if finding.level == "problem"]
    assert key in finding.what


@pytest.mark.parametrize(
    "line",
    [
        '{"turns": ["x"]}',
        "{",
        '{"question_id": 77, "turns": ["\\ud800"]}',
        '{"question_id": 78, "turns": []}',
        '{"question_id": 0, "turns": ["again"]}',
    ],
)
def test_bad_questions_are_all_named_in_one_finding(place: Path, line: str) -> None:
    two_lines(line, "[]", line)(place)
    finding = only_trouble(place)
    assert finding.level == "problem"
    assert "line 5" in finding.what
    assert "line 6" in finding.what
    assert "line 7" in finding.what


def test_questions_with_a_mark_and_blank_lines_are_fine(place: Path) -> None:
    lines = "\r\n\r\n".join(map(json.dumps, QUESTIONS))
    text("benchmarks/qa.jsonl", b"\xef\xbb\xbf" + lines.encode() + b"\n\n")(place)
    assert levels(found(place)) == {"ok"}


def test_tokens_beyond_the_targets_vocabulary_name_their_questions(place: Path) -> None:
    file = place / "target" / "tokenizer.json"
    data = json.loads(file.read_text())
    data["model"]["vocab"]["Z"] = 4000
    file.write_text(json.dumps(data))
    assert levels(found(place)) == {"ok"}
    text("benchmarks/qa.jsonl", "\n".join(map(json.dumps, [*QUESTIONS[:3], {"question_id": "q-9", "turns": ["Z"]}])))(
        place
    )
    finding = only_trouble(place)
    assert (finding.level, "q-9" in finding.what) == ("problem", True)


def test_what_is_absent_is_a_warning_with_the_way_to_it(place: Path) -> None:
    shutil.rmtree(place / "prism")
    shutil.rmtree(place / "eagle2")
    finding = only_trouble(place)
    assert finding.level == "warning"
    assert "2 checkpoints" in finding.what
    assert finding.remedy == MINI.models_hint
    shutil.rmtree(place)
    assert levels(found(place)) == {"ok", "warning"}


@pytest.mark.parametrize("letter", ["模", "\U0001f680", "\u0007"])
def test_a_label_that_no_font_can_draw(place: Path, letter: str) -> None:
    suite = make_suite()
    assert "labels" not in {finding.name for finding in found(place, suite) if finding.level != "ok"}
    # No shipped experiment is filled by that suite as it is, yet its labels are looked at.
    marked = {name: dataclasses.replace(one, label=f"x{letter}") for name, one in suite.targets.items()}
    finding = next(one for one in found(place, dataclasses.replace(suite, targets=marked)) if one.name == "labels")
    assert finding.level == "warning"
    assert f"U+{ord(letter):04X}" in finding.what
    labelled = {name: dataclasses.replace(one, label=f"x{letter}") for name, one in suite.targets.items()}
    complete = dataclasses.replace(MINI, targets={**MINI.targets, **labelled})
    finding = next(one for one in found(place, complete) if one.name == "labels")
    assert finding.level == "problem"
    assert f"U+{ord(letter):04X}" in finding.what


def test_what_one_engine_alone_refuses_is_a_warning_that_names_it() -> None:
    refused = [Finding("x", "problem", "not with this", "do that")]
    [finding] = for_engines({"torch": [], "sglang": refused})
    assert (finding.level, "sglang" in finding.what) == ("warning", True)
    assert for_engines({"torch": refused, "sglang": refused}) == refused
    assert for_engines({"torch": [], "sglang": []}) == []


def test_measurements_that_are_damaged_or_another_suites(place: Path) -> None:
    suite = make_suite()
    root = place.parent / "runs" / suite.name
    Store(root, suite.name, suite.version).prepare()
    (root / "log.jsonl").write_text('{"record": {}, "sha256": "0"}\nnot a record\n')
    finding = only_trouble(place)
    assert (finding.level, "2 damaged lines" in finding.what) == ("warning", True)
    (root / "suite.json").write_text('{"format": 1, "suite": "other", "version": 1}')
    assert only_trouble(place).level == "problem"


def test_a_broken_library_does_not_hide_what_else_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_ae.engines import pairs

    def broken(folder: Path) -> None:
        raise ImportError("libtorch.so: undefined symbol")

    monkeypatch.setattr(pairs, "check_target_weights", broken)
    finding = only_trouble(place)
    assert "undefined symbol" in finding.what
    assert len(found(place)) > 3
