"""What the kinds have in common that draw acceptance as curves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from prism_ae.analysis.quantities import ACCEPTANCE, Quantity
from prism_ae.drawing.curves import Curve, curves_of
from prism_ae.drawing.material import Material
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.records import Selection
from prism_ae.io.schema import record
from prism_ae.suites.records import DrafterRecord


@record
class AcceptanceSelection(Selection):
    """Cells that share one draft tree, ``tree`` by its name among the suite's."""

    tree: str


@record
class Acceptance(Kind):
    """Curves of acceptance, whose numbers do not depend on what else is in the batch."""

    cells: AcceptanceSelection

    quantities: ClassVar[tuple[Quantity, ...]] = ACCEPTANCE
    same_texts_among: ClassVar[str] = "drafters and scales"
    paper_layer: ClassVar[str] = "Pale lines"
    keeps_unpublished: ClassVar[bool] = True

    @property
    def tree(self) -> str | None:
        return self.cells.tree

    def refusal(self, drafter: DrafterRecord) -> str:
        return "it drafts nothing" if drafter.kind == "vanilla" else ""


class Curves:
    """A drawing's curves, chosen panel by panel."""

    def __init__(self, experiment: Kind, material: Material) -> None:
        self.measured, self._paper = curves_of(
            material, lambda place: experiment.x(place, material.suite), experiment.about
        )

    def of(
        self, target: str, temperatures: Iterable[float], benchmark: str | None = None
    ) -> tuple[tuple[Curve, ...], tuple[Curve, ...]]:
        """The measured curves and the paper's."""
        wanted = {(target, temperature, benchmark) for temperature in temperatures}
        measured, paper = (
            tuple(curve for curve in layer if (curve.target, curve.temperature, curve.benchmark) in wanted)
            for layer in (self.measured, self._paper)
        )
        return measured, paper
