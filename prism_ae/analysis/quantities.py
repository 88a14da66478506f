"""What is measured, each quantity with its formula: acceptance lengths and rates, speeds. The only place of both.

A round drafts, verifies and commits. ``histogram[i]`` counts the rounds in which i drafts were accepted; each round
also commits one token of the target's own. Two definitions of acceptance length (AL) are in use, and they differ:

    AL macro   mean over questions of (mean accepted drafts per round + 1): the paper's figures (torch evaluation)
    AL micro   generated tokens / rounds, all questions together: the paper's tables (serving client); the numerator
               includes the token of the prefill and leaves out what was accepted after an end token

Time is measured with ``batch`` requests decoded side by side. The first token of every turn comes out of its prefill,
so only generated - turns tokens are made while decoding. Every formula takes `Sums` over questions. Over several
benchmarks, acceptance and TPS are means of the benchmarks' values, and the speed-up is the mean TPS over vanilla's mean
TPS (the paper's definition); what comes from rounds and decode seconds is of the sums over the benchmarks, so that
decode speed-up = tokens per round / round cost holds there, too.

What is undefined (no rounds, no seconds, a position that no draft reached) is NaN, never an exception and never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from prism_ae.cells import STAGES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

READS: Final = ("bytes", "readable_bytes", "parameters", "active_parameters", "target_parameters")
"""What a round (of vanilla decoding: a step) is held against, in the order of `Sums.reads`: bytes that it reads of
memory, bytes that the device could have read meanwhile; parameters of what drafts (of vanilla decoding: of the target),
those that a draft step runs, and the target's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the questions of one cell, or of several of the same batch: numbers, or arrays [r] of r selections.

    Attributes:
        lengths: acceptance lengths of the questions that have rounds, ``answered`` of them.
        answered_tokens: generated tokens of those.
        histogram: [..., steps + 1], rounds by accepted drafts.
        turns: answers that were begun.
        decode_tokens: generated tokens after the first of each turn.
        prefill_seconds: from sending a turn to its first token, decode_seconds: from there to its last; summed over
            requests.
        stage_seconds: [..., stages], of `cells.STAGES`, summed over requests; NaN where they were not measured.
        wall: seconds of the whole run, prefill, queueing and the run's tail included.
        reads: [..., 5], by `READS`, summed over rounds, of vanilla decoding over steps; NaN where not recorded.
    """

    lengths: Floats
    answered: Floats
    answered_tokens: Floats
    histogram: Floats
    rounds: Floats
    generated: Floats
    turns: Floats
    decode_tokens: Floats
    prefill_seconds: Floats
    decode_seconds: Floats
    stage_seconds: Floats
    wall: Floats
    batch: int
    reads: Floats = dataclasses.field(default_factory=lambda: np.full(len(READS), np.nan))

    def __add__(self, other: Sums) -> Sums:
        """Of both together; raises ValueError for other batches, whose seconds do not add up."""
        if self.batch != other.batch:
            raise ValueError(f"seconds at batch {self.batch} and at batch {other.batch} do not add up")
        names = [field.name for field in dataclasses.fields(self) if field.name != "batch"]
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        return dataclasses.replace(self, **both)

    @classmethod
    def stacked(cls, several: Sequence[Sums]) -> Sums:
        """The sums of several selections [r]; all are of the same batch."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "batch"]
        return cls(
            **{name: np.array([getattr(one, name) for one in several]) for name in names}, batch=several[0].batch
        )


Value = Callable[["Quantity"], Floats]
"""The value of a quantity for one method."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something that is measured of a method.

    Attributes:
        label: heads a column; ``unit`` is "" for a ratio; ``form`` prints a value.
        formula: from one cell's sums, or from several cells' where it is ``pooled``; else several cells' values are
            averaged. None where it is ``over_vanilla``.
        over_vanilla: from the values of a method and of vanilla decoding.
        of: which methods have it.
        timed: whether it is made of seconds.
    """

    name: str
    label: str
    unit: str
    form: str
    formula: Callable[[Sums], Floats] | None = None
    pooled: bool = False
    over_vanilla: Callable[[Value, Value], Floats] | None = None
    of: Literal["drafters", "vanilla", "all"] = "all"
    timed: bool = True

    def applies(self, *, vanilla: bool) -> bool:
        """Whether vanilla decoding, or speculative decoding, has it."""
        return self.of == "all" or (self.of == "vanilla") == vanilla


