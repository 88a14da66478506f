"""Experiments to points: the counts that the paper and the mini suite promise, and every option."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from raising import raises

from prism_ae.cells import Point, TreeShape
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite


@pytest.fixture(scope="module")
def mini() -> Suite:
    return load_suite("mini")


def points(suite: Suite, options: Options, *names: str) -> set[Point]:
    return {point for name in names or experiment_names() for point in expand(load_experiment(name), suite, options)}


def test_the_paper_suite_has_480_published_cells() -> None:
    """8 pairs of target and drafter, 5 scales, 6 benchmarks, 2 temperatures, as the artifact's grid."""
    suite = load_suite("paper")
    asked = points(suite, Options(), "figure1", "figure4", "figure5", "figure6")
    published = {point for point in asked if not suite.drafters[point.drafter].absent}
    assert len(published) == 480
    pairs = {(suite.targets[point.target].roles[0], point.drafter) for point in published}
    assert pairs == {
        ("llama-2", "eagle2"),
        ("llama-2", "hass"),
        ("llama-2", "prism_star"),
        ("llama-3", "eagle2"),
        ("llama-3", "hass"),
        ("llama-3", "hass2"),
        ("llama-3", "eagle3"),
        ("llama-3", "prism_star"),
    }


def test_the_cells_of_acceptance_of_the_mini_suite(mini: Suite) -> None:
    asked = points(mini, Options())
    # Besides the figures' the 24 cells of prompt lookup in table 4.
    assert len([point for point in asked if point.batch is None]) == 1020 + (2 + 1 + 2 + 3) * 5 * 6 * 2 + 24
    asked = points(mini, Options(controls=False))
    assert len([point for point in asked if point.batch is None]) == 1020 + 24


@pytest.mark.parametrize(
    ("name", "number", "with_controls"),
    [
        ("figure1", 4 * 1 * 6 * 2, 0),
        ("figure4", 2 * 3 * 5 * 6 * 2, 2 * 5 * 6 * 2),
        ("figure5", 3 * 5 * 6 * 2, 3 * 5 * 6 * 2),
        ("figure6", 3 * 5 * 6 * 2, 2 * 5 * 6 * 2),
        ("figure9", 2 * 5 * 6 * 2, 0),
        ("figure10", 5 * 5 * 6 * 2, 3 * 5 * 6 * 2),
    ],
)
def test_each_figure_of_the_mini_suite(mini: Suite, name: str, number: int, with_controls: int) -> None:
    experiment = load_experiment(name)
    found = expand(experiment, mini, Options(controls=False))
    assert len(found) == len(set(found)) == number
    both = expand(experiment, mini, Options(controls=True))
    assert len(both) == len(set(both)) == number + with_controls
    assert expand(experiment, mini, Options()) == both, "the suite's file says so"
    assert all(point.engine == "torch" and point.batch is None and point.questions == 16 for point in found)
    tree = TreeShape(4, 4, 16) if name == "figure10" else TreeShape(6, 10, 60)
    assert {point.tree for point in found} == {tree}


def test_figures_share_cells(mini: Suite) -> None:
    assert points(mini, Options(), "figure1") < points(mini, Options(), "figure4", "figure5")


def test_options_select(mini: Suite) -> None:
    options = Options(
        benches=("qa", "humaneval"),
        scales=("8x", "2x"),
        targets=("mini-llama-3",),
        drafters=("prism", "hass"),
        temperatures=(1,),
        questions=4,
        trees=(TreeShape(3, 2, 6),),
    )
    found = expand(load_experiment("figure4"), mini, options)
    assert len(found) == 2 * 2 * 2
    assert [point.benchmark for point in found[:2]] == ["humaneval", "qa"], "display order is the suite's"
    assert list(dict.fromkeys(point.drafter for point in found)) == ["prism", "hass"]
    assert {point.questions for point in found} == {4}
    assert {point.tree for point in found} == {TreeShape(3, 2, 6)}
    assert {point.target for point in found} == {"mini-llama-3"}
    assert {str(point.temperature) for point in found} == {"1.0"}


def test_targets_are_known_by_role_too(mini: Suite) -> None:
    by_role = expand(load_experiment("figure4"), mini, Options(targets=("llama-2",)))
    assert by_role == expand(load_experiment("figure4"), mini, Options(targets=("mini-llama-2",)))


