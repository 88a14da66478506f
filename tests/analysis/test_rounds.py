"""Views of single rounds against brute force over the lists, and the two counts that compare with other programs."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measurements import sample

from prism_ae.analysis.rounds import (
    COLUMNS,
    acceptance,
    as_authors_count,
    bin_labels,
    overshoot,
    rounds_behind_the_end,
    rounds_table,
)
from prism_ae.cells import Sample, committed_tokens

STEPS = 4
CATEGORIES = {"qa/0": "writing", "qa/1": "maths", "sum/1": "writing"}
PLACES, PROMPTS = (1, 3, 7), (0, 10, 40)


def listed(name: str, turns: list[tuple[list[int], int]], stops: list[str], prompt: int = 9) -> Sample:
    """A question of these rounds per turn, of whose committed tokens so many lie behind the answer's end."""
    counts = Counter(drafts for rounds, _ in turns for drafts in rounds)
    tokens = [committed_tokens(rounds) - min(cut, rounds[-1] if rounds else 0) for rounds, cut in turns]
    return Sample(
        question_id=name,
        turns=len(turns),
        prompt_tokens=prompt,
        generated_tokens=sum(tokens),
        histogram=tuple(counts[drafts] for drafts in range(STEPS + 1)),
        stops=tuple(stops),
        prefill_seconds=0.1,
        decode_seconds=0.2,
        output_sha256="0",
        accepted=tuple(tuple(rounds) for rounds, _ in turns),
        turn_tokens=tuple(tokens),
    )


@st.composite
def answered(draw: st.DrawFn) -> dict[str, list[Sample]]:
    turn = st.tuples(st.lists(st.integers(0, STEPS), max_size=9), st.integers(0, STEPS))
    made: dict[str, list[Sample]] = {}
    for benchmark in ("qa", "sum"):
        made[benchmark] = []
        for number in range(draw(st.integers(0, 3))):
            turns = draw(st.lists(turn, min_size=1, max_size=2))
            stops = draw(st.lists(st.sampled_from(["end", "length"]), min_size=len(turns), max_size=len(turns)))
            made[benchmark].append(listed(f"{benchmark}/{number}", turns, stops, draw(st.integers(0, 90))))
    return made


def label(value: int, starts: tuple[int, ...]) -> str:
    ends = [*(str(after - 1) for after in starts[1:]), ""]
    for start, end in zip(reversed(starts), reversed(ends), strict=True):
        if value >= start:
            return f"{start}+" if not end else str(start) if end == str(start) else f"{start}-{end}"
    raise AssertionError


