"""Confidence intervals: a percentile bootstrap over questions.

What varies from one reader's benchmark to another's is the questions, so questions are resampled, within each benchmark
where a mean over several is drawn. The resamples are a fixed function of the benchmark and the number of questions:
two drafters that answered the same questions get the same resamples, so the difference of their replicates is a paired
comparison, and a figure drawn twice shows the same bars.

A resample is written as how often it contains each question [replicates, n]; a mean over it is then a matrix product.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
from numpy.typing import NDArray

from prism_ae.analysis.acceptance import Counts, Floats, conditional_acceptance, ratio
from prism_ae.analysis.speed import Times, Totals, totals

REPLICATES = 2000
CONFIDENCE = 0.95
SEED = 20260201
"""Any number will do; it is fixed so that the same data always give the same interval."""


@functools.lru_cache(maxsize=256)
def resamples(questions: int, benchmark: str) -> Floats:
    """[REPLICATES, questions]: how often each question is in each resample; rows sum to ``questions``. Read-only."""
    generator = np.random.default_rng([SEED, zlib.crc32(benchmark.encode()), questions])
    counts = generator.multinomial(questions, np.full(questions, 1 / questions), size=REPLICATES).astype(np.float64)
    counts.flags.writeable = False
    return counts


def mean_replicates(values: Floats, benchmark: str) -> Floats:
    """[REPLICATES]: the mean of ``values`` [n] over each resample of the questions.

    A NaN value (a question without rounds) is left out of its resamples' means; a resample of nothing else is NaN.
    """
    weights, known = resamples(len(values), benchmark), ~np.isnan(values)
    numbers = weights @ known.astype(np.float64)
    sums = weights @ np.where(known, values, 0.0)
    return np.divide(sums, numbers, out=np.full_like(sums, np.nan), where=numbers > 0)


def rate_replicates(histograms: NDArray[np.int64], positions: int, benchmark: str) -> Floats:
    """[REPLICATES, positions]: conditional acceptance pooled over each resample; ``histograms`` is [n, deepest + 1]."""
    return conditional_acceptance(resamples(len(histograms), benchmark) @ histograms, positions)


def micro_replicates(counts: Counts, benchmark: str) -> Floats:
    """[REPLICATES]: AL micro, generated tokens / rounds, of each resample; NaN for one without rounds."""
    weights = resamples(len(counts.question_ids), benchmark)
    return ratio(weights @ np.where(counts.rounds > 0, counts.generated, 0), weights @ counts.rounds)


def total_replicates(times: Times, benchmark: str) -> Totals:
    """The sums of a timed cell over each resample of its questions, [REPLICATES] each.

    The intervals that follow say how the questions vary, not how a repeated measurement would.
    """
    return totals(times, resamples(len(times.question_ids), benchmark))


def interval(replicates: Floats, questions: int) -> tuple[float, float] | None:
    """The central 95 % of the replicates.

    Replicates in which the quantity is undefined are left out. None where an interval would mean nothing: fewer than
    two questions to resample (they always give a width of 0), or more than half of the replicates undefined.
    """
    defined = replicates[~np.isnan(replicates)]
    if questions < 2 or 2 * len(defined) < len(replicates):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