def test_a_drafter_is_left_out_where_it_does_not_exist(mini: Suite) -> None:
    found = expand(load_experiment("figure4"), mini, Options(drafters=("eagle3", "hass")))
    assert {(point.target, point.drafter) for point in found} == {
        ("mini-llama-2", "hass"),
        ("mini-llama-3", "hass"),
        ("mini-llama-3", "eagle3"),
    }


def test_the_authors_rope_base_concerns_eagle3_alone() -> None:
    paper = load_suite("paper")
    for name in ("figure1", "figure5", "figure10"):
        plain = expand(load_experiment(name), paper, Options())
        imitated = expand(load_experiment(name), paper, Options(paper_compat=True))
        assert len(plain) == len(imitated)
        for before, after in zip(plain, imitated, strict=True):
            flags = ("eagle3-config-rope",) if before.drafter == "eagle3" else ()
            assert after == dataclasses.replace(before, compat=flags)
    assert {point.drafter for point in imitated} > {"eagle3", "prism_star"}
    drafted = Options(paper_compat=True, drafters=("eagle3", "prism"))
    timed = expand(load_experiment("table4"), paper, drafted)
    assert {point.drafter for point in timed} == {"vanilla", "eagle3", "prism"}
    assert not [point for point in timed if "eagle3-config-rope" in point.compat], "they never served it"


def test_where_nothing_is_imitated_it_is_said(mini: Suite) -> None:
    paper = load_suite("paper")
    for name, suite, options in (
        ("figure4", paper, Options(paper_compat=True)),
        ("figure5", paper, Options(paper_compat=True, drafters=("prism_star",))),
        ("figure5", mini, Options(paper_compat=True)),  # trained here, with the base that its config names
    ):
        with raises(UsageError, "--paper-compat"):
            expand(load_experiment(name), suite, options)


