"""The records of an experiment, as `figures/<name>.toml` states them. Facts only; reading is `load.py`'s."""

from __future__ import annotations

import dataclasses
from typing import Literal

from prism_ae.toml import record

Marker = Literal["o", "s", "^", "v", "D", "d", "P", "X", "p", "*", "x", "+", "<", ">"]


@record
class Selection:
    """Which cells are measured, unless options say otherwise.

    Attributes:
        roles: of the targets; each suite fills a role with its own.
        scales: "all" of the suite, or its "largest".
        benchmarks: in display order.
        tree: a name among the suite's trees; "" where ``trees`` names them.
        engine: "torch" or "sglang".
        trees: draft trees as "steps,branch,verified", for the kind "trees", whose x axis they are.
        batches: sequences decoded together, each a cell whose time is measured; () for acceptance cells.
        drafting: "exact", "stock", or both to compare them. Vanilla decoding has no drafting: it is always "exact".
    """

    roles: tuple[str, ...]
    scales: Literal["all", "largest"]
    benchmarks: tuple[str, ...]
    temperatures: tuple[float, ...]
    tree: str
    engine: Literal["torch", "sglang"]
    trees: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    drafting: tuple[Literal["exact", "stock"], ...] = ("exact",)


@record
class SuiteChoice:
    """What one suite measures and draws instead of the experiment's own; None: as the experiment.

    ``questions`` replaces the suite's own limit: a batch needs more questions than it has places.
    """

    drafters: tuple[str, ...] | None = None
    controls: tuple[str, ...] | None = None
    questions: int | None = None


@record
class Look:
    """How it is drawn.

    Attributes:
        panel: width and height of one panel's axes, inches.
        panels: what makes a panel.
        x_label: "" takes the suite's scale axis.
        positions: draft positions drawn, for the kind "positions".
    """

    panel: tuple[float, float]
    panels: Literal["target", "temperature", "benchmark"]
    x_label: str
    y_label: str
    positions: int | None = None


@record
class Series:
    """Colour (#rrggbb) and marker of a drafter; ``label`` "" takes the suite's."""

    drafter: str
    color: str
    marker: Marker
    label: str = ""


@record
class Claim:
    """A trend that the paper states, in a form that can be judged.

    Attributes:
        text: the claim in words.
        order: drafters, the highest first.
        of: "value" compares at every x of every curve; "gain" compares, once per curve, the rise from ``since`` to
            the largest x.
        since: an x (scale value or position), for "gain".
        between: the smallest and largest x at which "value" is judged; None for all.
    """

    text: str
    order: tuple[str, ...]
    of: Literal["value", "gain"] = "value"
    since: float | None = None
    between: tuple[float, float] | None = None


@record
class PaperCurve:
    """One of the paper's curves: ``benchmark`` "" is the mean over the experiment's; ``x`` None is the table's.

    A value that is not known is left out of ``x`` and ``y``; nothing stands in for it.
    """

    role: str
    drafter: str
    temperature: float
    y: tuple[float, ...]
    benchmark: str = ""
    x: tuple[float, ...] | None = None


@record
class Paper:
    """The paper's own values: a reference layer, never a stand-in for a measurement."""

    source: str
    note: str
    x: tuple[float, ...]
    values: tuple[PaperCurve, ...]


@record
class Experiment:
    """One figure or table.

    Attributes:
        kind: "positions": acceptance rate over draft positions, mean over benchmarks; "scaling-grid": acceptance
            length over training scales, one panel per benchmark; "scaling-mean": the same, mean over benchmarks;
            "batches": speed-up over vanilla at each batch size, mean over benchmarks (bars); "trees": acceptance length
            (bars) and tokens per second (line) of one drafter with each draft tree; "table": acceptance length and
            tokens per second of every drafter and benchmark.
        drafters: drawn in every suite that ``suites`` does not name.
        controls: added on request.
        series: colours and markers, in drawing order.
    """

    name: str
    title: str
    kind: Literal["positions", "scaling-grid", "scaling-mean", "batches", "trees", "table"]
    drafters: tuple[str, ...]
    controls: tuple[str, ...]
    cells: Selection
    look: Look
    series: tuple[Series, ...]
    claims: tuple[Claim, ...]
    paper: Paper
    suites: dict[str, SuiteChoice] = dataclasses.field(default_factory=dict)

    def drafters_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.drafters if choice.drafters is None else choice.drafters

    def controls_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.controls if choice.controls is None else choice.controls
