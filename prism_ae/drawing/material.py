"""What every drawing is made of: summaries, the paper's values, and how drafters look."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from prism_ae.analysis.estimates import Estimate, Summary, unique
from prism_ae.analysis.paper_values import PaperValue
from prism_ae.drawing.style import SeriesStyle
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class Material:
    """Values and looks.

    Attributes:
        known: the paper's values, () if they are not drawn.
        al: the quantity "al": "al_macro" or "al_micro".
        styles: per drafter, in legend order.
    """

    summaries: Sequence[Summary]
    known: Sequence[PaperValue]
    al: str
    styles: Mapping[str, SeriesStyle]
    suite: Suite

    def value(self, summary: Summary, quantity: str) -> Estimate | None:
        """A summary's value; None where it is missing or undefined."""
        return summary.values.get(self.al if quantity == "al" else quantity)

    @property
    def targets(self) -> list[str]:
        return unique(summary.place.target for summary in self.summaries)

    @property
    def temperatures(self) -> list[float]:
        return unique(summary.place.temperature for summary in self.summaries)

    @property
    def benchmarks(self) -> list[str]:
        """Those that values are of, the mean apart."""
        return unique(summary.place.benchmark for summary in self.summaries if summary.place.benchmark)

    def target_label(self, target: str) -> str:
        return self.suite.targets[target].label

    def legend_label(self, drafter: str) -> str:
        """A drafter's label, marked where not one of its cells was measured."""
        label = self.styles[drafter].label
        return f"{label} (not measured)" if self.unmeasured(drafter) else label

    def unmeasured(self, drafter: str) -> bool:
        return not any(summary.cell_ids for summary in self.summaries if summary.place.drafter == drafter)
