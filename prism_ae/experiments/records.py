"""The records of an experiment, as `figures/<name>.toml` states them. Facts only; reading is `load.py`'s."""

from __future__ import annotations

import dataclasses
from typing import Literal

from prism_ae.io.schema import record

Marker = Literal["o", "s", "^", "v", "D", "d", "P", "X", "p", "*", "x", "+", "<", ">"]
Quantity = Literal["", "al", "tps", "speed_up"]
"""Of an experiment that measures time: acceptance length, tokens per second, or speed-up over vanilla decoding."""


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

    ``questions`` replaces the suite's own limit. ``authors_time`` is how long the authors say that it takes, in words
    with its source; "" where it is not known. It is only ever quoted.
    """

    drafters: tuple[str, ...] | None = None
    controls: tuple[str, ...] | None = None
    questions: int | None = None
    authors_time: str = ""


@record
class Look:
    """How it is drawn.

    Attributes:
        panel: width and height of one panel's axes, inches; of a table, the least width and height of a cell.
        panels: what makes a panel.
        x_label: "" takes the suite's scale axis.
        positions: draft positions drawn, for the kind "positions".
        layout: of a table: methods on rows and benchmarks on columns; benchmarks on rows and methods on columns; or the
            two ways of drafting on rows, with their difference. "" for figures.
        right_label, right_color: of the right-hand axis (tokens per second), for the kind "trees".
    """

    panel: tuple[float, float]
    panels: Literal["target", "temperature", "benchmark"]
    x_label: str
    y_label: str
    positions: int | None = None
    layout: Literal["", "methods-on-rows", "methods-on-columns", "drafting"] = ""
    right_label: str = ""
    right_color: str = ""


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
        quantity: what is compared where time is measured; "" is the speed-up for "batches" and tokens per second for
            "table".
        times: how many times the next drafter's value each drafter must be above.
    """

    text: str
    order: tuple[str, ...]
    of: Literal["value", "gain"] = "value"
    since: float | None = None
    between: tuple[float, float] | None = None
    quantity: Quantity = ""
    times: float = 1.0


@record
class TreeClaim:
    """A trend over draft trees, of the kind "trees".

    Attributes:
        text: the claim in words.
        trees: "steps,branch,verified", the highest value first; () judges every pair of trees of which one is larger in
            some of the three numbers and smaller in none.
        quantity: "al" or "tps".
    """

    text: str
    trees: tuple[str, ...] = ()
    quantity: Literal["al", "tps"] = "al"


@record
class PaperCurve:
    """One of the paper's curves: ``benchmark`` "" is the mean over the experiment's; ``x`` None is the table's.

    A value that is not known is left out of ``x`` and ``y``; nothing stands in for it. Where time is measured, ``x``
    counts from 1: the places in ``cells.trees`` (kind "trees") or ``cells.benchmarks`` ("table"); for "batches" it is
    the batch size. ``quantity`` "" is the speed-up for "batches". ``rerun``: the authors' later run of their artifact,
    which is not what the paper prints.
    """

    role: str
    drafter: str
    temperature: float
    y: tuple[float, ...]
    benchmark: str = ""
    x: tuple[float, ...] | None = None
    quantity: Quantity = ""
    rerun: bool = False


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
        tree_claims: for the kind "trees".
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
    tree_claims: tuple[TreeClaim, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether seconds are what it is about."""
        return bool(self.cells.batches)

    def drafters_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.drafters if choice.drafters is None else choice.drafters

    def controls_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.controls if choice.controls is None else choice.controls
