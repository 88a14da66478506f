"""What the command line adds to a caption."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prism_ae.cli.draw import _recipes, check_writable
from prism_ae.errors import UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.request import make_request
from prism_ae.recipes.file import load_recipes, passes_summary, recipe_summary
from prism_ae.suites.load import load_suite

MINI, PAPER = load_suite("mini"), load_suite("paper")


def test_a_caption_names_the_recipe_of_every_drafter_once() -> None:
    points = expand(load_experiment("figure5"), MINI, Options(drafters=("eagle3", "prism")))
    recipes = load_recipes()
    summaries = ". ".join(recipe_summary(name, recipes) for name in ("eagle3", "prism"))
    assert _recipes(MINI, points) == (f"Recipes. {passes_summary(recipes, extra=True)}. {summaries}.",)
    alone = passes_summary(recipes, extra=False), recipe_summary("eagle3", recipes)
    assert _recipes(MINI, [point for point in points if point.drafter == "eagle3"]) == (
        f"Recipes. {'. '.join(alone)}.",
    )
    vanilla = [dataclasses.replace(points[0], drafter="vanilla", scale=None, tree=None)]
    assert _recipes(MINI, vanilla) == _recipes(MINI, []) == ()


def test_what_was_not_trained_here_has_no_recipe_to_name() -> None:
    points = expand(load_experiment("figure5"), PAPER, Options())
    assert _recipes(PAPER, points) == ()


def test_what_cannot_be_drawn_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    for names in (["figure8"], ["drafting", "table6"]):
        request = make_request(names, "mini", Options(drafting="both"))
        with pytest.raises(UsageError, match=f"--drafting.*{names[-1]}|{names[-1]}.*drafting"):
            check_writable(tmp_path, request)
    assert not list(tmp_path.iterdir())
    check_writable(tmp_path, make_request(["figure4", "drafting"], "mini", Options()))
