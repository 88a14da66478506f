"""The kind of tables 4 to 7: acceptance length and tokens per second of every drafter and benchmark; and of the table
that compares two ways of drafting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from prism_ae.analysis.claims import QuantityName
from prism_ae.analysis.estimates import Place
from prism_ae.analysis.paper_values import PaperCurve
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.drawing.paper_tables import Source, drafting_table, methods_on_columns, methods_on_rows
from prism_ae.experiments.kinds.base import al_means
from prism_ae.experiments.kinds.speed import RATIO_MEANS, TPS_MEANS, Timed, TimedTreeSelection
from prism_ae.experiments.records import Look, counted
from prism_ae.io.schema import record
from prism_ae.suites.records import Suite

_LAYOUTS = {
    "methods-on-rows": methods_on_rows, "methods-on-columns": methods_on_columns, "drafting": drafting_table,
}  # fmt: skip


@record
class TableLook(Look):
    """``layout``: methods on rows and benchmarks on columns; the other way around; or the two ways of drafting on rows,
    with their difference."""

    layout: Literal["methods-on-rows", "methods-on-columns", "drafting"]
    _: dataclasses.KW_ONLY
    panels: Literal["target"] = "target"


@record
class TimedTable(Timed):
    """What every table of measured time has: one draft tree, one batch size, vanilla decoding beside its drafters."""

    cells: TimedTreeSelection

    axis: ClassVar[str] = "batch"
    folder: ClassVar[str] = "tables"
    needs_vanilla: ClassVar[bool] = True
    draws_untimed: ClassVar[bool] = True

    @property
    def tree(self) -> str | None:
        return self.cells.tree

    @property
    def draws_vanilla_alone(self) -> bool:
        return True

    def x(self, place: Place, suite: Suite) -> Any:
        return None


@record
class PaperTable(TimedTable):
    """A table of speeds."""

    kind: Literal["table"]
    look: TableLook

    about: ClassVar[QuantityName] = "tps"
    benchmarks_drawn: ClassVar[Literal["each", "mean", "both"]] = "both"

    @property
    def compares_drafting(self) -> bool:
        return self.look.layout == "drafting"

    @property
    def draws_vanilla_alone(self) -> bool:
        return not self.compares_drafting

    def paper_x(self, curve: PaperCurve, x: float) -> tuple[str | None, Any]:
        return self.cells.benchmarks[int(x) - 1], None

    def curve_problems(self, benchmark: str, xs: tuple[float, ...]) -> Iterator[str]:
        yield from super().curve_problems(benchmark, xs)
        yield from counted(xs, len(self.cells.benchmarks), self.kind)

    def means(self, *, micro: bool) -> list[str]:
        if self.compares_drafting:
            return [
                f"{al_means(micro=micro)}; ms: milliseconds of a round, of all benchmarks' rounds together in the mean",
                "Difference: exact less SGLang's own, bold where its interval leaves out 0",
            ]
        return [
            al_means(micro=micro),
            TPS_MEANS,
            f"Speed-up: {RATIO_MEANS}",
            "Round cost: seconds of a round / seconds of a step of vanilla decoding. Decode: the speed-up without "
            "prefills, tokens per round / round cost",
            "Bold: the best of a target's methods",
            "Means over benchmarks: of AL and TPS the arithmetic mean, of the speed-up the mean TPS / vanilla's mean "
            "TPS; what comes from rounds is of all benchmarks' rounds together",
        ]

    def painter(self, material: Material) -> Painter:
        return _LAYOUTS[self.look.layout](Source(material, self.look.panel))
