"""The seconds of a round's stages: with workers that take as long as they are told to, by a clock of their own."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from prism_ae.sglang_prism import control, plugin, stages
from prism_ae.sglang_prism.stages import HOOKS, KEY, Stages, note, stage_seconds


class Event:
    """A moment of a device, which can be read once it was waited for."""

    def __init__(self, at: float) -> None:
        self.at, self.reached = at, False

    def synchronize(self) -> None:
        self.reached = True

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1000


class Scheduler:
    """Its hooks, and what SGLang calls around them; ``device`` "gpu": moments are events, results come late."""

    def __init__(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.device = 100.0, device
        self.stages = Stages()
        monkeypatch.setattr(stages, "moment", self._moment)

    def _moment(self, device: str) -> Any:
        assert device == self.device
        return self.now if device == "cpu" else Event(self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def step(self, verify: float, sample: float) -> Any:
        """A forward batch of vanilla decoding."""

        def original(worker: Any, batch: Any) -> Any:
            self.passes(verify)
            self.stages.before_sample(None, None, None)
            self.passes(sample)
            return SimpleNamespace()

        return self.stages.around_forward(original, SimpleNamespace(device=self.device), None)

    def round(self, draft: float, verify: float, sample: float, extend: float) -> Any:
        """A forward batch with drafts: around the target's one."""
        worker = SimpleNamespace(device=self.device)

        def target(worker: Any, batch: Any, **options: Any) -> Any:
            self.passes(verify)
            return SimpleNamespace()

        def verification(worker: Any, batch: Any, grammar_barrier: Any) -> Any:
            result = self.stages.around_forward(target, worker, None, is_verify=True)
            self.passes(sample)
            return result

        def original(worker: Any, batch: Any) -> Any:
            self.passes(draft)
            result = self.stages.around_verify(verification, worker, batch, grammar_barrier=None)
            self.passes(extend)
            return result

        return self.stages.around_forward(original, worker, None)

    def hand_on(self, result: Any, *requests: Any, decode: bool = True) -> None:
        """The result of a forward batch of these requests; a round of theirs commits two tokens."""
        mode = SimpleNamespace(is_decode=lambda: decode)
        self.stages.before_result(None, SimpleNamespace(forward_mode=mode, reqs=requests), result)
        for request in requests:
            request.output_ids += [0] * (2 if decode else 1)


def request() -> Any:
    return SimpleNamespace(customized_info=None, output_ids=[], finished=lambda: False, is_retracted=False)


def seconds(one: Any) -> tuple[float, ...]:
    return stage_seconds({KEY: one.customized_info[KEY]})


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_stage_has_its_own_seconds(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, one = Scheduler(device, monkeypatch), request()
    scheduler.passes(1000)
    scheduler.hand_on(scheduler.step(50, 3), one, decode=False)
    assert seconds(one) == (0, 0, 0, 0)  # an answer of one token has no rounds
    scheduler.passes(0.5)
    scheduler.hand_on(scheduler.round(2, 5, 1, 0.25), one)
    assert seconds(one) == (2.25, 5, 1, 0.5)
    scheduler.passes(0.125)
    scheduler.hand_on(scheduler.round(4, 6, 2, 1), one)
    assert seconds(one) == (7.25, 11, 3, 0.625)


def test_without_drafts_a_step_is_a_forward_pass_and_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, one = Scheduler("cpu", monkeypatch), request()
    scheduler.hand_on(scheduler.step(50, 3), one, decode=False)
    for _ in range(4):
        scheduler.passes(0.5)
        scheduler.hand_on(scheduler.step(7, 0.25), one)
    assert seconds(one) == (0, 28, 1, 2)


def test_each_request_has_the_rounds_it_was_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins later and ends earlier; its prefill is nobody's stage, the scheduling around it the first's."""
    scheduler, first, second = Scheduler("cpu", monkeypatch), request(), request()
    scheduler.hand_on(scheduler.step(50, 3), first, decode=False)
    scheduler.hand_on(scheduler.round(2, 5, 1, 0), first)
    scheduler.passes(0.25)
    scheduler.hand_on(scheduler.step(50, 3), second, decode=False)
    scheduler.passes(0.5)
    scheduler.hand_on(scheduler.round(2, 6, 1, 0), first, second)
    second.finished = lambda: True
    scheduler.hand_on(scheduler.round(2, 7, 1, 0), first, second)
    assert seconds(first) == (6, 18, 3, 0.75)
    assert seconds(second) == (2, 6, 1, 0.5)


def test_a_result_is_handed_on_while_the_next_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SGLang does on a GPU: the device goes from one round to the next, and waits for nobody."""
    scheduler, one = Scheduler("gpu", monkeypatch), request()
    prefill = scheduler.step(50, 3)
    first = scheduler.round(2, 5, 1, 1)
    assert not first.prism_ae_forward.end.reached
    scheduler.hand_on(prefill, one, decode=False)
    second = scheduler.round(2, 6, 1, 1)
    scheduler.hand_on(first, one)
    assert first.prism_ae_forward.end.reached
    assert not second.prism_ae_forward.end.reached
    assert seconds(one) == (3, 5, 1, 0)
    scheduler.hand_on(second, one)
    assert seconds(one) == (6, 11, 2, 0)


def test_a_failed_batch_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler("cpu", monkeypatch)

    def fails(worker: Any) -> Any:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        scheduler.stages.around_forward(fails, SimpleNamespace(device="cpu"))
    one = request()
    scheduler.hand_on(scheduler.step(1, 1), one, decode=False)
    assert seconds(one) == (0, 0, 0, 0)


def test_what_has_no_result_of_a_forward_batch_is_left_alone() -> None:
    one = request()
    Stages().before_result(None, SimpleNamespace(reqs=[one]), SimpleNamespace())
    assert one.customized_info is None
    assert stage_seconds({}) == stage_seconds({KEY: None}) == stage_seconds({KEY: [None]}) == ()


def test_sums_arrive_however_sglang_cuts_and_streams_the_tokens() -> None:
    choose = random.Random(1)
    for _ in range(300):
        rounds = [choose.randrange(1, 5) for _ in range(choose.randrange(1, 9))]
        one, sent, offset = request(), [], 0
        for number, tokens in enumerate([1, *rounds]):
            note(one, (float(number), 10.0 * number))
            one.output_ids += [0] * tokens
            last = number == len(rounds)
            if last or number == 0 or choose.random() < 0.3:
                end = len(one.output_ids) - (choose.randrange(tokens) if last else 0)
                sent += one.customized_info[KEY][offset:end]
                offset = end
        assert stage_seconds({KEY: sent}) == (len(rounds), 10.0 * len(rounds))


def test_a_prefill_in_parts_is_noted_at_its_last() -> None:
    one = request()
    for sums in (1.0, 2.0, 3.0):
        note(one, (sums,))
    assert one.customized_info[KEY] == [(3.0,)]


def test_only_engines_of_ours_have_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {target for target, _, _ in HOOKS}
    for nonce, there in ((None, False), ("", False), ("f00", True)):
        monkeypatch.delenv(control.NONCE, raising=False)
        if nonce is not None:
            monkeypatch.setenv(control.NONCE, nonce)
        assert (timed <= {target for target, _, _ in plugin.hooks()}) == there
        assert bool(timed & {target for target, _, _ in plugin.hooks()}) == there
