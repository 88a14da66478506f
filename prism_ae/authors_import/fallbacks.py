"""The numbers that the artifact's drawing scripts fall back to where a log is missing."""

from __future__ import annotations

from collections.abc import Mapping

from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite

_STORED = ("eagle2", "hass", "prism")
"""The drafters whose numbers ``draw_scailing.py`` stores."""

Fallbacks = Mapping[tuple[str, str, str, float], frozenset[float]]
"""Target, scale, benchmark and temperature -> the stored acceptance lengths, whatever drafter they are of."""


def fallbacks_of(experiment: Experiment, suite: Suite) -> Fallbacks:
    """The stored numbers, from the paper's values that figure 4 carries (their source is that script)."""
    scales = {scale.value: scale.name for scale in suite.scales}
    targets = {role: target.name for target in suite.targets.values() for role in target.roles}
    found: dict[tuple[str, str, str, float], frozenset[float]] = {}
    for curve in experiment.paper.values:
        if curve.drafter in _STORED and curve.role in targets:
            for x, y in zip(experiment.paper.x if curve.x is None else curve.x, curve.y, strict=True):
                if x in scales:
                    key = targets[curve.role], scales[x], curve.benchmark, float(curve.temperature)
                    found[key] = found.get(key, frozenset()) | {y}
    return found
