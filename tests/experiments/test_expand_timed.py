"""Experiments that measure time to points: batches, trees, drafting, baselines and the authors' choices."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from timed_experiments import experiment, tables

from prism_ae.cells import Cell, Fingerprints, Point, TreeShape
from prism_ae.errors import UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment, parse_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment, SuiteChoice
from prism_ae.suites.compat import server_flags, serving_flags
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

SGLANG_TREE = TreeShape(6, 4, 16)


@pytest.fixture(scope="module")
def mini() -> Suite:
    """With every time measured once, but where a test says otherwise."""
    return dataclasses.replace(load_suite("mini"), repeats=1)


def of(points: tuple[Point, ...], drafter: str) -> list[Point]:
    return [point for point in points if point.drafter == drafter]


def test_batches_of_the_mini_suite(mini: Suite) -> None:
    points = expand(experiment(), mini, Options())
    assert len(points) == len(set(points)) == 3 * 4 * 6
    assert list(dict.fromkeys(point.drafter for point in points)) == ["vanilla", "eagle2", "prism"]
    for drafter, scale, tree in (("vanilla", None, None), ("eagle2", "8x", SGLANG_TREE), ("prism", "8x", SGLANG_TREE)):
        mine = of(points, drafter)
        assert {(point.scale, point.tree, point.drafting) for point in mine} == {(scale, tree, "exact")}
        assert [point.batch for point in mine] == [batch for batch in (2, 4, 8, 16) for _ in range(6)]
    assert {(point.engine, point.target, point.compat) for point in points} == {("sglang", "mini-llama-2", ())}


def test_a_table_has_every_drafter_and_standard_without_a_scale(mini: Suite) -> None:
    points = expand(experiment("table", roles=["llama-2", "llama-3"], temperatures=[0, 1]), mini, Options())
    assert len(points) == len(set(points)) == 2 * 5 * 6 * 2
    assert {(point.scale, point.tree, point.batch) for point in of(points, "standard")} == {(None, SGLANG_TREE, 1)}


def test_trees_of_the_file_and_of_the_user(mini: Suite) -> None:
    asked = experiment("trees", benchmarks=["mt_bench"])
    trees = [TreeShape(3, 2, 6), TreeShape(5, 8, 32), TreeShape(8, 10, 64)]
    assert [point.tree for point in expand(asked, mini, Options())] == trees
    others = (TreeShape(8, 10, 64), TreeShape(4, 1, 5), TreeShape(8, 10, 64))
    points = expand(asked, mini, Options(trees=others))
    assert [point.tree for point in points] == list(others[:2]), "each once, in the order asked for"
    with_vanilla = expand(asked, mini, Options(drafters=("vanilla", "prism")))
    assert [point.tree for point in with_vanilla] == [None, *trees]


def test_the_limits_are_those_of_serving(mini: Suite) -> None:
    serving = dataclasses.replace(
        mini.serving, questions=20, max_new_tokens=10, turns_max_new_tokens=30, max_length=99, seed=7, dtype="bfloat16"
    )
    suite = dataclasses.replace(mini, serving=serving)
    for point in expand(experiment(), suite, Options()):
        assert (point.questions, point.max_length, point.seed, point.dtype) == (20, 99, 7, "bfloat16")
        assert point.max_new_tokens == (30 if point.benchmark == "mt_bench" else 10)
    figure4 = expand(load_experiment("figure4"), suite, Options())
    assert {(point.max_new_tokens, point.seed, point.dtype) for point in figure4} == {(96, 42, "float32")}


def test_acceptance_cells_of_several_turns_have_their_own_limit(mini: Suite) -> None:
    suite = dataclasses.replace(mini, limits=dataclasses.replace(mini.limits, turns_max_new_tokens=50))
    lengths = {point.benchmark: point.max_new_tokens for point in expand(load_experiment("figure5"), suite, Options())}
    assert lengths == {"mt_bench": 50} | dict.fromkeys(("humaneval", "gsm8k", "alpaca", "sum", "qa"), 96)


def test_a_suite_can_have_its_own_number_of_questions(mini: Suite) -> None:
    asked = dataclasses.replace(experiment(batches=[32]), suites={"mini": SuiteChoice(questions=40)})
    assert {point.questions for point in expand(asked, mini, Options())} == {40}
    assert {point.questions for point in expand(asked, mini, Options(questions=32))} == {32}
    assert {point.questions for point in expand(asked, load_suite("paper"), Options())} == {80}
    acceptance = dataclasses.replace(load_experiment("figure5"), suites={"mini": SuiteChoice(questions=3)})
    assert {point.questions for point in expand(acceptance, mini, Options())} == {3}


def test_batch_sizes_of_the_user(mini: Suite) -> None:
    points = expand(experiment(), mini, Options(batch_sizes=(12, 10, 12)))
    assert list(dict.fromkeys(point.batch for point in points)) == [10, 12]


@pytest.mark.parametrize("kind", ["batches", "table"])
def test_the_baseline_is_measured_although_it_was_not_named(mini: Suite, kind: str) -> None:
    def names(*drafters: str) -> list[str]:
        points = expand(experiment(kind), mini, Options(drafters=drafters))
        return list(dict.fromkeys(point.drafter for point in points))

    assert names("prism", "hass") == ["vanilla", "prism", "hass"]
    assert names("prism", "vanilla") == ["prism", "vanilla"]


CHAIN = TreeShape(6, 1, 7)


def test_prompt_lookup_drafts_a_chain_of_the_trees_steps(mini: Suite) -> None:
    asked, both = Options(drafters=("lookup", "prism")), Options(drafters=("lookup", "prism"), drafting="both")
    for name, found in (("figure7", experiment()), ("trees", experiment("trees"))):
        points = expand(found, mini, asked)
        assert {point.engine for point in of(points, "lookup")} == {"sglang"}, name
        assert len(points) == len(set(points))
    assert {point.tree for point in of(points, "lookup")} == {TreeShape(d, 1, d + 1) for d in (3, 5, 8)}
    assert {point.drafting for point in of(expand(experiment(), mini, both), "lookup")} == {"exact"}


def test_a_table_has_the_acceptance_of_a_drafter_that_sglang_is_not_driven_for(mini: Suite) -> None:
    asked = Options(drafters=("lookup", "prism"))
    found = of(expand(experiment("table"), mini, asked), "lookup")
    assert {(point.engine, point.batch, point.tree, point.scale) for point in found} == {("torch", None, CHAIN, None)}
    assert len(found) == len(set(found)) == 6
    timed = expand(experiment("table"), mini, dataclasses.replace(asked, engine="torch"))
    assert {(point.engine, point.batch, point.tree) for point in of(timed, "lookup")} == {("torch", 1, CHAIN)}


def test_the_largest_batch_is_looked_at_whatever_drafter_comes_last(mini: Suite) -> None:
    options = Options(drafters=("prism", "lookup"), batch_sizes=(17,), questions=16)
    with pytest.raises(UsageError, match=r"17.*16"):
        expand(experiment("table"), mini, options)


def test_the_baseline_is_measured_although_a_file_does_not_draw_it(mini: Suite) -> None:
    asked = dataclasses.replace(experiment(), drafters=("prism",))
    assert len(of(expand(asked, mini, Options()), "vanilla")) == 4 * 6
    assert not of(expand(experiment("trees"), mini, Options()), "vanilla")


def test_drafting_is_compared_where_asked_but_vanilla_drafts_nothing(mini: Suite) -> None:
    both = expand(experiment(), mini, Options(drafting="both"))
    assert len(both) == len(set(both)) == 5 * 4 * 6
    assert {point.drafting for point in of(both, "vanilla")} == {"exact"}
    assert list(dict.fromkeys(point.drafting for point in of(both, "prism"))) == ["exact", "stock"]
    stock = expand(experiment("table", drafting=["exact", "stock"]), mini, Options(drafting="stock"))
    assert {point.drafting for point in of(stock, "standard")} == {"stock"}
    assert expand(experiment(drafting=["exact", "stock"]), mini, Options()) == both
    assert expand(experiment(), mini, Options(drafting="exact")) == expand(experiment(), mini, Options())


def test_compatibility_with_the_paper_is_part_of_every_cell(mini: Suite) -> None:
    asked = experiment("table", temperatures=[0, 1])
    points = expand(asked, mini, Options(paper_compat=True))
    assert len(points) == len(expand(asked, mini, Options()))
    for point in points:
        greedy = point.benchmark == "mt_bench" and point.temperature > 0
        extra = ("greedy-second-temperature",) if greedy else ()
        assert point.compat == tuple(sorted(("graphs-batch-1", "warm-cache", *extra)))
    assert {point.compat for point in of(points, "vanilla")} == {point.compat for point in of(points, "prism")}


def test_what_concerns_the_server_and_what_the_cell() -> None:
    assert server_flags(serving_flags(1.0, 2)) == serving_flags(0.0, 2) == serving_flags(1.0, 1)
    assert serving_flags(1.0, 2) != serving_flags(1.0, 1)
    assert server_flags(()) == ()


def test_the_order_is_the_plans(mini: Suite) -> None:
    asked = experiment("trees", roles=["llama-2", "llama-3"], temperatures=[0, 1])
    points = expand(asked, mini, Options(drafters=("vanilla", "prism"), drafting="both"))
    targets, drafters = ["mini-llama-2", "mini-llama-3"], ["vanilla", "prism"]
    benchmarks = list(mini.benchmarks)
    keys = [
        (
            targets.index(point.target),
            drafters.index(point.drafter),
            point.drafting,
            point.tree.verified if point.tree else 0,
            benchmarks.index(point.benchmark),
            point.temperature,
        )
        for point in points
    ]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        (experiment(), Options(batch_sizes=(0, 4)), "--batch-size.*1.*1024.*0"),
        (experiment(), Options(batch_sizes=(4, 1025)), "--batch-size.*1.*1024.*1025"),
        (
            experiment(),
            Options(batch_sizes=(17,), questions=16),
            "my-batches: .*17.*16",
        ),
        (
            experiment(),
            Options(questions=8, batch_sizes=(16,)),
            "16.*8.*--questions 16",
        ),
        (experiment("table"), Options(batch_sizes=(1, 2)), "--batch-size: my-table.* 2"),
        (experiment("trees"), Options(batch_sizes=(1, 2)), "--batch-size: my-trees.* 2"),
        (experiment(), Options(trees=(SGLANG_TREE, TreeShape(3, 2, 6))), "--tree: my-batches.* 2"),
        (experiment("trees"), Options(trees=(TreeShape(97, 10, 60),)), "97"),
        (experiment(), Options(drafting="exakt"), "--drafting: .*'exakt'.*'exact'"),
        (experiment(), Options(drafting="exact", engine="torch"), "--drafting: my-batches.*torch"),
        (experiment(), Options(questions=0), "--questions.*1"),
    ],
)
def test_wrong_options_are_answered(mini: Suite, asked: Experiment, options: Options, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){said}"):
        expand(asked, mini, options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(paper_compat=True), "--paper-compat: figure4"),
        (Options(drafting="stock"), "--drafting: figure4.*torch"),
        (Options(batch_sizes=(1,)), "--batch-size: figure4"),
    ],
)
def test_acceptance_refuses_what_belongs_to_time(mini: Suite, options: Options, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        expand(load_experiment("figure4"), mini, options)


def test_a_batch_of_all_questions_fills(mini: Suite) -> None:
    assert len(expand(experiment(batches=[16]), mini, Options())) == 3 * 6


def test_a_batch_is_given_as_many_questions_as_it_has_places(mini: Suite) -> None:
    mine = parse_experiment(copy.deepcopy(tables(batches=[2, 32])), "my.toml")
    assert {(point.batch, point.questions) for point in expand(mine, mini, Options())} == {(2, 16), (32, 32)}
    # Asked for fewer, it never fills: a missing cell of the plan.
    assert {(point.batch, point.questions) for point in expand(mine, mini, Options(questions=4))} == {(2, 4), (32, 4)}


def test_times_are_measured_as_often_as_suite_or_user_say(mini: Suite) -> None:
    """Again the first few questions one after the other, or all of them where several are decoded together."""
    twice = dataclasses.replace(mini, repeats=2, repeat_questions=3)
    table, batches = experiment("table"), experiment(batches=[2])
    for asked, questions in ((table, {0: 16, 1: 3}), (batches, {0: 16, 1: 16})):
        points = expand(asked, twice, Options())
        assert {point.repeat: point.questions for point in points} == questions
        once = expand(asked, twice, Options(repeats=1))
        assert [point for point in points if not point.repeat] == list(once)
        again = [dataclasses.replace(point, repeat=0, questions=16) for point in points if point.repeat]
        assert again == list(once)
    assert {point.questions for point in expand(table, twice, Options(questions=2))} == {2}
    assert {point.repeat for point in expand(table, twice, Options(repeats=4))} == {0, 1, 2, 3}
    acceptance = expand(load_experiment("figure5"), twice, Options(repeats=4))
    assert {point.repeat for point in acceptance} == {0}
    for wrong in (0, 101):
        with pytest.raises(UsageError, match=f"--repeats must be between 1 and 100, got {wrong}"):
            expand(table, twice, Options(repeats=wrong))


def test_a_repeat_of_0_is_no_part_of_an_id(mini: Suite) -> None:
    first, again = expand(experiment("table"), mini, Options(repeats=2, questions=2))[:2]
    prints = Fingerprints("", None, "", "", "")
    assert (first.repeat, again.repeat) == (0, 1)
    assert "repeat" not in Cell(first, prints).to_json()["point"]
    assert Cell(first, prints).id != Cell(again, prints).id
    assert Cell.from_json(Cell(again, prints).to_json()) == Cell(again, prints)


def test_options_in_words() -> None:
    said = Options(batch_sizes=(10, 12), drafting="both", paper_compat=True).described()
    assert said == "--batch-size 10 --batch-size 12 --drafting both --paper-compat"
