"""``prism-ae train``: what it hands to the trainer, and what it refuses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prism_ae import __main__ as entry
from prism_ae.devices.slots import Slot
from prism_ae.processes.progress import display_on
from prism_ae.recipes.catalogue import Catalogue, SuiteOrder
from prism_ae.suites.load import load_suite
from prism_ae.training import single
from prism_ae.training import suite as stages
from prism_ae.training.run import Trained, job_state, suite_state
from prism_ae.training.single import DrafterOrder

ONE = ["train", "prism", "--target", "t", "--data", "d.jsonl", "--out", "o", "--template", "llama-3"]


def test_the_suite_is_trained_with_the_workers_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def train_suite(order: SuiteOrder, slots: Sequence[Slot], display: Any) -> Trained:
        asked.append((order, [slot.threads for slot in slots]))
        display.note("a worker died")
        display.show(suite_state(3, 70, 61.0, [("mini-llama-2", 0.5, 1.234)]))
        return Trained(67, 70)

    monkeypatch.setattr(stages, "train_suite", train_suite)
    assert entry.run(["train", "mini", "--workers", "3", "--models-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert entry.run(["train", "mini", "--models-dir", "m", "--seeds", "5", "--variants", "--workers", "1"]) == 0
    suite = load_suite("mini")
    assert asked == [
        (SuiteOrder(Catalogue(suite, tmp_path)), [1, 1, 1]),
        (SuiteOrder(Catalogue(suite, Path("m")), seeds=5, variants=True), [1]),
    ]
    assert out == f"trained 67 models; all 70 of the mini suite are in {tmp_path / 'mini'}\n"
    assert err == "a worker died\n3 of 70 models, 1:01 left; mini-llama-2 50%, loss 1.23\n"


def test_one_drafter_is_trained_with_a_template_that_was_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def train_drafter(order: Any, reports: Any) -> Path:
        asked.append(order)
        reports.data(["9 of 10 conversations", "  1 x a reason"])
        reports.prepared(0.5)
        reports.step(0.25, 2.0)
        return order.out

    monkeypatch.setattr(single, "train_drafter", train_drafter)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
    suite = load_suite("paper")
    assert entry.run([*ONE, "--system", "Be kind."]) == 0
    assert entry.run(ONE) == 0
    out, err = capsys.readouterr()
    said = "reading d.jsonl\n9 of 10 conversations\n  1 x a reason\n"  # the rest comes within ten seconds
    assert (out, err) == ("o\no\n", said * 2)
    for order, system in zip(asked, ("Be kind.", suite.system_prompt), strict=True):
        template = suite.templates["llama-3"]
        assert order == DrafterOrder("prism", Path("t"), Path("d.jsonl"), Path("o"), template, system, "cpu")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "prism"], 2, "needs --target, --data, --out, --template"),
        (["train", "prism", "--target", "t", "--data", "d"], 2, "needs --out, --template"),
        (["train", "mini", "--data", "d"], 2, "--data is not for suite mini"),
        (["train", "mini", "--workers", "0"], 2, "--workers must be from 1 to"),
        (["train", "mini", "--seeds", "0"], 2, "--seeds must be between 1 and 100, got 0"),
        ([*ONE, "--seeds", "2"], 2, "--seeds belongs to training a suite"),
        ([*ONE, "--drafters", "hass"], 2, "--drafters belongs to training a suite"),
        (["train", "mini", "--drafters", "hss"], 2, "there is no 'hss'; did you mean 'hass'"),
        ([*ONE, "--variants"], 2, "--variants belongs to training a suite"),
        ([*ONE[:-1], "lama-3"], 2, "did you mean 'llama-3'"),
        ([*ONE, "--workers", "2"], 2, "one drafter is trained on one device"),
        ([*ONE, "--gpus", "97"], 6, "there is no GPU 97"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert entry.run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_what_is_not_known_yet_is_not_said() -> None:
    assert suite_state(0, 70, None, []) == "0 of 70 models"
    assert job_state("prism", 0.0, None) == "prism 0%"


def test_a_terminal_gets_one_line_that_changes() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with display_on(stream) as display:
        display.show("1 of 2 [models]")
    assert "1 of 2 [models]" in stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "prsm"], "'prsm'; did you mean 'prism'?\n  known: mini, "),
        (["train", "vanilla"], "'vanilla'"),
        (["train", "mini", "--suite", "paper"], "--suite belongs to training one drafter, not to suite mini"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setattr(stages, "train_suite", lambda *arguments: pytest.fail("it trains"))
    assert entry.run(arguments) == 2
    assert said in capsys.readouterr().err
