"""What was asked and measured: contradictions refused by name, and one tidy table."""

from __future__ import annotations

import dataclasses
import math

import pytest
from measurements import made_up, make_point, measured, sample
from raising import raises

from prism_ae.analysis.estimates import summarise
from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO, QUANTITIES, SPEED
from prism_ae.analysis.results import Columns, Measured, columns_of, results_of
from prism_ae.cells import Fingerprints, Point, Sample, TreeShape
from prism_ae.errors import StoreError

POINT = make_point(tree=TreeShape(3, 2, 6))
RESULT = measured([sample("q0", [0, 1]), sample("q1", [2, 2])])


def columns(point: Point, result: Measured) -> Columns:
    return results_of([point], {point: result}).cells[point].columns


def test_points_are_measured_or_not() -> None:
    hole, foreign = make_point(scale="4x"), make_point(scale="1x")
    results = results_of([hole, POINT], {POINT: RESULT, foreign: RESULT})
    assert (results.points, set(results.cells)) == ((hole, POINT), {POINT})
    (done,) = results.done
    assert (done.measured, done.columns.rounds.sum(), done.columns.generated.sum()) == (RESULT, 4, 4 + 7)
    assert (done.columns.value(AL_MACRO), done.columns.value(AL_MICRO)) == ((1.5 + 3) / 2, 11 / 4)
    assert done.columns.without_rounds == 0
    assert results.of([hole]).done == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generated_tokens": 9}, "committed 8 at most"),
        ({"histogram": (3, 1, -1)}, "negative"),
        ({"generated_tokens": -1}, "negative"),
    ],
)
def test_contradictory_samples_are_refused(change: dict[str, object], said: str) -> None:
    columns_of([sample("q", [0, 2, 2])])
    with pytest.raises(ValueError, match=f"question q: .*{said}"):
        columns_of([sample("q", [0, 2, 2], **change)])


def test_a_question_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        columns_of([sample("q", [1]), sample("q", [2])])


@pytest.mark.parametrize(
    ("point", "rounds", "said"),
    [
        (POINT, [[0, 1]], "1 questions were answered, 2 were asked"),
        (POINT, [[0, 1], [4]], "the tree 3,2,6 has steps"),
        (make_point(drafter="vanilla"), [[0, 1], [0]], "nothing drafts"),
    ],
)
def test_contradictory_cells_are_refused_by_name(point: Point, rounds: list[list[int]], said: str) -> None:
    result = measured(sample(f"q{number}", each) for number, each in enumerate(rounds))
    with pytest.raises(StoreError, match=f"cell 0123456789abcdef: .*{said}"):
        columns(point, result)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_impossible_seconds_are_refused_where_time_is_measured(bad: float) -> None:
    timed = make_point(questions=1, batch=1)
    columns(timed, measured([sample("q0", [1])], 1.0))
    for broken, said in (
        (measured([sample("q0", [1], prefill_seconds=bad)]), f"question q0: its prefill took {bad} seconds"),
        (measured([sample("q0", [1], decode_seconds=bad)]), f"question q0: its decode took {bad} seconds"),
        (measured([sample("q0", [1])], bad), f"the run took {bad} seconds"),
    ):
        with pytest.raises(StoreError, match=f"^cell 0123456789abcdef: {said}"):
            columns(timed, broken)
        assert columns(make_point(questions=1), broken).value(AL_MICRO) == 3.0


def test_the_table_has_a_row_per_measured_cell_and_quantity() -> None:
    timed, plain, hole = make_point(batch=2), make_point(drafter="vanilla", batch=2), make_point(batch=4)
    done = {point: made_up(point, device="a GPU") for point in (POINT, timed, plain)}
    table = results_of([POINT, timed, hole, plain], done).table()
    said = table.groupby("cell_id", sort=False)["quantity"].agg(list)
    acceptance = ["al_macro", "al_micro", "acceptance_rate", "tokens_per_round"]
    both = ["tps", "decode_tps", "first_token_seconds", "occupancy"]
    both += ["draft_seconds", "verify_seconds", "sample_seconds", "host_seconds"]
    assert {cell: sorted(names) for cell, names in said.items()} == {
        done[POINT].cell_id: sorted(acceptance),
        done[timed].cell_id: sorted([*acceptance, *both, "round_seconds", "draft_step_seconds"]),
        done[plain].cell_id: sorted([*both, "step_seconds"]),
    }
    row = table[(table["cell_id"] == done[timed].cell_id) & (table["quantity"] == "tps")].iloc[0]
    tokens = sum(each.generated_tokens for each in done[timed].samples)
    assert row["value"] == pytest.approx(tokens / done[timed].wall_seconds)
    asked = ["drafter", "scale", "tree", "batch", "device", "unit"]
    assert row[asked].tolist() == ["prism", "8x", "6,4,16", 2, "a GPU", "tokens/s"]


