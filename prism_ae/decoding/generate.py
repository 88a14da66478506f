"""The loop over questions: a pool of rows that is kept full until every question is answered.

Each turn of each question takes a row. Free rows are filled, a few at a time, by reading prompts together; then every
row in use does a round; a turn that has ended frees its row. The second turn of a conversation needs the first answer,
so it goes to the front of the queue as soon as that is known.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence

from prism_ae.cells import STAGES, NearTie, Sample
from prism_ae.decoding.batch import Batch
from prism_ae.decoding.examine import FAULT, NEAR_TIE
from prism_ae.decoding.sampling import question_uniforms
from prism_ae.io.digests import digest

PREFILL_TOKENS = 16384
"""Prompt tokens read in one forward pass (padding included), which bounds its memory. A longer prompt is read alone."""


@dataclasses.dataclass(frozen=True)
class GenerationJob:
    """A question to answer.

    Attributes:
        question_id: names its random numbers, with ``seed``.
        turns: number of user turns.
        prompt: answers so far (whole, as token ids) -> token ids of the next turn's prompt.
        temperature: 0 is greedy.
        max_new_tokens: per turn, at least 1.
        max_seq_len: most tokens of prompt and answer together.
        known_texts: the target's text in each turn, beyond its end too (`GenerationResult.written`), where it is known
            from another drafter's run; it saves work and changes nothing.
    """

    question_id: str
    turns: int
    prompt: Callable[[Sequence[Sequence[int]]], Sequence[int]]
    temperature: float
    seed: int
    max_new_tokens: int
    max_seq_len: int
    known_texts: Sequence[Sequence[int]] = ()


@dataclasses.dataclass(frozen=True)
class GenerationResult:
    """A finished job.

    Attributes:
        index: its place in the list of jobs.
        answers: token ids of each turn, the end token included.
        written: the same, and after them the tokens that the target wrote beyond their end.
    """

    index: int
    sample: Sample
    answers: tuple[tuple[int, ...], ...]
    written: tuple[tuple[int, ...], ...]


class _Conversation:
    """A job under way."""

    def __init__(self, index: int, job: GenerationJob, histogram_size: int) -> None:
        self.index, self.job = index, job
        self.prompts: list[Sequence[int]] = []
        self.answers: list[list[int]] = []
        self.written: list[list[int]] = []
        self.stops: list[str] = []
        self.accepted: list[list[int]] = []
        self.histogram_size = histogram_size
        self.near_ties: list[NearTie] = []
        self.faults = 0
        self.prefill_seconds = 0.0
        self.stage_seconds = self.since = (0.0,) * len(STAGES)

    def ask(self) -> bool:
        """Begin the next turn; False when its prompt fills ``max_seq_len``, which ends the turn at once."""
        self.prompts.append(self.job.prompt(self.answers))
        self.answers.append([])
        self.written.append([])
        self.accepted.append([])
        if len(self.prompts[-1]) < self.job.max_seq_len:
            return True
        self.stops.append("window")
        return False

    @property
    def ended(self) -> bool:
        """Whether the current turn has ended."""
        return len(self.stops) == len(self.answers)

    @property
    def known_text(self) -> Sequence[int]:
        """The target's text in the current turn, () where it is not known."""
        turn = len(self.answers) - 1
        return self.job.known_texts[turn] if turn < len(self.job.known_texts) else ()

    def needs_lookahead(self, n: int) -> bool:
        """Whether the row should go on, to learn up to ``n`` tokens that the target writes beyond the answer's end."""
        written = len(self.written[-1])
        fits = len(self.prompts[-1]) + written < self.job.max_seq_len and written < self.job.max_new_tokens + n
        return fits and not self.known_text and written < len(self.answers[-1]) + n

    def take(self, tokens: Sequence[int], stop_ids: Collection[int], verdicts: Sequence[int] = ()) -> bool:
        """Add committed tokens to the answer, up to its end; True when the turn has ended.

        Args:
            verdicts: `prism_ae.decoding.examine`'s, of each token; none where they are not examined.
        """
        self.written[-1] += tokens
        job, answer = self.job, self.answers[-1]
        for number, token in enumerate(() if self.ended else tokens):
            if verdicts:
                self._examined(token, verdicts[number])
            answer.append(token)
            if token in stop_ids:
                self.stops.append("end")
                return True
            if len(answer) == job.max_new_tokens:
                self.stops.append("length")
                return True
            if len(self.prompts[-1]) + len(answer) == job.max_seq_len:
                self.stops.append("window")
                return True
        return self.ended

    def _examined(self, token: int, verdict: int) -> None:
        """Record what is found of the answer's next token."""
        self.faults += verdict == FAULT
        if verdict == NEAR_TIE:
            place = len(self.answers) - 1, len(self.answers[-1])
            self.near_ties.append((*place, digest(self.answers)[:8], token))

    def decoded(self, spent: Sequence[float]) -> None:
        """End the turn's decoding, which began ``since``: both are what the batch's clock had spent by stage."""
        parts = zip(self.stage_seconds, spent, self.since, strict=True)
        self.stage_seconds = tuple(seconds + end - begin for seconds, end, begin in parts)

    @property
    def finished(self) -> bool:
        return len(self.stops) == self.job.turns

    def result(self, batch: Batch) -> GenerationResult:
        drafted = batch.drafting is not None
        rounds = Counter(drafts for turn in self.accepted for drafts in turn)
        sample = Sample(
            question_id=self.job.question_id,
            turns=self.job.turns,
            prompt_tokens=sum(map(len, self.prompts)),
            generated_tokens=sum(map(len, self.answers)),
            histogram=tuple(rounds[drafts] for drafts in range(self.histogram_size)) if drafted else (),
            stops=tuple(self.stops),
            prefill_seconds=self.prefill_seconds,
            decode_seconds=sum(self.stage_seconds),
            output_sha256=digest(self.answers),
            accepted=tuple(map(tuple, self.accepted)) if drafted else (),
            turn_tokens=tuple(map(len, self.answers)),
            near_ties=tuple(self.near_ties),
            faults=None if batch.verdicts is None else self.faults,
            stage_seconds=self.stage_seconds if batch.stages_are_timed else (),
        )
        return GenerationResult(self.index, sample, tuple(map(tuple, self.answers)), tuple(map(tuple, self.written)))