def ratio(numerator: object, denominator: object) -> Floats:
    """Quotient, NaN where the denominator is 0."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def rounds_or_steps(sums: Sums) -> Floats:
    """Rounds; of vanilla decoding, which has none, steps: each makes one token."""
    return np.where(sums.rounds > 0, sums.rounds, sums.decode_tokens)


def acceptance_lengths(histograms: Ints) -> Floats:
    """[n]: mean accepted drafts per round + 1 of each question, from [n, deepest + 1]; NaN without rounds."""
    return ratio(histograms @ np.arange(histograms.shape[1]), histograms.sum(axis=1)) + 1


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


def acceptance_rate(position: int) -> Quantity:
    """`conditional_acceptance` of the draft position, counted from 1."""

    def rate(sums: Sums) -> Floats:
        return conditional_acceptance(sums.histogram, position)[..., position - 1]

    return Quantity("acceptance_rate", "Acceptance rate", "", "{:.3f}", rate, of="drafters", timed=False)


AL_MACRO = Quantity(
    "al_macro", "AL", "tokens", "{:.2f}", lambda sums: ratio(sums.lengths, sums.answered), of="drafters", timed=False
)
AL_MICRO = Quantity(
    "al_micro", "AL", "tokens", "{:.2f}", lambda sums: ratio(sums.answered_tokens, sums.rounds), of="drafters",
    timed=False,
)  # fmt: skip
TPS = Quantity("tps", "TPS", "tokens/s", "{:,.1f}", lambda sums: ratio(sums.generated, sums.wall))
DECODE_TPS = Quantity(
    "decode_tps", "Decode TPS", "tokens/s", "{:,.1f}",
    lambda sums: ratio(sums.batch * sums.decode_tokens, sums.decode_seconds), pooled=True,
)  # fmt: skip
"""Each request makes decode tokens / decode seconds, and ``batch`` of them do so side by side."""
TOKENS_PER_ROUND = Quantity(
    "tokens_per_round", "Tokens per round", "tokens", "{:.2f}",
    lambda sums: ratio(sums.decode_tokens, sums.rounds), pooled=True, of="drafters", timed=False,
)  # fmt: skip
ROUND_SECONDS = Quantity(
    "round_seconds", "Round", "s", "{:.4f}",
    lambda sums: ratio(sums.decode_seconds, sums.rounds), pooled=True, of="drafters",
)  # fmt: skip
"""As one request sees a round."""
STEP_SECONDS = Quantity(
    "step_seconds", "Step", "s", "{:.4f}",
    lambda sums: ratio(sums.decode_seconds, sums.decode_tokens), pooled=True, of="vanilla",
)  # fmt: skip
"""A step of vanilla decoding makes one token."""


def _round_cost(own: Value, vanilla: Value) -> Floats:
    return ratio(own(ROUND_SECONDS), vanilla(STEP_SECONDS))


SPEED_UP = Quantity(
    "speed_up", "Speed-up", "", "{:.2f}×", over_vanilla=lambda own, vanilla: ratio(own(TPS), vanilla(TPS))
)
ROUND_COST = Quantity("round_cost", "Round cost", "steps", "{:.2f}", over_vanilla=_round_cost, of="drafters")
"""A round's seconds in steps of vanilla decoding."""
DECODE_SPEED_UP = Quantity(
    "decode_speed_up", "Decode", "", "{:.2f}×", of="drafters",
    over_vanilla=lambda own, vanilla: ratio(own(TOKENS_PER_ROUND), _round_cost(own, vanilla)),
)  # fmt: skip
"""Without prefills and idle places; for one batch size that is decode TPS / decode TPS of vanilla."""
VANILLA_DECODE_SPEED_UP = dataclasses.replace(
    DECODE_SPEED_UP, of="vanilla", over_vanilla=lambda own, vanilla: ratio(own(DECODE_TPS), vanilla(DECODE_TPS))
)


