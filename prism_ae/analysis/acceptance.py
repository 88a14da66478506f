"""Acceptance lengths and rates, from the histograms that engines return. Pure, and the only place of their formulas.

A round drafts, verifies and commits. ``histogram[i]`` counts the rounds in which i drafts were accepted; each round
also commits one token of the target's own. Two definitions of acceptance length (AL) are in use, and they differ:

    AL macro   mean over questions of (mean accepted drafts per round + 1): the paper's figures (torch evaluation)
    AL micro   generated tokens / rounds, all questions together: the paper's tables (serving client); the numerator
               includes the token of the prefill and leaves out what was accepted after an end token

What is undefined (no rounds at all, a position that no draft ever reached) is NaN, never an exception and never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prism_ae.cells import Sample

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """The raw counts of one cell.

    Attributes:
        question_ids: n of them.
        histograms: [n, deepest + 1], rounds of a question by accepted drafts.
        generated: [n], generated tokens of a question.
    """

    question_ids: tuple[str, ...]
    histograms: Ints
    generated: Ints

    @property
    def rounds(self) -> Ints:
        """[n], rounds of a question."""
        return self.histograms.sum(axis=1)

    @property
    def accepted(self) -> Ints:
        """[n], accepted drafts of a question."""
        return self.histograms @ np.arange(self.histograms.shape[1])


def counts_of(samples: Sequence[Sample]) -> Counts:
    """The counts of a cell's samples, their identities checked.

    Raises:
        ValueError: a histogram does not sum to the rounds, a count is negative, a question occurs twice, or more
            tokens were generated than the rounds and prefills can have committed.
    """
    width = max((len(sample.histogram) for sample in samples), default=0)
    histograms = np.zeros((len(samples), max(width, 1)), dtype=np.int64)
    for row, sample in zip(histograms, samples, strict=True):
        row[: len(sample.histogram)] = sample.histogram
        if sum(sample.histogram) != sample.rounds:
            raise ValueError(
                f"question {sample.question_id}: the histogram sums to {sum(sample.histogram)}, not to the "
                f"{sample.rounds} rounds"
            )
        if min(sample.histogram, default=0) < 0 or sample.generated_tokens < 0:
            raise ValueError(f"question {sample.question_id}: a count is negative")
        accepted = sum(depth * rounds for depth, rounds in enumerate(sample.histogram))
        most = sample.rounds + accepted + sample.turns
        if sample.rounds and sample.generated_tokens > most:
            raise ValueError(
                f"question {sample.question_id}: {sample.generated_tokens} tokens were generated, but rounds and "
                f"prefills committed {most} at most"
            )
    ids = tuple(sample.question_id for sample in samples)
    if len(set(ids)) < len(ids):
        raise ValueError("a question occurs twice")
    return Counts(ids, histograms, np.array([sample.generated_tokens for sample in samples], dtype=np.int64))


def acceptance_lengths(counts: Counts) -> Floats:
    """[n]: mean accepted drafts per round + 1 of each question; NaN for a question without rounds."""
    return ratio(counts.accepted, counts.rounds) + 1


def al_macro(counts: Counts) -> float:
    """Mean of `acceptance_lengths` over the questions that have rounds; NaN if none has."""
    lengths = acceptance_lengths(counts)
    return float(ratio(np.nansum(lengths), np.count_nonzero(~np.isnan(lengths))))


def al_micro(counts: Counts) -> float:
    """Generated tokens / rounds over the questions that have rounds; NaN if none has."""
    used = counts.rounds > 0
    return float(ratio(counts.generated[used].sum(), counts.rounds.sum()))


def without_rounds(counts: Counts) -> int:
    """Questions that ended before a first round (or were decoded without drafts): no acceptance length counts them."""
    return int(np.count_nonzero(counts.rounds == 0))


def conditional_acceptance(histograms: NDArray[np.generic], positions: int) -> Floats:
    """The chance that draft position i is accepted, given that positions 1 .. i - 1 were.

    rate_i = C_i / C_(i-1) with C_i the rounds in which at least i drafts were accepted (the paper's definition).

    Args:
        histograms: [..., deepest + 1], pooled as wanted.
        positions: rates returned.

    Returns:
        [..., positions]; NaN where no round accepted position i - 1.
    """
    histograms = np.asarray(histograms, dtype=np.float64)
    reached = np.zeros((*histograms.shape[:-1], positions + 1))
    tail = np.flip(np.cumsum(np.flip(histograms, axis=-1), axis=-1), axis=-1)[..., : positions + 1]
    reached[..., : tail.shape[-1]] = tail
    return ratio(reached[..., 1:], reached[..., :-1])


def ratio(numerator: object, denominator: object) -> Floats:
    """Quotient, NaN where the denominator is 0."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
