"""Figure 7's kind: speed-up over vanilla decoding at each batch size, the mean over benchmarks, as bars."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from prism_ae.analysis.claims import QuantityName
from prism_ae.analysis.paper_values import PaperCurve
from prism_ae.drawing.bars import Bars
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.kinds.speed import RATIO_MEANS, TPS_MEANS, Timed, TimedTreeSelection
from prism_ae.experiments.records import Look
from prism_ae.io.schema import record


@record
class BatchesLook(Look):
    """One panel per target."""

    panels: Literal["target"] = "target"


@record
class Batches(Timed):
    """Speed-up over vanilla decoding at each batch size."""

    kind: Literal["batches"]
    cells: TimedTreeSelection
    look: BatchesLook

    about: ClassVar[QuantityName] = "speed_up"
    axis: ClassVar[str] = "batch"
    needs_vanilla: ClassVar[bool] = True

    @property
    def tree(self) -> str | None:
        return self.cells.tree

    @property
    def several_batches(self) -> bool:
        return True

    def paper_x(self, curve: PaperCurve, x: float) -> tuple[str | None, Any]:
        return None, int(x)

    def means(self, *, micro: bool) -> list[str]:
        return [f"Acceleration ratio: {RATIO_MEANS} at the same batch size, of the means over benchmarks", TPS_MEANS]

    def painter(self, material: Material) -> Painter:
        return Bars(material, self.look.panel, self.look.x_label, self.look.y_label)