FIRST_TOKEN_SECONDS = Quantity(
    "first_token_seconds",
    "First token",
    "s",
    "{:.4f}",
    lambda sums: ratio(sums.prefill_seconds, sums.turns),
    pooled=True,
)
"""From sending a turn to its first token, waiting included."""
OCCUPANCY = Quantity(
    "occupancy", "Occupancy", "", "{:.2f}",
    lambda sums: ratio(sums.prefill_seconds + sums.decode_seconds, sums.batch * sums.wall), pooled=True,
)  # fmt: skip
"""Places of the batch that were taken, in the mean over the run: the batch that was really measured, in parts of the
nominal one. A run's last answers leave places empty."""


def _read(name: str) -> Callable[[Sums], Floats]:
    """Per round, of vanilla decoding per step; parameters are the same in all of them."""

    def formula(sums: Sums) -> Floats:
        return ratio(sums.reads[..., READS.index(name)], rounds_or_steps(sums))

    return formula


PARAMETERS = Quantity("parameters", "Parameters", "", "{:,.0f}", _read("parameters"))
ACTIVE_PARAMETERS = Quantity("active_parameters", "Active parameters", "", "{:,.0f}", _read("active_parameters"))
PARAMETER_SHARE = Quantity(
    "parameter_share", "Parameters / target's", "", "{:.4f}",
    lambda sums: ratio(_read("parameters")(sums), _read("target_parameters")(sums)), of="drafters",
)  # fmt: skip
READ_BYTES = Quantity("read_bytes", "Read", "bytes", "{:,.0f}", _read("bytes"), pooled=True)
"""Of memory, in a round, all sequences of the batch together."""
MBU = Quantity(
    "mbu", "MBU", "", "{:.2f}", lambda sums: ratio(_read("bytes")(sums), _read("readable_bytes")(sums)), pooled=True
)
"""Memory bandwidth utilisation: bytes read per second / those that the device can read."""
PREDICTED_SPEED_UP = Quantity(
    "predicted_speed_up", "Predicted", "", "{:.2f}×", of="drafters",
    over_vanilla=lambda own, vanilla: ratio(own(TOKENS_PER_ROUND), ratio(own(READ_BYTES), vanilla(READ_BYTES))),
)  # fmt: skip
"""The decode speed-up if time were bytes: tokens per round / (bytes of a round / bytes of a vanilla step)."""


def _stage_seconds(stage: str) -> Quantity:
    """Of a round, of vanilla decoding of a step."""

    def formula(sums: Sums) -> Floats:
        return ratio(sums.stage_seconds[..., STAGES.index(stage)], rounds_or_steps(sums))

    return Quantity(f"{stage}_seconds", stage.capitalize(), "s", "{:.4f}", formula, pooled=True)


DRAFT_STEP_SECONDS = Quantity(
    "draft_step_seconds", "Draft step", "s", "{:.4f}",
    lambda sums: ratio(sums.stage_seconds[..., 0], sums.rounds * (sums.histogram.shape[-1] - 1)),
    pooled=True, of="drafters",
)  # fmt: skip
STAGE_SECONDS = (*map(_stage_seconds, STAGES), DRAFT_STEP_SECONDS)

ACCEPTANCE = (AL_MACRO, AL_MICRO)
SPEED = (
    AL_MACRO, AL_MICRO, TPS, DECODE_TPS, TOKENS_PER_ROUND, ROUND_SECONDS, STEP_SECONDS,
    *STAGE_SECONDS, FIRST_TOKEN_SECONDS, OCCUPANCY, SPEED_UP, ROUND_COST, DECODE_SPEED_UP, VANILLA_DECODE_SPEED_UP,
)  # fmt: skip
LIMIT = (PARAMETERS, ACTIVE_PARAMETERS, PARAMETER_SHARE, READ_BYTES, MBU, PREDICTED_SPEED_UP)
"""How far from the memory's limit: of cells whose settings have sizes and bandwidth (`analysis.reads`)."""
QUANTITIES = {quantity.name: quantity for quantity in (*SPEED[:-1], acceptance_rate(1))}
