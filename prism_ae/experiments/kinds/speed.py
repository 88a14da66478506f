"""What the kinds have in common that measure time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from prism_ae.analysis.estimates import Summary
from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO, SPEED, TOKENS_PER_ROUND, Quantity
from prism_ae.analysis.results import Results
from prism_ae.cells import Point
from prism_ae.errors import UsageError
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.records import Selection
from prism_ae.io.schema import record

TPS_MEANS = "TPS: generated tokens / wall seconds of the whole run, prefill included"
RATIO_MEANS = "TPS / TPS of vanilla decoding"
_COUNTED = frozenset(quantity.name for quantity in (AL_MACRO, AL_MICRO, TOKENS_PER_ROUND))
"""Quantities that need no time."""


@record
class TimedSelection(Selection):
    """Cells whose time is measured, ``batches`` sequences decoded together; there is no axis of scales."""

    batches: tuple[int, ...]
    _: dataclasses.KW_ONLY
    scales: Literal["largest"] = "largest"


@record
class TimedTreeSelection(TimedSelection):
    """With one draft tree, ``tree`` by its name among the suite's."""

    tree: str


@record
class Timed(Kind):
    """An experiment whose cells' seconds are measured."""

    cells: TimedSelection

    quantities: ClassVar[tuple[Quantity, ...]] = SPEED

    @property
    def batches(self) -> tuple[int, ...]:
        return self.cells.batches

    @property
    def compares_drafting(self) -> bool:
        """Whether two ways of drafting are drawn, and marked, beside each other."""
        return False

    @property
    def draws_vanilla_alone(self) -> bool:
        """Whether a drawing of vanilla decoding alone says something."""
        return False

    def summarise(self, results: Results) -> tuple[Summary, ...]:
        return tuple(map(_with_time, super().summarise(results)))

    def judged(self, results: Results, quantity: Quantity) -> tuple[Summary, ...]:
        return tuple(map(_with_time, super().judged(results, quantity)))

    def check_drawable(self, points: Iterable[Point]) -> None:
        """Numbers of two draft loops beside each other, unmarked, would mislead; only one layout marks them."""
        ways = {point.drafting for point in points if point.tree is not None}
        if len(ways) > 1 and not self.compares_drafting:
            raise UsageError(
                f"--drafting both: {self.name} draws one way of drafting",
                "draw it once with --drafting exact and once with --drafting stock, or draw the table 'drafting'",
            )
        if not ways and not self.draws_vanilla_alone:
            raise UsageError(f"--drafters: {self.name} has nothing to draw of vanilla decoding alone", "add a drafter")

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        sizes = self.cells.batches
        if not sizes:
            yield f"cells.batches: the kind {self.kind} needs at least one size"
        if len(sizes) > 1 and not self.several_batches:
            yield f"cells.batches: must be one size for the kind {self.kind}"
        if min(sizes, default=1) < 1:
            yield "cells.batches: must be at least 1"
        if len(set(sizes)) < len(sizes):
            yield "cells.batches: has duplicates"


def _with_time(summary: Summary) -> Summary:
    """Without the speeds of a drafter whose time was not measured: other cells were decoded beside it."""
    if summary.place.batch is not None:
        return summary
    counted = {name: value for name, value in summary.values.items() if name in _COUNTED}
    return dataclasses.replace(summary, values=counted)