def test_the_table_says_nothing_of_holes_and_leaves_out_undefined_values() -> None:
    empty = results_of([POINT], {}).table()
    assert len(empty) == 0
    silent = results_of([POINT], {POINT: measured([sample("q0"), sample("q1")])}).table()
    assert silent["quantity"].tolist() == ["al_macro", "al_micro", "tokens_per_round", "acceptance_rate"]
    assert silent["value"].isna().all()
    assert silent.columns.tolist() == empty.columns.tolist()


def test_cells_of_two_checkpoints_make_no_value() -> None:
    """Half of a mean measured with another target: a missing value, and a sentence that says so."""
    points = [make_point(benchmark=name, questions=6) for name in ("qa", "sum")]
    prints = Fingerprints("one", "d", "p", "v", "w")
    others = {"target": "checkpoints of the target", "engine": "versions of the engine"}
    for key, said in others.items():
        for changed in (False, True):
            second = dataclasses.replace(prints, **{key: "two"}) if changed else prints
            done = {
                points[0]: made_up(points[0], fingerprints=prints),
                points[1]: made_up(points[1], fingerprints=second),
            }
            results = results_of(points, done)
            (mean,) = summarise(results, [QUANTITIES["al_macro"]])
            assert ("al_macro" in mean.values) != changed
            assert any(said in each for each in results.mixtures()) == changed


def test_vanilla_of_another_checkpoint_is_no_baseline() -> None:
    own, plain = (make_point(drafter=name, questions=6, batch=1) for name in ("prism", "vanilla"))
    for target in ("one", "two"):
        done = {
            own: made_up(own, fingerprints=Fingerprints("one", "d", "p", "v", "w")),
            plain: made_up(plain, fingerprints=Fingerprints(target, None, "p", "v", "w")),
        }
        found = summarise(results_of([plain, own], done), SPEED)[1]
        assert ("speed_up" in found.values) == (target == "one")
        assert "tps" in found.values


def listed(rounds: list[list[int]], tokens: list[int], stops: tuple[str, ...]) -> Sample:
    """A question that lists its rounds, turn by turn."""
    made = sample("q0", [drafts for turn in rounds for drafts in turn])
    accepted = tuple(tuple(turn) for turn in rounds)
    return dataclasses.replace(
        made, turns=len(rounds), generated_tokens=sum(tokens), stops=stops, accepted=accepted, turn_tokens=tuple(tokens)
    )


def test_the_authors_count_a_round_behind_a_bonus_token_that_ends_the_answer() -> None:
    """The first turn ends with the bonus token, the second with an accepted draft, one of whose tokens is behind it."""
    point = make_point(questions=1, tree=TreeShape(3, 2, 6))
    made = listed([[1, 2], [2, 2]], [6, 6], ("end", "end"))
    plain, authors = (
        results_of([point], {point: measured([made])}, authors=each).cells[point].columns for each in (False, True)
    )
    assert plain.value(AL_MACRO) == (1 + 2 + 2 + 2) / 4 + 1
    assert authors.value(AL_MACRO) == (1 + 2 + 0 + 2 + 2) / 5 + 1
    assert plain.overshoot.tolist() == [1]
    cut = dataclasses.replace(made, stops=("length", "window"))
    columns = results_of([point], {point: measured([cut])}, authors=True).cells[point].columns
    assert columns.value(AL_MACRO) == plain.value(AL_MACRO)


def test_without_lists_the_authors_count_is_refused() -> None:
    """But not where nothing drafts, nor where time is measured."""
    point = make_point(questions=1)
    with raises(StoreError, "0123456789abcdef", "--count authors"):
        results_of([point], {point: measured([sample("q0", [1])])}, authors=True)
    for other, answer in ((make_point(questions=1, batch=1), [1]), (make_point(questions=1, drafter="vanilla"), [])):
        results_of([other], {other: measured([sample("q0", answer)])}, authors=True)
