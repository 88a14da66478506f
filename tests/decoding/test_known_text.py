"""Known texts save work and change nothing, be they right, wrong or too short."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from decoding_models import KINDS, make_drafter, make_target

from prism_ae.cells import TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate

SHAPE, STOP, LOOKAHEAD = TreeShape(3, 3, 9), (3, 17), 4


def _jobs(count: int = 10, turns: int = 2) -> list[GenerationJob]:
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(0, 29, (1 + number % 7,), generator=generator).tolist() for number in range(count)]

    def job(number: int, prompt: list[int]) -> GenerationJob:
        def ask(answers: Sequence[Sequence[int]]) -> list[int]:
            return prompt + [token for answer in answers for token in answer]

        return GenerationJob(f"q{number}", turns, ask, float(number % 2), 11, 14, 80)

    return [job(number, prompt) for number, prompt in enumerate(prompts)]


def _run(
    jobs: Sequence[GenerationJob], kind: str = "prism", lookahead: int = 0, stop: Sequence[int] = STOP
) -> tuple[list[GenerationResult], int]:
    """The answers, and how many tokens the target read after the prompts."""
    target = make_target(4)
    batch = Batch(target, make_drafter(kind, target), SHAPE, rows=4, max_seq_len=100, uniforms_per_row=60)
    read, verify = 0, batch._verify_all

    def counted(tree: object, *rest: object) -> object:
        nonlocal read
        read += tree.tokens.numel()  # type: ignore[attr-defined]
        return verify(tree, *rest)  # type: ignore[arg-type]

    batch._verify_all = counted  # type: ignore[method-assign, assignment]
    done = sorted(generate(batch, jobs, stop, lambda: False, lookahead), key=lambda answered: answered.index)
    return done, read


def _outcome(answers: Sequence[GenerationResult]) -> list[object]:
    return [dataclasses.replace(answered.sample, prefill_seconds=0.0, decode_seconds=0.0) for answered in answers]


def _knowing(jobs: Sequence[GenerationJob], texts: Sequence[Sequence[Sequence[int]]]) -> list[GenerationJob]:
    return [dataclasses.replace(job, known_texts=text) for job, text in zip(jobs, texts, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_known_texts_give_the_same_outcome_for_less_work(kind: str) -> None:
    jobs = _jobs()
    plain, work = _run(jobs, kind)
    learnt, _ = _run(jobs, kind, LOOKAHEAD)
    assert _outcome(learnt) == _outcome(plain)
    # What one drafter taught is expected of the next.
    taught, _ = _run(jobs, "eagle2", LOOKAHEAD)
    guided, less = _run(_knowing(jobs, [answered.written for answered in taught]), kind)
    assert _outcome(guided) == _outcome(plain)
    assert less < work / 2


@pytest.mark.parametrize("spoil", ["wrong", "half wrong", "too short", "of another", "unknown for some"])
def test_wrong_expectations_change_nothing(spoil: str) -> None:
    jobs = _jobs()
    plain, _ = _run(jobs)
    texts = [[list(text) for text in answered.written] for answered in plain]
    spoiled = {
        "wrong": [[[(token + 1) % 29 for token in text] for text in turns] for turns in texts],
        "half wrong": [[text[:4] + [(token + 1) % 29 for token in text[4:]] for text in turns] for turns in texts],
        "too short": [[text[:3] for text in turns] for turns in texts],
        "of another": texts[1:] + texts[:1],
        "unknown for some": [turns if number % 2 else [] for number, turns in enumerate(texts)],
    }[spoil]
    guided, _ = _run(_knowing(jobs, spoiled))
    assert _outcome(guided) == _outcome(plain)


def test_leaving_the_expected_path_must_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that check the wrong expectations above would change the outcome."""
    jobs = _jobs()
    plain, _ = _run(jobs)
    monkeypatch.setattr(batch_module, "leaves_path", lambda *_: False)
    wrong = [[[(token + 1) % 29 for token in text] for text in answered.written] for answered in plain]
    guided, _ = _run(_knowing(jobs, wrong))
    assert _outcome(guided) != _outcome(plain)
    assert [answered.answers for answered in guided] == [answered.answers for answered in plain]


def test_what_is_written_beyond_the_end_is_the_targets_own_text() -> None:
    jobs = _jobs(turns=1)
    endless, _ = _run([dataclasses.replace(job, max_new_tokens=40) for job in jobs], stop=())
    learnt, _ = _run(jobs, lookahead=LOOKAHEAD)
    assert any(answered.sample.stops == ("end",) for answered in learnt)
    for answered, whole in zip(learnt, endless, strict=True):
        (answer,), (written,) = answered.answers, answered.written
        assert len(written) >= len(answer) + LOOKAHEAD
        assert written == whole.answers[0][: len(written)]
        assert written[: len(answer)] == answer