def test_the_largest_of_the_scales_asked_for(mini: Suite) -> None:
    assert {point.scale for point in expand(load_experiment("figure1"), mini, Options())} == {"8x"}
    found = expand(load_experiment("figure1"), mini, Options(scales=("4x", "1x")))
    assert {point.scale for point in found} == {"4x"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(benches=("humanevl",)), "--benches: .*'humanevl'.*'humaneval'"),
        (Options(scales=("3x",)), "--scales: .*'3x'"),
        (Options(targets=("llama-4",)), "--targets: .*'llama-4'"),
        (Options(drafters=("prizm",)), "--drafters: .*'prizm'.*'prism'"),
        (Options(drafters=("vanilla",)), "--drafters: figure4.*'vanilla'"),
        (Options(drafters=("standard",)), "--drafters: figure4.*'standard'"),
        (Options(drafters=("eagle3",), targets=("llama-2",)), "none of the drafters exists for the targets"),
        (Options(temperatures=(-1.0,)), "--temperatures: .*-1"),
        (Options(temperatures=(float("nan"),)), "--temperatures: .*nan"),
        (Options(questions=0), "--questions.*1"),
        (Options(trees=(TreeShape(3, 2, 6), TreeShape(4, 4, 16))), "--tree: figure4.* 2"),
        (Options(batch_sizes=(10,)), "--batch-size: figure4"),
        (Options(engine="tensorrt"), "'tensorrt'"),
    ],
)
def test_wrong_options_are_answered(mini: Suite, options: Options, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        expand(load_experiment("figure4"), mini, options)


def test_a_suite_that_lacks_what_the_figure_names(mini: Suite) -> None:
    experiment = load_experiment("figure4")
    targets = {name: target for name, target in mini.targets.items() if "llama-2" in target.roles}
    with raises(ConfigError, "figure4: cells.roles: ", "mini", "'llama-3'"):
        expand(experiment, dataclasses.replace(mini, targets=targets), Options())
    drafters = {name: drafter for name, drafter in mini.drafters.items() if name != "prism"}
    with raises(ConfigError, "figure4: drafters: ", "mini", "'prism'"):
        expand(experiment, dataclasses.replace(mini, drafters=drafters), Options())


def test_numbers_can_be_computed_in_another_dtype(mini: Suite) -> None:
    asked = points(load_suite("paper"), Options(dtype="float32"), "figure5", "table4")
    assert {point.dtype for point in asked} == {"float32"}
    with pytest.raises(UsageError, match=r"--dtype: .*'float23'"):
        points(mini, Options(dtype="float23"), "figure5")


def test_options_in_words() -> None:
    assert Options().described() == ""
    said = Options(benches=("qa", "sum"), questions=4, trees=(TreeShape(3, 2, 6),), controls=True, dtype="float32")
    assert said.described() == "--benches qa,sum --questions 4 --tree 3,2,6 --controls --dtype float32"
    assert Options(controls=False, seeds=5).described() == "--no-controls --seeds 5"


def test_the_paper_suite_adds_controls_on_request_alone() -> None:
    paper, experiment = load_suite("paper"), load_experiment("figure4")
    assert not paper.controls
    assert expand(experiment, paper, Options()) == expand(experiment, paper, Options(controls=False))


def test_further_training_seeds_at_the_suites_scales(mini: Suite) -> None:
    figure4 = load_experiment("figure4")
    once, thrice = expand(figure4, mini, Options()), expand(figure4, mini, Options(seeds=3))
    assert tuple(point for point in thrice if not point.training_seed) == once
    more = [point for point in thrice if point.training_seed]
    assert {(point.scale, point.training_seed) for point in more} == {("2x", 1), ("2x", 2), ("8x", 1), ("8x", 2)}
    assert {dataclasses.replace(point, training_seed=0) for point in more} == {
        p for p in once if p.scale in ("2x", "8x")
    }
    assert len(more) == 2 * 4 * 2 * 2 * 6 * 2
    some = expand(figure4, mini, Options(seeds=3, scales=("1x", "8x")))
    assert {(point.scale, point.training_seed) for point in some} == {("1x", 0), ("8x", 0), ("8x", 1), ("8x", 2)}


def test_what_is_timed_and_what_is_not_a_draft_head_has_one_training(mini: Suite) -> None:
    for name in ("figure7", "figure8", "table4", "drafting"):
        assert expand(load_experiment(name), mini, Options(seeds=2)) == expand(load_experiment(name), mini, Options())
    few = expand(load_experiment("figure1"), mini, Options(seeds=2, drafters=("standard",)))
    assert {point.training_seed for point in few} == {0}


@pytest.mark.parametrize(
    ("suite", "options", "said"),
    [
        ("mini", Options(seeds=0), "--seeds must be between 1 and 100, got 0"),
        ("mini", Options(seeds=101), "--seeds must be between 1 and 100, got 101"),
        ("mini", Options(seeds=2, scales=("1x", "4x")), "--seeds: none of --scales is trained with further seeds"),
        ("paper", Options(seeds=2), "--seeds: the drafters of suite paper have one training each"),
    ],
)
def test_seeds_that_are_nowhere_trained_are_refused(suite: str, options: Options, said: str) -> None:
    for name in ("figure4", "table4"):
        with pytest.raises(UsageError, match=said):
            expand(load_experiment(name), load_suite(suite), options)


def test_planning_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, prism_ae.experiments.load as l, prism_ae.experiments.expand as e, prism_ae.suites.load as s\n"
        "from prism_ae.experiments.options import Options\n"
        "e.expand(l.load_experiment('figure4'), s.load_suite('mini'), Options())\n"
        "import prism_ae.analysis.results, prism_ae.analysis.estimates, prism_ae.experiments.render\n"
        "assert not {'torch', 'matplotlib', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tree_deeper_than_an_answer_is_refused(mini: Suite) -> None:
    """No round could ever use it, and no question would fit beside it."""
    most = mini.limits.max_new_tokens
    experiment = load_experiment("figure4")
    assert expand(experiment, mini, Options(trees=(TreeShape(most, 10, 60),)))
    with raises(UsageError, most + 1, "mini"):
        expand(experiment, mini, Options(trees=(TreeShape(most + 1, 10, 60),)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drafters": ("eagle4",)}, "experiment figure5: drafters: suite mini has no drafter 'eagle4'; did you mean"),
        ({"tree": "mian"}, "experiment figure5: cells.tree: suite mini has no tree 'mian'; did you mean 'main'?"),
        ({"roles": ("llama-4",)}, "cells.roles: suite mini has no target 'llama-4'; did you mean 'llama-"),
        ({"benchmarks": ("gsm",)}, "cells.benchmarks: suite mini has no benchmark 'gsm'; did you mean 'gsm8k'?"),
    ],
)
def test_an_experiment_that_asks_for_what_a_suite_lacks(
    mini: Suite, change: dict[str, tuple[str, ...] | str], said: str
) -> None:
    experiment = load_experiment("figure5")
    if "drafters" in change:
        experiment = dataclasses.replace(experiment, drafters=change["drafters"])
    else:
        experiment = dataclasses.replace(experiment, cells=dataclasses.replace(experiment.cells, **change))
    with pytest.raises(ConfigError) as caught:
        expand(experiment, mini, Options())
    assert said in str(caught.value)
