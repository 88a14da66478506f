"""Speeds, from the tokens and seconds that engines return. Pure, and the only place of their formulas.

A cell's time is measured with ``batch`` requests decoded side by side. The first token of every turn comes out of its
prefill, so only ``later`` = generated - turns tokens are made while decoding. Every formula takes `Totals`, whose
fields are sums over questions, or arrays of sums, one per bootstrap replicate:

    TPS               generated / wall: the paper's definition, prefill, queueing and the run's tail included
    decode TPS        batch * later / decode: each request makes later / decode tokens a second while it decodes, and
                      ``batch`` of them do so side by side
    tokens per round  later / rounds
    round seconds     decode / rounds, as one request sees a round
    step seconds      decode / later of vanilla decoding, whose step makes one token
    round cost        round seconds / step seconds of vanilla decoding
    speed-up          TPS / TPS of vanilla decoding
    decode speed-up   tokens per round / round cost; for one batch size that is decode TPS / decode TPS of vanilla

What is undefined (no rounds, no seconds) is NaN, never an exception and never 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prism_ae.analysis.acceptance import Floats, ratio
from prism_ae.cells import Sample


@dataclasses.dataclass(frozen=True, eq=False)
class Times:
    """The raw tokens and seconds of one timed cell.

    Attributes:
        question_ids: n of them.
        generated, later, rounds: [n], tokens, tokens after the first of each turn, and rounds of a question.
        prefill, decode: [n], seconds from sending a turn to its first token, and from there to its last; summed over
            turns.
        wall: seconds of the whole run.
        batch: requests side by side.
    """

    question_ids: tuple[str, ...]
    generated: Floats
    later: Floats
    rounds: Floats
    prefill: Floats
    decode: Floats
    wall: float
    batch: int


@dataclasses.dataclass(frozen=True, eq=False)
class Totals:
    """Sums over the questions of one cell or of several with the same batch: numbers, or arrays of replicates."""

    generated: Floats
    later: Floats
    rounds: Floats
    decode: Floats
    wall: Floats
    batch: int

    def __add__(self, other: Totals) -> Totals:
        """Of both together; raises ValueError for other batches, whose seconds do not add up."""
        if self.batch != other.batch:
            raise ValueError(f"seconds at batch {self.batch} and at batch {other.batch} do not add up")
        return Totals(
            self.generated + other.generated,
            self.later + other.later,
            self.rounds + other.rounds,
            self.decode + other.decode,
            self.wall + other.wall,
            self.batch,
        )


def times_of(samples: Sequence[Sample], wall: float, batch: int) -> Times:
    """A timed cell's tokens and seconds, checked.

    Raises:
        ValueError: seconds that are negative or not finite.
    """
    for sample in samples:
        for name, seconds in (("prefill", sample.prefill_seconds), ("decode", sample.decode_seconds)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"question {sample.question_id}: its {name} took {seconds} seconds")
    if not (math.isfinite(wall) and wall >= 0):
        raise ValueError(f"the run took {wall} seconds")
    return Times(
        question_ids=tuple(sample.question_id for sample in samples),
        generated=_array([sample.generated_tokens for sample in samples]),
        later=_array([sample.generated_tokens - sample.turns for sample in samples]),
        rounds=_array([sample.rounds for sample in samples]),
        prefill=_array([sample.prefill_seconds for sample in samples]),
        decode=_array([sample.decode_seconds for sample in samples]),
        wall=float(wall),
        batch=batch,
    )


def totals(times: Times, weights: NDArray[np.float64] | None = None) -> Totals:
    """The sums over all questions, or, with ``weights`` [r, n], over r resamples of them.

    A resample's wall seconds are not measured. They are taken to be in proportion to the seconds its questions were
    served (prefill and decode): as many requests side by side as there were, and the same overhead per second.
    """
    every = np.ones(len(times.question_ids)) if weights is None else weights
    served = times.prefill + times.decode
    wall = np.asarray(times.wall) if weights is None else times.wall * ratio(every @ served, served.sum())
    return Totals(
        every @ times.generated, every @ times.later, every @ times.rounds, every @ times.decode, wall, times.batch
    )


def tps(of: Totals) -> Floats:
    """Generated tokens per wall second."""
    return ratio(of.generated, of.wall)


def decode_tps(of: Totals) -> Floats:
    """Tokens per second of all requests together while decoding."""
    return ratio(of.batch * of.later, of.decode)


def tokens_per_round(of: Totals) -> Floats:
    """Tokens that a round commits; the prefill's are not counted. NaN for vanilla."""
    return ratio(of.later, of.rounds)


def round_seconds(of: Totals) -> Floats:
    """Seconds of a round; NaN for vanilla."""
    return ratio(of.decode, of.rounds)


def step_seconds(vanilla: Totals) -> Floats:
    """Seconds of a step of vanilla decoding."""
    return ratio(vanilla.decode, vanilla.later)


def round_cost(of: Totals, vanilla: Totals) -> Floats:
    """A round's seconds in steps of vanilla decoding."""
    return ratio(round_seconds(of), step_seconds(vanilla))


def decode_speed_up(of: Totals, vanilla: Totals) -> Floats:
    """Speed-up over vanilla decoding at the same batch, prefills and idle places left out."""
    return ratio(tokens_per_round(of), round_cost(of, vanilla))


def _array(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=np.float64)
