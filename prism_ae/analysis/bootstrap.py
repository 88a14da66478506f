"""Confidence intervals: a percentile bootstrap over questions.

What varies from one reader's benchmark to another's is the questions, so questions are resampled, within each benchmark
where a mean over several is drawn. The resamples are a fixed function of the benchmark and the number of questions:
two drafters that answered the same questions get the same resamples, so the difference of their replicates is a paired
comparison, and a figure drawn twice shows the same bars. Intervals say how questions vary, not how a repeated
measurement would.

A resample is written as how often it contains each question [replicates, n]; a mean over it is then a matrix product.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np

from prism_ae.analysis.quantities import Floats

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
