"""What each round's time went to, by `cells.STAGES`, as each request saw it.

Only in engines that this project starts (`plugin.hooks`). At the borders of a round's stages the moment is noted: on a
CPU by the clock, on a GPU by an event in the stream, which the device reaches when its work is there, so nobody waits
for it; it is read when SGLang waits for the round's result anyway. So the stages follow each other without a gap. On a
GPU whose scheduler runs beside it "host" is what the device waited for, not what the scheduler did meanwhile.

The seconds are summed for the scheduler as a whole, and each request notes the sums at its first token and at each of
its rounds; its own seconds are the difference. They travel as its ``customized_info``, see `accepted`. A prefill of
another request between two rounds is nobody's stage; the scheduling before and after it is "host".
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

KEY = "prism_ae_stages"
"""Our key in a request's information."""

_ATTRIBUTE = "prism_ae_forward"
"""Of a result that the scheduler hands on: the forward batch that it came from."""

Moment = Any
"""Seconds, or an event of the device."""


def moment(device: str) -> Moment:
    """Now; on a GPU when the work that was given to it so far is done."""
    if device == "cpu":
        return time.perf_counter()
    import torch

    event = torch.get_device_module(device).Event(enable_timing=True)
    event.record()
    return event


def _between(begin: Moment, end: Moment) -> float:
    """Seconds."""
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000


@dataclasses.dataclass
class _Forward:
    """One forward batch's moments, in their order: a prefill, or a round (without drafts: a step).

    Attributes:
        before: the end of the forward batch before it; None for the first.
        drafted, walked: of a round with drafts only: begin and end of what the target does.
        passed: the end of the target's forward pass.
    """

    device: str
    before: Moment
    begin: Moment
    drafted: Moment = None
    passed: Moment = None
    walked: Moment = None
    end: Moment = None

    def seconds(self) -> tuple[float, float, float]:
        """Of a round: draft, verify, sample. The drafter reads what was accepted after the walk."""
        if self.drafted is None:
            return 0.0, _between(self.begin, self.passed), _between(self.passed, self.end)
        draft = _between(self.begin, self.drafted) + _between(self.walked, self.end)
        return draft, _between(self.drafted, self.passed), _between(self.passed, self.walked)


class Stages:
    """The timers of one scheduler."""

    def __init__(self) -> None:
        self._running: _Forward | None = None
        self._last: Moment = None
        self._sums = (0.0, 0.0, 0.0, 0.0)

    def around_forward(self, original: Callable[..., Any], worker: Any, *args: Any, **options: Any) -> Any:
        """Around a worker's forward batch; the target's within a round with drafts is its forward pass."""
        if self._running is not None:
            result = original(worker, *args, **options)
            self._running.passed = moment(self._running.device)
            return result
        device = str(worker.device)
        forward = self._running = _Forward(device, self._last, moment(device))
        try:
            result = original(worker, *args, **options)
        finally:
            self._running = None
        forward.end = self._last = moment(device)
        setattr(result, _ATTRIBUTE, forward)
        return result

    def around_verify(self, original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Around all that the target does in a round with drafts."""
        forward = self._running
        assert forward is not None
        forward.drafted = moment(forward.device)
        result = original(*args, **options)
        forward.walked = moment(forward.device)
        return result

    def before_sample(self, *args: Any) -> None:
        """Before tokens are sampled: after the target's forward pass, where nothing was drafted."""
        if self._running is not None:
            self._running.passed = moment(self._running.device)

    def before_result(self, scheduler: Any, batch: Any, result: Any) -> None:
        """Before the scheduler hands on a result, which it has to wait for."""
        forward = getattr(result, _ATTRIBUTE, None)
        if forward is None:
            return
        if not isinstance(forward.end, float):
            forward.end.synchronize()
        draft, verify, sample, host = self._sums
        if forward.before is not None:
            host += _between(forward.before, forward.begin)
        if batch.forward_mode.is_decode():
            more = forward.seconds()
            draft, verify, sample = draft + more[0], verify + more[1], sample + more[2]
        self._sums = draft, verify, sample, host
        for request in batch.reqs:
            if not (request.finished() or request.is_retracted):
                note(request, self._sums)


def note(request: Any, sums: tuple[float, ...]) -> None:
    """Write the sums so far into a request's entry at its next token; of those before, only the first is kept."""
    if request.customized_info is None:
        request.customized_info = {}
    entries = request.customized_info.setdefault(KEY, [])
    if len(entries) > 1:
        entries[-1] = None
    del entries[len(request.output_ids) :]
    entries += [*[None] * (len(request.output_ids) - len(entries)), sums]


def stage_seconds(meta_info: Mapping[str, Any]) -> tuple[float, ...]:
    """Of a finished request, from what SGLang says about it: by `cells.STAGES`, all its rounds; () without timers."""
    noted = [sums for sums in meta_info.get(KEY) or () if sums is not None]
    return tuple(last - first for first, last in zip(noted[0], noted[-1], strict=True)) if noted else ()


_stages = Stages()
_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
_WORKER = "sglang.srt.speculative.eagle_worker_v2.EAGLEWorkerV2"
HOOKS: list[tuple[str, Callable[..., Any], str]] = [
    ("sglang.srt.managers.tp_worker.TpModelWorker.forward_batch_generation", _stages.around_forward, "around"),
    ("sglang.srt.model_executor.model_runner.ModelRunner.sample", _stages.before_sample, "before"),
    (f"{_WORKER}.forward_batch_generation", _stages.around_forward, "around"),
    (f"{_WORKER}.verify", _stages.around_verify, "around"),
    (f"{_SCHEDULER}.process_batch_result", _stages.before_result, "before"),
]
