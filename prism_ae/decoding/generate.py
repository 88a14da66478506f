"""The loop over questions: a pool of rows that is kept full until every question is answered.

Each turn of each question asks for a row. Free rows are filled, a few at a time, by reading prompts together; then
every row in use does a round; turns that ended hand their row on. The second turn of a conversation needs the first
one's answer, so it queues in front as soon as that is known.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from prism_ae.cells import Sample
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.sampling import uniforms
from prism_ae.io.digests import digest

PREFILL_TOKENS = 16384
"""Prompt tokens read in one forward pass (padding included), which bounds its memory. A longer prompt is read alone."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A question to answer.

    Attributes:
        question_id: names its random numbers, with ``seed``.
        turns: user turns.
        prompt: answers so far (token ids without anything cut off) -> token ids of the next turn's prompt.
        temperature: 0 is greedy.
        max_new_tokens: per turn, at least 1.
        window: tokens of prompt and answer together at most.
        expected: what the target is expected to write in each turn, ended or not (`Answered.written`); it saves work
            and changes nothing.
    """

    question_id: str
    turns: int
    prompt: Callable[[Sequence[Sequence[int]]], Sequence[int]]
    temperature: float
    seed: int
    max_new_tokens: int
    window: int
    expected: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True)
class Answered:
    """A finished job.

    Attributes:
        index: its place in the list of jobs.
        answers: token ids of each turn, the end token included.
        written: the same, and behind them what the target wrote beyond their end.
    """

    index: int
    sample: Sample
    answers: tuple[tuple[int, ...], ...]
    written: tuple[tuple[int, ...], ...]


class _Conversation:
    """A job under way."""

    def __init__(self, index: int, job: Job, histogram_size: int) -> None:
        self.index, self.job = index, job
        self.prompts: list[Sequence[int]] = []
        self.answers: list[list[int]] = []
        self.written: list[list[int]] = []
        self.stops: list[str] = []
        self.histogram = [0] * histogram_size
        self.prefill_seconds = self.decode_seconds = self.since = 0.0

    def ask(self) -> bool:
        """Begin the next turn; False when its prompt leaves no room for an answer, which ends it at once."""
        self.prompts.append(self.job.prompt(self.answers))
        self.answers.append([])
        self.written.append([])
        if len(self.prompts[-1]) < self.job.window:
            return True
        self.stops.append("window")
        return False

    @property
    def ended(self) -> bool:
        """Whether the current turn has ended."""
        return len(self.stops) == len(self.answers)

    @property
    def expected(self) -> Sequence[int]:
        """What the target is expected to write in the current turn."""
        turn = len(self.answers) - 1
        return self.job.expected[turn] if turn < len(self.job.expected) else ()

    def lingers(self, beyond: int) -> bool:
        """Whether the row should go on, to learn what the target writes up to ``beyond`` tokens behind the end."""
        written = len(self.written[-1])
        room = len(self.prompts[-1]) + written < self.job.window and written < self.job.max_new_tokens + beyond
        return room and not self.expected and written < len(self.answers[-1]) + beyond

    def take(self, tokens: Sequence[int], stop_ids: Collection[int]) -> bool:
        """Add committed tokens to the answer, up to its end; True when the turn has ended."""
        self.written[-1] += tokens
        job, answer = self.job, self.answers[-1]
        for token in () if self.ended else tokens:
            answer.append(token)
            if token in stop_ids:
                self.stops.append("end")
                return True
            if len(answer) == job.max_new_tokens:
                self.stops.append("length")
                return True
            if len(self.prompts[-1]) + len(answer) == job.window:
                self.stops.append("window")
                return True
        return self.ended

    @property
    def finished(self) -> bool:
        return len(self.stops) == self.job.turns

    def result(self, drafted: bool) -> Answered:
        sample = Sample(
            question_id=self.job.question_id,
            turns=self.job.turns,
            prompt_tokens=sum(map(len, self.prompts)),
            generated_tokens=sum(map(len, self.answers)),
            histogram=tuple(self.histogram) if drafted else (),
            stops=tuple(self.stops),
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            output_sha256=digest(self.answers),
        )
        return Answered(self.index, sample, tuple(map(tuple, self.answers)), tuple(map(tuple, self.written)))


def generate(
    batch: Batch,
    jobs: Sequence[Job],
    stop_ids: Collection[int],
    should_stop: Callable[[], bool],
    beyond: int = 0,
) -> Iterator[Answered]:
    """Answer all jobs, each as soon as it is finished; begun in their order.

    Args:
        batch: with no row in use.
        stop_ids: tokens that end an answer.
        should_stop: asked before every round; the jobs under way are then dropped.
        beyond: tokens behind each answer's end to learn for `Answered.written`, where nothing is expected yet.
    """
    drafted, clock = batch.drafting is not None, 0.0
    waiting: deque[tuple[int, Job] | _Conversation] = deque(enumerate(jobs))
    active: list[_Conversation] = []
    refill = max(1, batch.rows // 8)
    while waiting or active:
        if should_stop():
            return
        free = batch.rows - len(active)
        if waiting and free and (free >= refill or len(waiting) <= free):
            new, ended = _next(waiting, free, batch)
            yield from (conversation.result(drafted) for conversation in ended)
            start = time.perf_counter()
            firsts = _admit(batch, new)
            seconds = time.perf_counter() - start
            for conversation in new:
                conversation.prefill_seconds += seconds
                conversation.since = clock
            active += new
            committed: list[list[int]] = [[] for _ in active[len(new) :]] + [[token] for token in firsts]
        else:
            start = time.perf_counter()
            committed = batch.round()
            clock += time.perf_counter() - start
            for conversation, tokens in zip(active, committed, strict=True):
                if not conversation.ended:
                    conversation.histogram[len(tokens) - 1] += 1
        for row in reversed(range(len(active))):
            conversation = active[row]
            if not conversation.take(committed[row], stop_ids) or conversation.lingers(beyond):
                continue
            conversation.decode_seconds += clock - conversation.since
            batch.release(row)
            active[row] = active[-1]
            active.pop()
            if conversation.finished:
                yield conversation.result(drafted)
            else:
                waiting.appendleft(conversation)


def _next(
    waiting: deque[tuple[int, Job] | _Conversation], free: int, batch: Batch
) -> tuple[list[_Conversation], list[_Conversation]]:
    """Take up to ``free`` turns from the queue: those with room for an answer, and those that ended without one."""
    new: list[_Conversation] = []
    ended: list[_Conversation] = []
    while waiting and len(new) < free:
        entry = waiting.popleft()
        conversation = entry if isinstance(entry, _Conversation) else _Conversation(*entry, batch.depth + 1)
        while not conversation.finished and not conversation.ask():
            pass
        if conversation.finished:
            ended.append(conversation)
        else:
            new.append(conversation)
    return new, ended


def _admit(batch: Batch, new: Sequence[_Conversation]) -> list[int]:
    """Read the prompts of ``new``, in order; the first token of each answer."""
    firsts: list[int] = []
    for turns in _together(new):
        numbers = [
            uniforms(turn.job.seed, turn.job.question_id, len(turn.answers) - 1, batch.numbers) for turn in turns
        ]
        temperatures, expected = [turn.job.temperature for turn in turns], [turn.expected for turn in turns]
        firsts += batch.admit([turn.prompts[-1] for turn in turns], numbers, temperatures, expected)
    return firsts


def _together(new: Sequence[_Conversation]) -> Iterator[list[_Conversation]]:
    """The turns in order, in parts whose prompts are read in one forward pass."""
    part: list[_Conversation] = []
    longest = 0
    for turn in new:
        longest = max(longest, len(turn.prompts[-1]))
        if part and longest * (len(part) + 1) > PREFILL_TOKENS:
            yield part
            part, longest = [], len(turn.prompts[-1])
        part.append(turn)
    if part:
        yield part
