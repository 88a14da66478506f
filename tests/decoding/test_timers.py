"""Each second of decoding belongs to one stage, and to the right one: with a clock that moves only where it is told to.

Nothing here waits. Every part of a round moves the clock by an amount of its own, so that a stage's seconds say which
parts were counted, and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from decoding_models import make_drafter, make_target

from prism_ae.cells import STAGES, Sample, TreeShape
from prism_ae.decoding import batch as batch_module
from prism_ae.decoding import generate as generate_module
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.generate import GenerationJob, generate
from prism_ae.decoding.timers import DRAFT, HOST, SAMPLE, VERIFY, DeviceClock, StageClock

SHAPE, ROUNDS = TreeShape(3, 3, 8), 10
DRAFTING, FORWARD, HEAD, SAMPLING, BETWEEN = 1.0, 100.0, 3.0, 0.25, 1e4
PROMPT, CALLER = 1e6, 1e7


class Clock:
    """A clock's reading, which `takes` moves; it never moves by itself."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float, real: Callable[..., Any]) -> Callable[..., Any]:
        """``real``, after which the clock shows ``seconds`` more."""

        def timed(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            self.now += seconds
            return result

        return timed


def by_stage(sample: Sample) -> dict[str, float]:
    return dict(zip(STAGES, sample.stage_seconds, strict=True))


def answer(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    kind: str | None,
    *,
    rows: int = 1,
    lengths: Sequence[int] = (ROUNDS + 1,),
    at_once: bool = False,
) -> list[Sample]:
    """Samples of answers of ``lengths``; each part of their rounds takes its seconds by ``clock``."""
    target = make_target(4)
    drafter = make_drafter(kind, target) if kind else None
    batch = Batch(target, drafter, SHAPE if kind else None, rows=rows, max_seq_len=100, uniforms_per_row=60)
    batch.sample_at_once = at_once
    batch.time_stages()
    assert type(batch.clock) is StageClock
    batch.clock = StageClock(clock)
    if batch.drafting:
        monkeypatch.setattr(batch.drafting, "draft_tree", clock.takes(DRAFTING, batch.drafting.draft_tree))
    monkeypatch.setattr(target, "forward", clock.takes(FORWARD, target.forward))
    monkeypatch.setattr(target.head, "forward", clock.takes(HEAD, target.head.forward))
    monkeypatch.setattr(batch_module, "sample_tokens", clock.takes(SAMPLING, batch_module.sample_tokens))
    monkeypatch.setattr(generate_module.time, "perf_counter", clock)

    def prompt(_: Sequence[Sequence[int]]) -> list[int]:
        clock.now += PROMPT
        return [1, 2, 3]

    jobs = [GenerationJob(f"q{n}", 1, prompt, 1.0, 11, length, 90) for n, length in enumerate(lengths)]
    samples = []
    for answered in generate(batch, jobs, (), clock.takes(BETWEEN, lambda: False)):
        clock.now += CALLER
        samples.append(answered.sample)
    return samples


@pytest.mark.parametrize("at_once", [False, True])
def test_a_step_of_vanilla_decoding_is_one_pass_and_one_token(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample,) = answer(Clock(), monkeypatch, None, at_once=at_once)
    # The host is asked before each step, the first included.
    expected = {DRAFT: 0.0, VERIFY: FORWARD + HEAD, SAMPLE: SAMPLING, HOST: BETWEEN}
    assert by_stage(sample) == {stage: ROUNDS * seconds for stage, seconds in expected.items()}
    assert sample.decode_seconds == sum(sample.stage_seconds)
    assert sample.prefill_seconds == FORWARD + HEAD + SAMPLING


def test_a_round_drafts_verifies_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    (sample,) = answer(Clock(), monkeypatch, "prism")
    rounds, visited = sample.rounds, sum((accepted + 1) * count for accepted, count in enumerate(sample.histogram))
    assert visited > rounds, "no draft was accepted"
    assert by_stage(sample) == {
        DRAFT: rounds * (DRAFTING + drafters_heads()),
        VERIFY: rounds * FORWARD + visited * HEAD,
        SAMPLE: visited * SAMPLING,
        HOST: rounds * BETWEEN,
    }
    assert sample.decode_seconds == sum(sample.stage_seconds)


def drafters_heads() -> float:
    """The drafter scores its steps with the target's head."""
    return SHAPE.steps * HEAD


def test_other_questions_prompts_and_the_caller_are_nobodys_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows, three questions of 3, 21 and 5 tokens: the third is read while the second is under way."""
    lengths = (3, 21, 5)
    samples = {sample.generated_tokens: sample for sample in answer(
        Clock(), monkeypatch, None, rows=2, lengths=lengths
    )}  # fmt: skip
    for length in lengths:
        steps = length - 1
        spent = by_stage(samples[length])
        assert spent == {
            DRAFT: 0.0, VERIFY: steps * (FORWARD + HEAD), SAMPLE: steps * SAMPLING, HOST: spent[HOST],
        }  # fmt: skip
        # Before the third is read the second's host is asked once more.
        assert spent[HOST] == BETWEEN * (steps + (length == 21))


def test_cells_whose_time_is_not_measured_have_no_stages() -> None:
    batch = Batch(make_target(4), None, None, rows=1, max_seq_len=100, uniforms_per_row=60)
    job = GenerationJob("q", 1, lambda _: [1, 2, 3], 0.0, 11, 12, 90)
    (answered,) = generate(batch, [job], (), lambda: False)
    assert answered.sample.stage_seconds == ()
    assert answered.sample.decode_seconds > 0


class Moment:
    """An event of a device, at a time of its own."""

    def __init__(self, at: float) -> None:
        self.at = at

    def elapsed_time(self, end_event: Moment) -> float:
        return (end_event.at - self.at) * 1000


def test_a_device_times_its_own_stages() -> None:
    """The host queues in no time and waits at the end; the rest of its wait belongs to the sample stage."""
    host, device = Clock(), Clock()
    clock = DeviceClock(lambda: Moment(device.now), host)
    for _ in range(2):
        host.now += 0.5
        clock.begin_round()
        device.now += 4.0
        clock.lap(DRAFT)
        device.now += 8.0
        clock.lap(VERIFY)
        device.now += 2.0
        clock.lap(SAMPLE)
        device.now += 1.0
        clock.lap(VERIFY)
        host.now += 16.0
        clock.end_round()
        clock.pause()
        host.now += 1000.0
        clock.resume()
    assert dict(zip(STAGES, clock.spent, strict=True)) == {DRAFT: 8.0, VERIFY: 18.0, SAMPLE: 6.0, HOST: 1.0}


def test_the_clock_of_a_gpu_reads_events_of_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[object] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            recorded.append(stream)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    clock = batch_module.stage_clock(torch.device("cuda:1"))
    assert isinstance(clock, DeviceClock)
    clock.begin_round()
    clock.lap(DRAFT)
    assert recorded == ["stream of cuda:1"] * 2
