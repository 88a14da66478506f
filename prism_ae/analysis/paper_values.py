"""The paper's own values at places that were asked for: drawn only as a labelled layer, on request, and stand-ins for
nothing. A verdict also counts in how many of them a claim holds."""

from __future__ import annotations

import dataclasses

from prism_ae.analysis.claims import QuantityName
from prism_ae.io.schema import record


@record
class PaperCurve:
    """One of the paper's curves: ``benchmark`` "" is the mean over the experiment's; ``x`` None is the table's.

    A value that is not known is left out of ``x`` and ``y``; nothing stands in for it. What an x is, is the
    experiment's kind's: a scale's value, a draft position, a batch size, or the place, from 1, in ``cells.trees`` or
    ``cells.benchmarks``. ``rerun``: the authors' later run of their artifact, which is not what the paper prints.
    """

    role: str
    drafter: str
    temperature: float
    y: tuple[float, ...]
    benchmark: str = ""
    x: tuple[float, ...] | None = None
    quantity: QuantityName = ""
    rerun: bool = False


@record
class Paper:
    """The paper's own values: a reference layer, never a stand-in for a measurement."""

    source: str
    note: str
    x: tuple[float, ...]
    values: tuple[PaperCurve, ...]

    def points(self, curve: PaperCurve) -> list[tuple[float, float]]:
        """The (x, value) of a curve; raises ValueError where it has another number of values than places."""
        return list(zip(self.x if curve.x is None else curve.x, curve.y, strict=True))


@dataclasses.dataclass(frozen=True)
class PaperValue:
    """One number of the paper.

    Attributes:
        benchmark: None is the mean over the experiment's.
        x: as the measured values' x on the same axis, a tree where trees are the axis.
        quantity: "al" (micro where time is measured, as the authors' client counts), "tps" or "speed_up".
        rerun: from the authors' later run of their artifact, not printed in the paper.
    """

    target: str
    drafter: str
    temperature: float
    benchmark: str | None
    x: object
    quantity: str
    value: float
    rerun: bool
