"""Figure 8's kind: acceptance length (bars) and tokens per second (line) of one drafter with each draft tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from prism_ae.analysis.paper_values import PaperCurve
from prism_ae.cells import TreeShape
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.drawing.tree_bars import TreeBars
from prism_ae.experiments.kinds.base import al_means
from prism_ae.experiments.kinds.speed import TPS_MEANS, Timed, TimedSelection
from prism_ae.experiments.records import Look, color_problems, counted
from prism_ae.io.schema import record


@record
class TreesSelection(TimedSelection):
    """``trees`` are the x axis, in their order."""

    trees: tuple[TreeShape, ...]
    _: dataclasses.KW_ONLY
    tree: Literal[""] = ""


@record
class TreesLook(Look):
    """``right_label``, ``right_color``: of the right-hand axis, tokens per second."""

    right_label: str
    right_color: str
    _: dataclasses.KW_ONLY
    panels: Literal["target"] = "target"


@record
class Trees(Timed):
    """Acceptance length and tokens per second of one drafter's trees."""

    kind: Literal["trees"]
    cells: TreesSelection
    look: TreesLook

    axis: ClassVar[str] = "tree"

    @property
    def trees(self) -> tuple[TreeShape, ...]:
        return self.cells.trees

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        trees = self.cells.trees
        if not trees:
            yield "cells.trees: the kind trees needs at least one"
        if len(set(trees)) < len(trees):
            yield "cells.trees: has duplicates"
        if not self.look.right_label:
            yield "look.right_label: must not be empty"
        yield from color_problems("look.right_color", self.look.right_color)

    def curve_problems(self, benchmark: str, xs: tuple[float, ...]) -> Iterator[str]:
        yield from super().curve_problems(benchmark, xs)
        yield from counted(xs, len(self.cells.trees), self.kind)

    def paper_x(self, curve: PaperCurve, x: float) -> tuple[str | None, Any]:
        return None, self.cells.trees[int(x) - 1]

    def means(self, *, micro: bool) -> list[str]:
        return [al_means(micro=micro), TPS_MEANS]

    def painter(self, material: Material) -> Painter:
        look = self.look
        return TreeBars(material, look.panel, look.x_label, look.y_label, look.right_label, look.right_color)
