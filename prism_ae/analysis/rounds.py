"""Where drafts are accepted: rates over single rounds, from samples that list the rounds of each turn in their order.

A histogram says how many rounds accepted i drafts; the lists say which. So acceptance can be looked at by place in the
answer, by benchmark, by length of the prompt or by category of the question:

    rounds = rounds_table({"mt_bench": samples}, {"mt_bench/81": "writing"})
    acceptance(rounds, steps=6, by=["place"])

Rounds are pooled: a long answer has more of them than a short one, and late places come from long answers alone. An
interval needs the questions, which the table names.

Two counts compare with other programs: `as_authors_count` and `overshoot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prism_ae.analysis.quantities import Ints, ratio
from prism_ae.cells import Sample, committed_tokens

if TYPE_CHECKING:
    import pandas as pd

PLACES = (1, 2, 5, 10, 20, 50, 100)
"""The first round of each bin of places in a turn."""

PROMPT_LENGTHS = (0, 64, 128, 256, 512, 1024, 2048)
"""The fewest prompt tokens of each bin."""

COLUMNS = ("benchmark", "question_id", "category", "prompt_tokens", "prompt", "turn", "round", "place", "accepted")


def rounds_table(
    samples: Mapping[str, Sequence[Sample]],
    categories: Mapping[str, str] | None = None,
    *,
    places: Sequence[int] = PLACES,
    prompt_lengths: Sequence[int] = PROMPT_LENGTHS,
) -> pd.DataFrame:
    """A tidy table, one row per round of one drafter.

    Args:
        samples: of each benchmark.
        categories: of questions, by `Sample.question_id`; missing where a question has none.
        places, prompt_lengths: where bins begin, ascending.

    Returns:
        ``benchmark``, ``question_id``, ``category``; ``prompt_tokens`` of all turns of the question and their bin
        ``prompt``; ``turn`` and ``round`` in the turn, from 1, and the round's bin ``place``; ``accepted`` drafts. Bins
        are ordered categories such as "5-9" and "100+".

    Raises:
        ValueError: a sample has rounds and does not list them, or lies below the first bin.
    """
    import pandas as pd

    rows = []
    for benchmark, answered in samples.items():
        for sample in answered:
            if sample.rounds and not sample.accepted:
                raise ValueError(f"question {sample.question_id} does not list its rounds: an earlier version wrote it")
            category = (categories or {}).get(sample.question_id)
            own = (benchmark, sample.question_id, category, sample.prompt_tokens)
            for turn, accepted in enumerate(sample.accepted, start=1):
                rows += [(*own, turn, number, drafts) for number, drafts in enumerate(accepted, start=1)]
    named = [name for name in COLUMNS if name not in ("prompt", "place")]
    table = pd.DataFrame(rows, columns=named)
    for bins, column, starts in (("prompt", "prompt_tokens", prompt_lengths), ("place", "round", places)):
        labels, numbers = bin_labels(starts), bin_numbers(table[column].to_numpy(dtype=np.int64), starts)
        table[bins] = pd.Categorical([labels[number] for number in numbers], labels, ordered=True)
    return table[list(COLUMNS)]


def bin_numbers(values: Ints, starts: Sequence[int]) -> Ints:
    """Bin of each value [n], from 0: the last whose start it reaches. Raises ValueError below the first start."""
    if len(values) and values.min() < starts[0]:
        raise ValueError(f"{values.min()} lies below the first bin, which begins at {starts[0]}")
    return np.searchsorted(np.asarray(starts), values, side="right") - 1


def bin_labels(starts: Sequence[int]) -> list[str]:
    """A label per bin, as in "1", "2-4" and "5+"."""
    ends = [after - 1 for after in starts[1:]]
    closed = [str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=False)]
    return [*closed, f"{starts[-1]}+"]


def acceptance(rounds: pd.DataFrame, steps: int, by: Sequence[str] = ()) -> pd.DataFrame:
    """Conditional acceptance by draft position, in all rounds or in each group of them.

    Args:
        rounds: from `rounds_table`.
        steps: of the draft tree: positions 1 to ``steps``.
        by: columns whose values make the groups; rounds without a value (no category) are in none.

    Returns:
        One row per group that occurs and position: ``by``, ``position``, ``rounds`` of the group, ``reached``
        (of these, rounds that accepted every position before), ``accepted`` (that accepted this one too), ``rate``:
        their ratio, NaN where none reached it.

    Raises:
        ValueError: a round accepted more drafts than ``steps``.
    """
    import pandas as pd

    groups: Iterable[tuple[Any, pd.DataFrame]] = [((), rounds)]
    if by:
        groups = rounds.groupby(list(by), observed=True, sort=True)
    parts = []
    for key, group in groups:
        counts = np.bincount(group["accepted"].to_numpy(dtype=np.int64), minlength=steps + 1)
        if len(counts) > steps + 1:
            raise ValueError(f"a round accepted {len(counts) - 1} drafts, in a draft tree of {steps} steps")
        tail = np.cumsum(counts[::-1])[::-1]
        part = pd.DataFrame({"position": np.arange(1, steps + 1), "rounds": len(group)})
        part["reached"], part["accepted"] = tail[:-1], tail[1:]
        part["rate"] = ratio(tail[1:], tail[:-1])
        for column, value in zip(by, key, strict=True):
            part[column] = value
        parts.append(part)
    columns = [*by, "position", "rounds", "reached", "accepted", "rate"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def rounds_behind_the_end(sample: Sample) -> int | None:
    """Turns that the end token ended as the last token that was committed: a bonus token, or the prefill's.

    The authors' loop looks for the end token among the committed tokens without the bonus token, so it runs one round
    more in such a turn. None where the rounds are not listed.
    """
    if not sample.accepted:
        return None
    turns = zip(sample.accepted, sample.turn_tokens, sample.stops, strict=False)
    return sum(stop == "end" and tokens == committed_tokens(turn) for turn, tokens, stop in turns)


def as_authors_count(sample: Sample) -> tuple[int, ...] | None:
    """The histogram as the authors' evaluation counts: with one round that accepts nothing per round behind the end.

    There such a round drafts from the end token on. It may accept a draft; 412 of 417 accepted none in the mini suite.
    None where the rounds are not listed. Results of the source ``artifact`` have these rounds already.
    """
    behind = rounds_behind_the_end(sample)
    return None if behind is None else (sample.histogram[0] + behind, *sample.histogram[1:])


def overshoot(sample: Sample) -> int:
    """Tokens that were committed behind the end of the answers, which nobody receives: 0 without rounds.

    Of the source ``artifact`` it is not defined: its generated tokens count them.
    """
    if not sample.rounds:
        return 0
    # A prompt that fills the window is never read, and commits nothing.
    begun = sum(tokens > 0 for tokens in sample.turn_tokens) if sample.turn_tokens else sample.turns
    committed = begun + sum((drafts + 1) * rounds for drafts, rounds in enumerate(sample.histogram))
    return committed - sample.generated_tokens
