"""Times measured several times: what a cell's seconds are, what intervals are over, which are unstable; by hand, and by
simulated machines."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from measurements import make_point, measured, sample

from prism_ae.analysis.claims import (
    CANNOT_TELL,
    INCOMPLETE,
    REPRODUCED,
    Claim,
    ClaimPart,
    Group,
    Line,
    contrasts,
    judge,
)
from prism_ae.analysis.estimates import STABLE, Estimate, Summary, combine, stable, summarise
from prism_ae.analysis.quantities import QUANTITIES, SPEED
from prism_ae.analysis.results import CellResult, Measured, results_of
from prism_ae.cells import Point, Sample
from prism_ae.errors import StoreError

TPS, ROUND = QUANTITIES["tps"], QUANTITIES["round_seconds"]
STAGES = (0.01, 0.02, 0.003, 0.004)


def question(number: int, rounds: Sequence[int], longer: float = 1.0) -> Sample:
    """A question whose prefill took 0.05 s, and each round 0.04 s."""
    seconds = 0.04 * len(rounds) * longer
    stages = tuple(each * len(rounds) * longer for each in STAGES)
    times = {"prefill_seconds": 0.05 * longer, "decode_seconds": seconds, "stage_seconds": stages}
    return sample(f"q{number}", rounds, **times)


ROUNDS = [[3, 1, 2], [0, 4], [2, 2, 2, 5], [1], [6, 0, 3]]


def cell_of(factors: Sequence[float | list[float]], asked: int | None = None, again: int = 2) -> CellResult:
    """A cell whose further measurements, of the first ``again`` questions, took so many times as long (each, or a
    question each)."""
    first = make_point(questions=len(ROUNDS), batch=1)
    points = {first: measured([question(n, rounds) for n, rounds in enumerate(ROUNDS)], wall=1.0)}
    every = [first]
    for repeat in range(1, 1 + (len(factors) if asked is None else asked)):
        point = dataclasses.replace(first, repeat=repeat, questions=again)
        every.append(point)
        if repeat <= len(factors):
            longer = np.broadcast_to(factors[repeat - 1], again).tolist()
            samples = [question(n, rounds, longer[n]) for n, rounds in enumerate(ROUNDS[:again])]
            points[point] = measured(samples, wall=0.3, cell_id=str(repeat))
    return results_of(every, points).cells[first]


def test_a_question_takes_the_least_seconds_of_its_measurements_and_the_others_their_pace() -> None:
    cell = cell_of([0.9, [0.95, 0.8]])
    plain = dataclasses.replace(cell, repeats=())
    seconds = [0.04 * len(rounds) for rounds in ROUNDS]
    expected = [0.9 * seconds[0], 0.8 * seconds[1]]
    pace = sum(expected) / sum(map(len, ROUNDS[:2]))
    expected += [pace * len(rounds) for rounds in ROUNDS[2:]]
    assert cell.least().decode == pytest.approx(expected)
    assert cell.least().stages[:, 1] == pytest.approx([each / 2 for each in expected])
    assert cell.least().prefill == pytest.approx([0.045, 0.04, *[0.0425] * 3])
    assert cell.total.decode_seconds == pytest.approx(sum(expected))
    served = sum(expected) + 0.045 + 0.04 + 3 * 0.0425
    assert cell.total.wall == pytest.approx(served / (sum(seconds) + 5 * 0.05))
    for name in ("lengths", "histogram", "rounds", "generated", "decode_tokens"):
        assert np.array_equal(getattr(cell.total, name), getattr(plain.total, name))
    assert ROUND.formula is not None
    assert float(ROUND.formula(cell.total)) == pytest.approx(0.04 * sum(expected) / sum(seconds))
    draft = QUANTITIES["draft_seconds"].formula
    assert draft is not None
    assert float(draft(cell.total)) == pytest.approx(0.01 * sum(expected) / sum(seconds))


def test_what_makes_work_longer_changes_nothing_where_it_met_each_question_once_less_than_it_was_measured() -> None:
    quiet, disturbed = cell_of([1.0, 1.0]), cell_of([[1.0, 1.7], [2.0, 1.0]])
    assert disturbed.total.decode_seconds == pytest.approx(quiet.total.decode_seconds)


def test_what_disturbs_an_answer_that_is_not_repeated_counts_for_nothing() -> None:
    cell = cell_of([1.0, 1.0])
    samples = list(cell.measured.samples)
    samples[3] = dataclasses.replace(samples[3], decode_seconds=9.0)
    first = make_point(questions=len(ROUNDS), batch=1)
    points = {first: measured(samples), **{one.point: one.measured for one in cell.repeats}}
    assert results_of([*points], points).cells[first].total.decode_seconds == pytest.approx(cell.total.decode_seconds)


def test_without_each_repeat_the_others_say_what_it_took() -> None:
    cell = cell_of([1.2, 0.9])
    expected = [each * 0.04 for each in (0.9, 0.9, 1.0)]
    assert ROUND.formula is not None
    assert list(ROUND.formula(cell.without_each_repeat(3))) == pytest.approx(expected)
    # Without the first: what it answered alone has the others' pace.
    slower = cell_of([1.2, 1.1])
    assert ROUND.formula(slower.without_each_repeat(3))[0] == pytest.approx(1.1 * 0.04)


def test_a_repeat_whose_rounds_differ_is_compared_by_the_round() -> None:
    """As in half precision, where a text may part in a tie."""
    first = make_point(questions=2, batch=1)
    again = dataclasses.replace(first, repeat=1)
    twice = [question(number, rounds * 2, 1.5) for number, rounds in enumerate(ROUNDS[:2])]
    results = {first: measured([question(n, rounds) for n, rounds in enumerate(ROUNDS[:2])]), again: measured(twice)}
    cell = results_of([first, again], results).cells[first]
    assert cell.spread == pytest.approx(0.5)
    assert cell.least(without=0).decode == pytest.approx(1.5 * cell.columns.decode)


def test_repeats_beyond_those_asked_for_count_where_their_cell_does() -> None:
    first = make_point(questions=2, batch=1)
    asked = [first, *(dataclasses.replace(first, repeat=number) for number in (1, 2))]
    beyond = dataclasses.replace(first, repeat=4)
    other = dataclasses.replace(first, benchmark="sum", repeat=3)
    longer = {asked[0]: 1.3, asked[1]: 1.2, asked[2]: 1.1, beyond: 1.0, other: 1.0}
    found = {
        point: measured([question(n, ROUNDS[n], factor) for n in range(2)], cell_id=str(point.repeat))
        for point, factor in longer.items()
    }
    results = results_of(asked, found)
    assert (results.points, results.asked, results.measured, results.missing) == ((first,), 4, 4, [])
    cell = results.cells[first]
    assert cell.cell_ids == ("0", "1", "2", "4")
    assert not cell.lacks_repeats
    assert cell.total.decode_seconds == pytest.approx(0.04 * 5)


def test_repeats_are_part_of_their_cell_and_no_point_of_their_own() -> None:
    first = make_point(questions=len(ROUNDS), batch=1)
    again = [dataclasses.replace(first, repeat=number, questions=2) for number in (1, 2)]
    samples = [question(number, rounds) for number, rounds in enumerate(ROUNDS)]
    results = results_of([first, *again], {first: measured(samples), again[0]: measured(samples[:2], cell_id="1")})
    assert results.points == (first,)
    assert (results.asked, results.measured, results.missing) == (3, 2, [again[1]])
    assert len(results.table().query("quantity == 'tps'")) == 2


def test_a_repeat_of_other_questions_is_refused() -> None:
    first = make_point(questions=2, batch=1)
    again = dataclasses.replace(first, repeat=1, questions=1)
    samples = [question(number, rounds) for number, rounds in enumerate(ROUNDS[:2])]
    with pytest.raises(StoreError, match="are not the first"):
        results_of([first, again], {first: measured(samples), again: measured(samples[1:])})


def test_the_spread_is_the_gate() -> None:
    assert cell_of([]).spread is None
    assert stable(cell_of([]))
    assert cell_of([1.01, 1.02]).spread == pytest.approx(0.01)
    # Each question hangs on another measurement: without the first repeat one takes 2 % longer, which is half of it.
    assert cell_of([[0.98, 1.0], [1.0, 0.98]]).spread == pytest.approx(0.02 * 3 / (0.98 * 5), rel=1e-6)
    assert stable(cell_of([1.02, 1.2]))
    assert stable(cell_of([1.0, 1.2]))
    assert not stable(cell_of([1.1, 1.2]))
    assert STABLE == 0.03


# --- Several methods, in blocks.

METHODS = {"vanilla": 0.01, "prism": 0.02, "hass": 0.022}
"""Seconds of a round."""
BENCHMARKS = ("qa", "sum", "gsm8k")


def machine(seed: int, repeats: int, *, block: float, own: float, missing: str = "") -> dict[Point, Measured]:
    """What a noisy machine measures: in each block everything takes longer by a factor of the block's, and each
    measurement by one of its own (standard deviations of their logarithms)."""
    draw = np.random.default_rng(seed)
    found: dict[Point, Measured] = {}
    for benchmark in BENCHMARKS:
        for repeat in range(repeats):
            common = math.exp(draw.normal(0, block))
            for drafter, seconds in METHODS.items():
                point = make_point(
                    drafter=drafter, benchmark=benchmark, batch=1, questions=2 if repeat else 6, repeat=repeat
                )
                longer = seconds * common * math.exp(draw.normal(0, own))
                samples = [_answer(number, drafter, longer) for number in range(point.questions)]
                wall = sum(each.decode_seconds for each in samples)
                if f"{drafter} {repeat}" != missing:
                    found[point] = measured(samples, wall, cell_id=f"{drafter}-{benchmark}-{repeat}")
    return found


def _answer(number: int, drafter: str, seconds: float) -> Sample:
    rounds = [] if drafter == "vanilla" else [3] * 10
    steps = 40 if drafter == "vanilla" else 10
    return sample(f"q{number}", rounds, generated_tokens=41, prefill_seconds=0.0, decode_seconds=seconds * steps)


def asked(repeats: int) -> list[Point]:
    return [*machine(0, repeats, block=0, own=0)]


def value(summaries: Sequence[Summary], drafter: str, quantity: str) -> Estimate | None:
    (one,) = (each for each in summaries if each.place.drafter == drafter)
    return one.values.get(quantity)


def estimate(found: Mapping[Point, Measured], drafter: str, quantity: str, repeats: int = 3) -> Estimate | None:
    return value(summarise(results_of(asked(repeats), found), SPEED, "mean"), drafter, quantity)


@pytest.mark.parametrize("repeats", [3, 5])
@pytest.mark.parametrize(("block", "own"), [(0.0, 0.02), (0.1, 0.02), (0.1, 0.0)])
def test_intervals_over_repeats_hold_the_truth(repeats: int, block: float, own: float) -> None:
    """The ratio of two methods, in 300 studies: what a block has in common cancels, what each measurement has of its
    own is in the interval."""
    inside, widths = 0, []
    for seed in range(300):
        found = machine(seed, repeats, block=block, own=own)
        summaries = summarise(results_of(asked(repeats), found), [ROUND], "mean")
        several = [value(summaries, name, "round_seconds") for name in ("prism", "hass")]
        ratio = combine(lambda values: float(values[0] / values[1]), [each for each in several if each])
        assert ratio.bounds is not None
        assert ratio.repeats == repeats
        inside += ratio.bounds[0] - 1e-12 <= 0.02 / 0.022 <= ratio.bounds[1] + 1e-12
        widths.append(ratio.bounds[1] - ratio.bounds[0])
    assert inside >= 0.93 * 300 - 3 * math.sqrt(300 * 0.05 * 0.95)
    # Of a block's factor of 10 % nothing is left in a ratio, where a measurement has no noise of its own.
    assert own or statistics.median(widths) < 1e-6


def test_a_speed_up_is_over_vanilla_in_the_same_blocks() -> None:
    found = machine(1, 3, block=0.2, own=0.0)
    speed_up = estimate(found, "prism", "speed_up")
    assert speed_up is not None
    assert speed_up.bounds is not None
    assert speed_up.value == pytest.approx(40 * 0.01 / (10 * 0.02))
    assert speed_up.bounds == pytest.approx((2.0, 2.0))


def test_a_ratio_of_what_was_repeated_unequally_often_is_over_all_measurements() -> None:
    found = machine(1, 5, block=0.0, own=0.05)
    fewer = {point: each for point, each in found.items() if point.drafter == "vanilla" or point.repeat < 3}
    several = {count: estimate(found if count == 5 else fewer, "prism", "speed_up") for count in (3, 5)}
    for speed_up in several.values():
        assert speed_up is not None
        assert speed_up.bounds is not None
        assert speed_up.bounds[0] < 2.0 < speed_up.bounds[1]
    # The measurements that PRISM lacks leave its seconds as they are.
    cells = results_of(asked(3), fewer).cells
    for point, cell in cells.items():
        sums = cell.without_each_repeat(5)
        assert list(sums.decode_seconds[3:]) == pytest.approx(
            [cell.total.decode_seconds] * 2 if point.drafter != "vanilla" else list(sums.decode_seconds[3:])
        )


def test_a_time_of_which_a_repeat_is_missing_is_missing_and_an_acceptance_length_is_not() -> None:
    found = machine(1, 3, block=0.0, own=0.01, missing="prism 2")
    assert estimate(found, "prism", "tps") is None
    assert estimate(found, "hass", "tps") is not None
    length = estimate(found, "prism", "al_micro")
    assert length is not None
    assert length.value == pytest.approx(4.1)
    assert length.repeats is None
    # So is what is over it.
    found = machine(1, 3, block=0.0, own=0.01, missing="vanilla 1")
    assert estimate(found, "prism", "speed_up") is None
    assert estimate(found, "prism", "tps") is not None


# --- Verdicts on times.

FASTER = Claim("X", "PRISM's rounds are shorter", parts=(ClaimPart("x", ("prism",), ("hass",), below=0.0),))


def verdict(found: Mapping[Point, Measured], repeats: int, doubt: str = "") -> tuple[str, str]:
    results = results_of(asked(repeats), found)
    summaries = summarise(results, [ROUND], "mean")
    lines = {
        Group("mini-llama-2", 0.0, None): {
            each.place.drafter: Line({0.0: each.values.get("round_seconds")}) for each in summaries
        }
    }
    judged = judge(FASTER, [contrasts(FASTER.parts[0], lines)], 1, doubt)
    return judged.verdict, judged.why


def test_a_verdict_on_times_needs_repeats_that_agree() -> None:
    quiet = machine(1, 3, block=0.005, own=0.002)
    assert verdict(quiet, 3) == (REPRODUCED, "")
    once = {point: each for point, each in quiet.items() if not point.repeat}
    assert verdict(once, 1) == (CANNOT_TELL, "times were measured 1 time, and a verdict needs 3")
    assert verdict(once, 3)[0] == INCOMPLETE
    assert verdict(quiet, 3, "something is wrong") == (CANNOT_TELL, "something is wrong")
    loud = verdict(machine(1, 3, block=0.3, own=0.0), 3)
    assert loud[0] == CANNOT_TELL
    assert loud[1].endswith("of 18 times are unstable")


@pytest.mark.parametrize("seed", range(20))
def test_what_disturbs_some_cells_turns_no_verdict(seed: int) -> None:
    """One core busy at random: some measurements take up to half as long again."""
    draw = np.random.default_rng(seed)
    found = {}
    for point, cell in machine(seed, 3, block=0.0, own=0.005).items():
        longer = 1.5 if draw.random() < 0.2 else 1.0
        samples = [dataclasses.replace(each, decode_seconds=each.decode_seconds * longer) for each in cell.samples]
        found[point] = dataclasses.replace(cell, samples=tuple(samples), wall_seconds=cell.wall_seconds * longer)
    assert verdict(found, 3)[0] in (REPRODUCED, CANNOT_TELL)