def brute_force(samples: dict[str, list[Sample]], view: str) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Rounds, reached and accepted by group and position, round by round."""
    found: dict[tuple[str, int], list[int]] = {}
    for benchmark, some in samples.items():
        for one in some:
            for turn in one.accepted:
                for number, drafts in enumerate(turn, start=1):
                    group = {
                        "all": "",
                        "benchmark": benchmark,
                        "place": label(number, PLACES),
                        "prompt": label(one.prompt_tokens, PROMPTS),
                        "category": CATEGORIES.get(one.question_id),
                    }[view]
                    for position in range(1, STEPS + 1) if group is not None else ():
                        counts = found.setdefault((group, position), [0, 0, 0])
                        counts[0] += 1
                        counts[1] += drafts >= position - 1
                        counts[2] += drafts >= position
    return {key: (counts[0], counts[1], counts[2]) for key, counts in found.items()}


@pytest.mark.parametrize("view", ["all", "benchmark", "place", "prompt", "category"])
@settings(deadline=None)
@given(samples=answered())
def test_every_view_counts_what_the_lists_say(view: str, samples: dict[str, list[Sample]]) -> None:
    assert not any(one.problem() for some in samples.values() for one in some)
    table = rounds_table(samples, CATEGORIES, places=PLACES, prompt_lengths=PROMPTS)
    assert list(table) == list(COLUMNS)
    assert len(table) == sum(one.rounds for some in samples.values() for one in some)
    rates = acceptance(table, STEPS, [] if view == "all" else [view])
    expected = brute_force(samples, view)
    got = {}
    for row in rates.to_dict("records"):
        key = "" if view == "all" else row[view]
        got[key, row["position"]] = (row["rounds"], row["reached"], row["accepted"])
        if row["reached"]:
            assert row["rate"] == row["accepted"] / row["reached"]
        else:
            assert math.isnan(row["rate"])
    assert {key: counts for key, counts in got.items() if counts[0]} == expected


def test_groups_of_two_columns_are_their_product() -> None:
    samples = {"qa": [listed("qa/0", [([4, 0, 2], 0)], ["length"])], "sum": [listed("sum/1", [([1], 0)], ["length"])]}
    rates = acceptance(rounds_table(samples, CATEGORIES), STEPS, ["benchmark", "place"])
    assert list(rates[["benchmark", "place"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("qa", "1"),
        ("qa", "2-4"),
        ("sum", "1"),
    ]
    assert rates["rate"].iloc[:4].tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="4 drafts, in a draft tree of 3 steps"):
        acceptance(rounds_table(samples), 3)


def test_bins_are_named_by_their_ends() -> None:
    assert bin_labels((1, 2, 5, 100)) == ["1", "2-4", "5-99", "100+"]
    with pytest.raises(ValueError, match="9 lies below the first bin, which begins at 10"):
        rounds_table({"qa": [listed("qa/0", [([1], 0)], ["end"])]}, prompt_lengths=(10, 20))


def test_rounds_that_are_not_listed_are_not_made_up() -> None:
    old = sample("qa/7", [1, 0, 2])
    with pytest.raises(ValueError, match="qa/7 does not list its rounds"):
        rounds_table({"qa": [old]})
    assert as_authors_count(old) is None
    assert rounds_behind_the_end(old) is None


@pytest.mark.parametrize(
    ("turns", "stops", "behind"),
    [
        ([([2, 1], 0)], ["end"], 1),  # the end token is the bonus token
        ([([2, 1], 1)], ["end"], 0),  # it was a draft
        ([([2, 1], 0)], ["length"], 0),
        ([([], 0)], ["end"], 1),  # the very first token
        ([([0], 0), ([3], 1), ([], 0)], ["end", "end", "end"], 2),
    ],
)
def test_the_authors_run_one_round_behind_an_end_that_was_no_draft(
    turns: list[tuple[list[int], int]], stops: list[str], behind: int
) -> None:
    made = listed("qa/0", turns, stops)
    assert rounds_behind_the_end(made) == behind
    counted = as_authors_count(made)
    assert counted == (made.histogram[0] + behind, *made.histogram[1:])


def authors_loop(tokens: list[int], sizes: list[int], end: int) -> list[int]:
    """Drafts accepted per round by a loop that stops when the end token was committed before the round's last token:
    the next round's root is that last token. ``tokens`` are the target's, without end."""
    accepted, place = [], 1
    for size in sizes:
        accepted.append(size)
        place += size + 1
        if end in tokens[: place - 1]:
            break
    return accepted


@settings(deadline=None)
@given(st.lists(st.integers(0, STEPS), min_size=40, max_size=40), st.integers(0, 30))
def test_the_authors_loop_written_out_counts_the_same(sizes: list[int], end_place: int) -> None:
    """Where the round behind the end accepts nothing."""
    tokens = [0] * end_place + [1] + [0] * 300
    ours: list[int] = []
    while committed_tokens(ours) <= end_place:
        ours.append(sizes[len(ours)])
    made = listed("qa/0", [(ours, committed_tokens(ours) - end_place - 1)], ["end"])
    assert (made.problem(), made.generated_tokens) == ("", end_place + 1)
    theirs = Counter(authors_loop(tokens, [*ours, 0, 0], 1))
    assert as_authors_count(made) == tuple(theirs[drafts] for drafts in range(STEPS + 1))


@settings(deadline=None)
@given(answered())
def test_overshoot_is_what_lies_behind_the_end(samples: dict[str, list[Sample]]) -> None:
    for one in (one for some in samples.values() for one in some):
        expected = sum(
            committed_tokens(turn) - tokens for turn, tokens in zip(one.accepted, one.turn_tokens, strict=True)
        )
        assert overshoot(one) == expected


def test_overshoot_needs_no_lists() -> None:
    changes: dict[str, Any] = {"stops": ("end",)}
    assert overshoot(sample("qa/1", [3, 0, 2], cut=2, **changes)) == 2
    assert overshoot(sample("qa/1", generated_tokens=30)) == 0  # vanilla
    # A second turn whose prompt fills the window commits nothing.
    assert overshoot(listed("qa/0", [([2, 1], 1)], ["end"])) == 1
    full = sample("qa/1", [2], turns=2, stops=("length", "window"), accepted=((2,), ()), turn_tokens=(4, 0))
    assert (overshoot(full), full.problem()) == (0, "")
