"""The kind of the table "anatomy": how large drafters are, what rounds take, and how near that is to memory's limit."""

from __future__ import annotations

from typing import ClassVar, Literal

from prism_ae.analysis.claims import QuantityName
from prism_ae.analysis.quantities import LIMIT, SPEED, Quantity
from prism_ae.drawing.anatomy import anatomy_table
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Painter
from prism_ae.experiments.kinds.table import TimedTable
from prism_ae.io.schema import record


@record
class Anatomy(TimedTable):
    """A table of sizes and of seconds by stage, over all benchmarks' rounds together."""

    kind: Literal["anatomy"]

    about: ClassVar[QuantityName] = "round_seconds"
    quantities: ClassVar[tuple[Quantity, ...]] = (*SPEED, *LIMIT)

    def means(self, *, micro: bool) -> list[str]:
        return [
            "Parameters in millions: all of a drafter's own, their share of the target's, those that its first draft "
            "step runs. The target's embedding and head, which draft heads share, are not among them. Of vanilla "
            "decoding the target's, and those that a step runs",
            "Read: MB that a round's draft steps and its verification read of memory, by arithmetic: weights (of "
            "embedding tables the tokens' rows; a shared head in each draft step), keys and values of the mean context",
            "Milliseconds of a draft step, and of a round by stage: draft, verify (the target's forward pass), sample "
            "(with the commit) and host; unexplained: the part of the round that is in none. Of vanilla: of a step",
            "Round cost: seconds of a round / seconds of a step of vanilla decoding. Tokens: those that a round adds, "
            "the prefill's left out",
            "MBU: bytes read per second of decoding / bytes per second that the device was measured to read",
            "Decode speed-up, predicted: tokens / (MB of a round / MB of a step of vanilla decoding), as if time "
            "were bytes; measured: tokens / round cost",
            "All benchmarks' rounds together",
        ]

    def painter(self, material: Material) -> Painter:
        return anatomy_table(material, self.quantities, self.look.panel)
