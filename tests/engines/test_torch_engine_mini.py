"""The torch engine on the trained mini suite, where it has been trained: text for text against transformers.

Every drafter must write what transformers' greedy `generate` writes with the same checkpoint; where the texts first
differ, the two tokens must be tied. At T = 1 every drafter must write what the target writes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prism_ae.cells import Cell, Fingerprints, Point, TreeShape
from prism_ae.decoding.generate import GenerationJob, GenerationResult
from prism_ae.engines import torch_engine
from prism_ae.engines.protocol import Assignment
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.locate import DrafterKey, Located, locate_drafter, locate_target
from prism_ae.suites.load import load_suite

SUITE = load_suite("mini")
MODELS = Path(__file__).parents[2] / "models"
TIE = 1e-3
"""Gap of two logits below which fp32 may order them either way; the targets' logits span tens."""

ALL = SUITE.limits.questions


def _located(target: str, drafter: str, scale: str) -> Path | None:
    found = locate_drafter(SUITE, DrafterKey(target, drafter, scale), MODELS)
    return found.path if isinstance(found, Located) else None


def _cells(target: str, drafter: str, tree: TreeShape | None, questions: int, temperature: float) -> tuple[Cell, ...]:
    limits = SUITE.limits
    return tuple(
        Cell(
            Point(
                suite="mini",
                target=target,
                drafter=drafter,
                scale=None,
                benchmark=benchmark,
                temperature=temperature,
                tree=tree,
                engine="torch",
                batch=None,
                questions=questions,
                max_new_tokens=limits.max_new_tokens,
                max_length=limits.max_length,
                seed=limits.seed,
                dtype="float32",
            ),
            Fingerprints("t", "d", "p", "torch-1", "v"),
        )
        for benchmark in SUITE.benchmarks
    )


class Recorded:
    """The engine with a record of every answer, by benchmark and question."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        located = locate_target(SUITE, target, MODELS)
        if not isinstance(located, Located):
            pytest.skip("the mini suite is not trained here")
        self.name, self.path = target, located.path
        self.engine = TorchEngine(SUITE, MODELS, "cpu", 1)
        self._answers: dict[str, GenerationResult] = {}
        self.jobs: dict[str, GenerationJob] = {}
        generate = torch_engine.generate

        def recording(batch: Any, jobs: list[GenerationJob], *rest: Any) -> Iterator[GenerationResult]:
            for answered in generate(batch, jobs, *rest):
                name = answered.sample.question_id
                self.jobs[name], self._answers[name] = jobs[answered.index], answered
                yield answered

        monkeypatch.setattr(torch_engine, "generate", recording)

    def answers(
        self, drafter: str, path: Path | None, tree: TreeShape | None, questions: int, temperature: float
    ) -> dict[str, GenerationResult]:
        """Every question's answers; the engine expects nothing, so that every tree is verified whole."""
        self._answers.clear()
        self.engine._written.clear()
        cells = _cells(self.name, drafter, tree, questions, temperature)
        assert len(list(self.engine.measure(Assignment(cells, self.path, path), lambda: False))) == len(cells)
        return dict(self._answers)


def _greedy(recorded: Recorded, job: GenerationJob, answers: tuple[tuple[int, ...], ...], model: Any) -> str:
    """How the answers differ from transformers' greedy text, beyond ties; "" if they do not."""
    assert recorded.engine._target
    for turn, answer in enumerate(answers):
        prompt = torch.tensor([list(job.prompt(answers[:turn]))])
        expected = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=job.max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(recorded.engine._target.end_ids),
            pad_token_id=0,
        )[0, prompt.shape[1] :].tolist()
        if list(answer) == expected:
            continue
        at = next(n for n in range(len(answer)) if answer[n : n + 1] != tuple(expected[n : n + 1]))
        ids = torch.cat([prompt, torch.tensor([answer[:at]], dtype=torch.long)], dim=1)
        logits = model(ids).logits[0, -1]
        gap = float(logits.max() - logits[answer[at]])
        if gap > TIE:
            return f"{job.question_id}, turn {turn}, place {at}: gap {gap}"
    return ""


QUESTIONS = pytest.mark.parametrize("questions", [1, pytest.param(ALL, marks=pytest.mark.heavy)])
TARGETS = pytest.mark.parametrize("target", SUITE.targets)


@QUESTIONS
@TARGETS
def test_greedy_text_equals_transformers(target: str, questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    recorded = Recorded(monkeypatch, target)
    model = LlamaForCausalLM.from_pretrained(recorded.path, dtype=torch.float32).eval()
    theirs: dict[tuple[tuple[int, ...], ...], str] = {}
    seen = 0
    for drafter, scale in _drafters(target, questions):
        path = _located(target, drafter, scale)
        if path is None:
            continue
        for tree in (SUITE.trees["main"], TreeShape(6, 1, 7)):
            for name, answered in recorded.answers(drafter, path, tree, questions, 0.0).items():
                if answered.answers not in theirs:
                    theirs[answered.answers] = _greedy(recorded, recorded.jobs[name], answered.answers, model)
                assert theirs[answered.answers] == ""
                seen += 1
    assert seen >= questions * len(SUITE.benchmarks)


def _drafters(target: str, questions: int) -> list[tuple[str, str]]:
    """All draft heads at one scale; a few with the quick test."""
    record = SUITE.targets[target]
    heads = [d.name for d in SUITE.drafters.values() if d.kind == "draft-head" and d.exists_for(record)]
    return [(drafter, "8x" if questions == ALL else "1x") for drafter in (heads if questions == ALL else heads[-4:])]


@QUESTIONS
@TARGETS
def test_sampled_text_is_the_same_for_every_drafter(
    target: str, questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(monkeypatch, target)
    alone = recorded.answers("vanilla", None, None, questions, 1.0)
    compared = different = 0
    for drafter, scale in _drafters(target, questions):
        path = _located(target, drafter, scale)
        if path is None:
            continue
        for name, answered in recorded.answers(drafter, path, SUITE.trees["main"], questions, 1.0).items():
            compared += 1
            different += answered.answers != alone[name].answers
    assert compared >= len(alone)
    # A number within rounding of a boundary between two tokens may fall on either side: about one token in a million.
    assert different <= compared // 200


def test_the_accept_lists_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch, "mini-llama-3")
    path = _located("mini-llama-3", "prism", "1x")
    if path is None:
        pytest.skip("the mini suite is not trained here")
    crowded = recorded.answers("prism", path, SUITE.trees["main"], 2, 0.0)
    monkeypatch.setattr(torch_engine, "ROWS", 1)
    alone = recorded.answers("prism", path, SUITE.trees["main"], 2, 0.0)
    for name, answered in alone.items():
        assert answered.answers == crowded[name].answers
        assert dataclasses.asdict(answered.sample)["histogram"] == crowded[name].sample.histogram
