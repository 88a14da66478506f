"""The paper's values as its files state them, and only at places that were asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from prism_ae.analysis.paper_values import PaperValue
from prism_ae.analysis.results import Results, results_of
from prism_ae.cells import TreeShape
from prism_ae.experiments.expand import expand
from prism_ae.experiments.kinds.base import as_in_the_paper, paper_values
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")
SIX = ("vanilla", "standard", "eagle2", "hass", "prism", "prism_star")


def asked(name: str, **options: Any) -> Results:
    return results_of(expand(load_experiment(name), MINI, Options(**options)), {})


def values(name: str, *also: str, **options: Any) -> tuple[PaperValue, ...]:
    """The paper's for what was asked; ``also``: drafters that were asked for and have no place."""
    experiment, results = load_experiment(name), asked(name, **options)
    drafters = [*(point.drafter for point in results.points), *also]
    return paper_values(experiment, MINI, experiment.summarise(results), drafters)


@pytest.mark.parametrize(
    ("name", "place", "value", "rerun"),
    [
        # Read off the paper's tables and figures and the artifact's PDFs, independently of the files.
        ("table6", ("mini-llama-2", "prism", 0.0, "mt_bench", None, "tps"), 254.18, False),
        ("table6", ("mini-llama-2", "hass", 1.0, "qa", None, "al"), 3.78, False),
        ("table7", ("mini-llama-3", "standard", 1.0, "sum", None, "al"), 4.3, False),
        ("table7", ("mini-llama-3", "eagle2", 1.0, "qa", None, "tps"), 107.0, False),
        ("table4", ("mini-llama-3", "prism", 0.0, "mt_bench", None, "tps"), 201.51, False),
        ("table4", ("mini-llama-3", "hass", 0.0, "mt_bench", None, "al"), 3.93, False),
        ("table4", ("mini-llama-3", "hass", 0.0, "mt_bench", None, "al"), 3.98, True),
        ("table4", ("mini-llama-3", "prism_star", 1.0, "gsm8k", None, "al"), 5.07, True),
        ("table4", ("mini-llama-2", "vanilla", 0.0, "sum", None, "tps"), 92.79, True),
        ("figure7", ("mini-llama-2", "eagle2", 0.0, None, 16, "speed_up"), 1.6955, False),
        ("figure8", ("mini-llama-2", "prism", 0.0, None, TreeShape(3, 8, 16), "al"), 3.606, False),
        ("figure8", ("mini-llama-2", "prism", 0.0, None, TreeShape(7, 10, 64), "tps"), 307.949, False),
        ("figure9", ("mini-llama-2", "prism3", 1.0, None, 8, "al"), 5.46, False),
        ("figure1", ("mini-llama-3", "eagle3", 0.0, None, 4, "acceptance_rate"), 0.86494, False),
    ],
)
def test_paper_values(name: str, place: tuple[object, ...], value: float, rerun: bool) -> None:
    drafters = SIX if name.startswith("table") else ()
    batches = (16,) if name == "figure7" else ()  # the mini suite has no such size of its own
    found = {
        (each.target, each.drafter, each.temperature, each.benchmark, each.x, each.quantity, each.rerun): each.value
        for each in values(name, drafters=drafters, batch_sizes=batches)
    }
    assert found[*place, rerun] == value


def test_the_misprint_is_left_out() -> None:
    known = [value for curve in load_experiment("table7").paper.values for value in curve.y]
    assert min(known) > 1
    assert len(known) == 5 * 2 * 2 * 6 - 2 * 6 - 1  # vanilla has no acceptance length


@pytest.mark.parametrize(
    ("name", "options", "key", "expected"),
    [
        ("figure5", {"scales": ("1x", "8x")}, "x", {1, 8}),
        ("figure5", {"temperatures": (1.0,)}, "temperature", {1}),
        ("figure5", {"drafters": ("prism",)}, "drafter", {"prism"}),
        ("figure4", {"benches": ("qa", "sum")}, "benchmark", {"qa", "sum"}),
        ("figure4", {"targets": ("llama-3",)}, "target", {"mini-llama-3"}),
        ("figure1", {}, "x", {1, 2, 3, 4}),  # the paper's figure has six positions
        ("figure7", {"batch_sizes": (4, 64)}, "x", {4}),
        ("figure8", {"trees": (TreeShape(6, 4, 16), TreeShape(7, 7, 7))}, "x", {TreeShape(6, 4, 16)}),
        ("table6", {"benches": ("qa",)}, "benchmark", {"qa"}),
        ("table6", {"drafters": ("hass",)}, "drafter", {"vanilla", "hass"}),
    ],
)
def test_only_at_places_that_were_asked_for(
    name: str, options: dict[str, Any], key: str, expected: set[object]
) -> None:
    assert {getattr(each, key) for each in values(name, **options)} == expected
    assert {getattr(each, key) for each in values(name)} != expected or not options
    assert values(name, temperatures=(0.5,)) == ()


def test_a_drafter_without_a_place_has_values_where_time_is_measured() -> None:
    """One that was never published has no cells; the paper's values of it are known."""
    assert "prism_star" in {each.drafter for each in values("table4", "prism_star", drafters=("hass",))}
    assert "prism_star" not in {each.drafter for each in values("figure5", "prism_star", drafters=("prism",))}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("figure5", {}, True),
        ("figure5", {"scales": ("1x",), "temperatures": (1.0,), "questions": 3}, True),
        ("figure5", {"benches": ("qa",)}, False),
        ("figure5", {"trees": (TreeShape(4, 4, 16),)}, False),
        ("figure5", {"trees": (TreeShape(6, 10, 60),)}, True),
        ("figure4", {"benches": ("qa",)}, True),  # drawn benchmark by benchmark
        ("figure4", {"trees": (TreeShape(4, 4, 16),)}, False),
        ("figure1", {"benches": ("qa", "sum")}, False),
        ("figure7", {"batch_sizes": (2, 64)}, True),  # known batch by batch
        ("figure7", {"benches": ("qa",)}, False),
        ("figure7", {"trees": (TreeShape(4, 4, 16),)}, False),
        ("figure8", {"trees": (TreeShape(4, 4, 16), TreeShape(2, 2, 4))}, True),  # known tree by tree
        ("figure8", {"batch_sizes": (2,)}, False),
        ("figure8", {"benches": ("qa",)}, False),
        ("table6", {}, True),
        ("table6", {"benches": ("qa",)}, True),
        ("table6", {"batch_sizes": (2,)}, False),
        ("table6", {"trees": (TreeShape(4, 4, 16),)}, False),
    ],
)
def test_means_trees_and_batches_are_as_in_the_paper(name: str, options: dict[str, Any], expected: bool) -> None:
    assert as_in_the_paper(load_experiment(name), MINI, asked(name, **options)) == expected


def test_a_curve_has_a_value_for_each_of_its_places() -> None:
    paper = load_experiment("figure5").paper
    curve = paper.values[0]
    assert paper.points(curve) == list(zip(paper.x, curve.y, strict=True))
    some = dataclasses.replace(curve, x=(2.0, 8.0), y=(4.5, 4.75))
    assert paper.points(some) == [(2.0, 4.5), (8.0, 4.75)]
    with pytest.raises(ValueError, match="zip"):
        paper.points(dataclasses.replace(curve, y=(4.5,)))
