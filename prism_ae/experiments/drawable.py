"""What no drawing can show, told from the points alone: refused before it is measured, not after."""

from __future__ import annotations

from collections.abc import Iterable

from prism_ae.cells import Point
from prism_ae.errors import UsageError
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.kinds.speed import Timed


def check_drawable(experiment: Kind, points: Iterable[Point]) -> None:
    """Raises UsageError where an experiment that measures time is asked for what its drawing cannot show.

    Numbers of two draft loops beside each other, unmarked, would mislead; only one layout marks them.
    """
    if not isinstance(experiment, Timed):
        return
    ways = {point.drafting for point in points if point.tree is not None}
    if len(ways) > 1 and not experiment.compares_drafting:
        raise UsageError(
            f"--drafting both: {experiment.name} draws one way of drafting",
            "draw it once with --drafting exact and once with --drafting stock, or draw the table 'drafting'",
        )
    if not ways and not experiment.draws_vanilla_alone:
        raise UsageError(
            f"--drafters: {experiment.name} has nothing to draw of vanilla decoding alone", "add a drafter"
        )
