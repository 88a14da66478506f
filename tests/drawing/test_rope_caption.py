"""The RoPE bases of drafters are said where a reader could not expect them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from synthetic import measure

from prism_ae.cells import Point
from prism_ae.experiments.compose import compose
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite


def caption(name: str, settings_of: Callable[[Point], dict[str, Any]]) -> list[str]:
    """The sentences about RoPE of a figure whose results have these settings."""
    suite, options, experiment = load_suite("mini"), Options(questions=3), load_experiment(name)
    points = expand(experiment, suite, options)
    results = {
        point: dataclasses.replace(result, settings={**result.settings, **settings_of(point)})
        for point, result in measure(points, suite).items()
    }
    texts = [text.text for text in compose(experiment, suite, options, results).page.small_print]
    return [text for text in texts if "RoPE base" in text]


@pytest.mark.parametrize("name", ["figure1", "figure5"])
def test_a_base_that_is_not_the_configs_is_said(name: str) -> None:
    said = caption(name, lambda point: {"drafter_rope_theta": 10000.0, "drafter_config_rope_theta": 500000.0})
    assert said
    assert all("EAGLE-3 10000 (its config.json says 500000)" in text for text in said)


def test_bases_that_differ_are_said() -> None:
    said = caption("figure5", lambda point: {"drafter_rope_theta": 700000.0 if point.drafter == "eagle3" else 1e4})
    assert said
    assert all("EAGLE-3 700000" in text and "PRISM 10000" in text and "config" not in text for text in said)


def test_nothing_is_said_of_what_is_as_usual() -> None:
    assert not caption("figure5", lambda point: {"drafter_rope_theta": 5e5, "drafter_config_rope_theta": 5e5})
    assert not caption("figure5", lambda point: {"target_rope_theta": 5e5})  # results without a drafter's base