def generate(
    batch: Batch,
    jobs: Sequence[GenerationJob],
    stop_ids: Collection[int],
    should_stop: Callable[[], bool],
    lookahead: int = 0,
) -> Iterator[GenerationResult]:
    """Answer all jobs, begun in their order; yields each as soon as it is finished.

    A question's seconds of decoding run from a turn's first token to the end of its last round, the host's work between
    its rounds included; not the reading of other prompts between them, nor what a caller does with an answer.

    Args:
        batch: with no row in use.
        stop_ids: tokens that end an answer.
        should_stop: asked before every round; if true, the jobs under way are dropped.
        lookahead: tokens beyond each answer's end to learn for `GenerationResult.written`, where no text is known.
    """
    clock = batch.clock
    waiting: deque[tuple[int, GenerationJob] | _Conversation] = deque(enumerate(jobs))
    active: list[_Conversation] = []
    refill = max(1, batch.rows // 8)
    while waiting or active:
        if should_stop():
            return
        free = batch.rows - len(active)
        if waiting and free and (free >= refill or len(waiting) <= free):
            clock.pause()
            new, ended = _next(waiting, free, batch)
            yield from (conversation.result(batch) for conversation in ended)
            start = time.perf_counter()
            firsts, found = _admit(batch, new)
            seconds = time.perf_counter() - start
            clock.resume()
            for conversation in new:
                conversation.prefill_seconds += seconds
                conversation.since = clock.spent
            active += new
            older: list[list[int]] = [[] for _ in active[len(new) :]]
            committed, verdicts = older + [[token] for token in firsts], older + found
        else:
            committed = batch.round()
            verdicts = batch.verdicts or [[] for _ in active]
            for conversation, tokens in zip(active, committed, strict=True):
                if not conversation.ended:
                    conversation.accepted[-1].append(len(tokens) - 1)
        done: list[GenerationResult] = []
        for row in reversed(range(len(active))):
            conversation = active[row]
            has_ended = conversation.take(committed[row], stop_ids, verdicts[row])
            if not has_ended or conversation.needs_lookahead(lookahead):
                continue
            conversation.decoded(clock.spent)
            batch.release(row)
            active[row] = active[-1]
            active.pop()
            if conversation.finished:
                done.append(conversation.result(batch))
            else:
                waiting.appendleft(conversation)
        if done:
            clock.pause()
            yield from done
            clock.resume()


def _next(
    waiting: deque[tuple[int, GenerationJob] | _Conversation], free: int, batch: Batch
) -> tuple[list[_Conversation], list[_Conversation]]:
    """Take up to ``free`` turns from the queue: those to answer, and those whose prompt is too long for one."""
    new: list[_Conversation] = []
    ended: list[_Conversation] = []
    while waiting and len(new) < free:
        first = waiting.popleft()
        conversation = first if isinstance(first, _Conversation) else _Conversation(*first, batch.depth + 1)
        while not conversation.finished and not conversation.ask():
            pass
        if conversation.finished:
            ended.append(conversation)
        else:
            new.append(conversation)
    return new, ended


def _admit(batch: Batch, new: Sequence[_Conversation]) -> tuple[list[int], list[list[int]]]:
    """Read the prompts of ``new``, in order; the first token of each answer, and `Batch.verdicts` of it."""
    firsts: list[int] = []
    verdicts: list[list[int]] = []
    for turns in _prefill_parts(new):
        uniforms = [
            question_uniforms(turn.job.seed, turn.job.question_id, len(turn.answers) - 1, batch.uniforms_per_row)
            for turn in turns
        ]
        temperatures, texts = [turn.job.temperature for turn in turns], [turn.known_text for turn in turns]
        firsts += batch.admit([turn.prompts[-1] for turn in turns], uniforms, temperatures, texts)
        verdicts += batch.verdicts or [[] for _ in turns]
    return firsts, verdicts


def _prefill_parts(new: Sequence[_Conversation]) -> Iterator[list[_Conversation]]:
    """The turns in order, in parts whose prompts are read in one forward pass each."""
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
