"""The records of an experiment, as `figures/<name>.toml` and `tables/<name>.toml` state them: facts only.

What depends on the kind of figure is the business of one module in `kinds/`; here is what every kind has.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from prism_ae.analysis.claims import Claim, ClaimPart, QuantityName
from prism_ae.analysis.paper_values import Paper
from prism_ae.cells import EXACT, STOCK, DraftLoop, TreeShape
from prism_ae.drawing.style import Series
from prism_ae.io.schema import record, suggest
from prism_ae.suites.records import DrafterRecord, Suite

_COLOR = re.compile(r"#[0-9a-f]{6}")


@record
class Selection:
    """Which cells are measured, unless options say otherwise.

    Attributes:
        roles: of the targets; each suite fills a role with its own.
        benchmarks: in display order.
        drafting: "exact", "stock", or both to compare them. Vanilla decoding has no drafting: it is always "exact".
        scales: "all" of the suite, or its "largest".
    """

    roles: tuple[str, ...]
    benchmarks: tuple[str, ...]
    temperatures: tuple[float, ...]
    engine: Literal["torch", "sglang"]
    _: dataclasses.KW_ONLY
    drafting: tuple[DraftLoop, ...] = (EXACT,)
    scales: Literal["all", "largest"] = "largest"


@record
class Look:
    """How it is drawn.

    Attributes:
        panel: width and height of one panel's axes, inches; of a table, the least width and height of a cell.
        x_label: "" takes the suite's scale axis.
    """

    panel: tuple[float, float]
    _: dataclasses.KW_ONLY
    x_label: str = ""
    y_label: str = ""


@record
class SuiteChoice:
    """What one suite measures and draws instead of the experiment's own; None: as the experiment.

    ``questions`` replaces the suite's own limit, ``batches`` the batch sizes. ``authors_time`` is how long the authors
    say that it takes, in words with its source; "" where it is not known. It is only ever quoted. ``remark`` is a
    sentence of the caption.
    """

    drafters: tuple[str, ...] | None = None
    controls: tuple[str, ...] | None = None
    questions: int | None = None
    batches: tuple[int, ...] | None = None
    authors_time: str = ""
    remark: str = ""


@record
class Experiment:
    """One figure or table; its kinds are subclasses.

    Attributes:
        drafters: drawn in every suite that ``suites`` does not name.
        added: drafters that the paper's own has not, drawn behind the others, and marked, in suites that have them.
        controls: added on request.
        series: colours and markers, in drawing order.
        about: what a claim or one of the paper's values is about where it does not say so.
        folder: where drawings go.
        remark: a sentence of the caption.
        needs_vanilla: speed-ups are drawn, so vanilla decoding is measured even where it was not named.
        draws_untimed: the acceptance of a drafter says something without its speed: prompt lookup, which SGLang is not
            driven for, is measured by the engine torch then.
    """

    _: dataclasses.KW_ONLY
    name: str
    title: str
    kind: str
    drafters: tuple[str, ...]
    added: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    cells: Selection
    look: Look
    series: tuple[Series, ...]
    remark: str = ""
    claims: tuple[Claim, ...] = ()
    paper: Paper
    suites: dict[str, SuiteChoice] = dataclasses.field(default_factory=dict)

    about: ClassVar[QuantityName] = "al"
    folder: ClassVar[str] = "figures"
    needs_vanilla: ClassVar[bool] = False
    draws_untimed: ClassVar[bool] = False

    @property
    def batches(self) -> tuple[int, ...]:
        """Sequences decoded together, each a cell whose time is measured; () where acceptance is measured."""
        return ()

    @property
    def several_batches(self) -> bool:
        """Whether batch sizes are compared."""
        return False

    @property
    def tree(self) -> str | None:
        """The suite's name of the one draft tree; None where ``trees`` are compared."""
        return None

    @property
    def trees(self) -> tuple[TreeShape, ...]:
        """The draft trees that are compared."""
        return ()

    @property
    def timed(self) -> bool:
        """Whether seconds are measured."""
        return bool(self.batches)

    def drafters_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.drafters if choice.drafters is None else choice.drafters

    def controls_for(self, suite: str) -> tuple[str, ...]:
        choice = self.suites.get(suite, SuiteChoice())
        return self.controls if choice.controls is None else choice.controls

    def refusal(self, drafter: DrafterRecord) -> str:
        """Why the drafter cannot be drawn, or ""."""
        return ""

    def own_trees(self, suite: Suite) -> tuple[TreeShape, ...]:
        """The draft trees that the file asks for; raises KeyError where the suite has no tree of its name."""
        return self.trees if self.tree is None else (suite.trees[self.tree],)

    def problems(self) -> Iterator[str]:
        """Every contradiction, as "key: what is wrong and what would be right"; none for a sound experiment."""
        known = [series.drafter for series in self.series]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            yield f"name: '{self.name}' names files; use letters, digits, - and _"
        yield from self._lists()
        if min(self.cells.temperatures, default=0) < 0:
            yield "cells.temperatures: must not be negative"
        if self.tree == "":
            yield "cells.tree: must name a tree of the suite"
        if STOCK in self.cells.drafting and self.cells.engine != "sglang":
            yield f"cells.drafting: the engine {self.cells.engine} has one way of drafting, 'exact'"
        if len(set(known)) < len(known):
            yield "series: a drafter occurs twice"
        yield from (
            f"series.{number}.{problem}"
            for number, series in enumerate(self.series)
            for problem in color_problems("color", series.color)
        )
        if min(self.look.panel) <= 0:
            yield "look.panel: width and height must be positive"
        for number, claim in enumerate(self.claims):
            yield from (f"claims.{number}.{problem}" for problem in claim.problems())
            if claim.subject != "values" or all(part.paper_only for part in claim.parts):
                yield f"claims.{number}.parts: a claim of an experiment's file needs one that is measured"
            for place, part in enumerate(claim.parts):
                if part.experiment not in ("", self.name):
                    yield f"claims.{number}.parts.{place}.experiment: is the one of this file; leave the key out"
                yield from (f"claims.{number}.parts.{place}: {problem}" for problem in self.part_problems(part))
        yield from self._unknown(known)
        for number in range(len(self.paper.values)):
            yield from (f"paper.values.{number}{problem}" for problem in self._curve(number, known))

    def part_problems(self, part: ClaimPart) -> Iterator[str]:
        """What is wrong about a part of a claim that is about this experiment."""
        known = [series.drafter for series in self.series]
        for name in (*part.drafters, *part.against):
            if name not in known:
                yield f"'{name}' has no [[series]] in {self.name}{suggest(name, known)}"
        for tree in part.trees:
            if tree not in self.trees:
                yield f"'{tree}' is not among cells.trees of {self.name}{suggest(str(tree), map(str, self.trees))}"
        if self.trees and (part.trend or part.at):
            yield f"trend and at: not over the draft trees of {self.name}"
        if part.quantity and (part.quantity == "acceptance_rate") != (self.about == "acceptance_rate"):
            yield f"'{part.quantity}' is not what the kind {self.kind} measures"
        if part.quantity in ("tps", "speed_up", "round_seconds", "draft_seconds") and not self.timed:
            yield f"'{part.quantity}' belongs to experiments that measure time, not to the kind {self.kind}"

    def _lists(self) -> Iterator[str]:
        for key, values in (
            ("drafters", self.drafters),
            ("cells.roles", self.cells.roles),
            ("cells.benchmarks", self.cells.benchmarks),
            ("cells.temperatures", self.cells.temperatures),
            ("cells.drafting", self.cells.drafting),
        ):
            if not values:
                yield f"{key}: must not be empty"
            if len(set(values)) < len(values):
                yield f"{key}: has duplicates"
        if len({*self.drafters, *self.added}) < len(set(self.drafters)) + len(self.added):
            yield "added: names a drafter twice, or one of drafters"
        for suite, choice in self.suites.items():
            if choice.drafters == ():
                yield f"suites.{suite}.drafters: must not be empty"
            if choice.batches is not None and not (choice.batches and self.several_batches and min(choice.batches) > 0):
                yield f"suites.{suite}.batches: only for an experiment over batch sizes, which are positive"
            if choice.questions is not None and choice.questions < 1:
                yield f"suites.{suite}.questions: must be at least 1"

    def _unknown(self, known: list[str]) -> Iterator[str]:
        """Drafters that have no series."""
        drawn = {"drafters": self.drafters, "controls": self.controls}
        for suite, choice in self.suites.items():
            drawn |= {f"suites.{suite}.{key}": getattr(choice, key) or () for key in drawn if "." not in key}
        drawn["added"] = self.added
        for key, names in drawn.items():
            yield from (
                f"{key}: '{name}' has no [[series]]{suggest(name, known)}" for name in names if name not in known
            )

    def _curve(self, number: int, known: list[str]) -> Iterator[str]:
        curve = self.paper.values[number]
        xs = self.paper.x if curve.x is None else curve.x
        if len(xs) != len(curve.y):
            yield f": {len(curve.y)} values for {len(xs)} places on the x axis"
        if curve.drafter not in known:
            yield f".drafter: '{curve.drafter}' has no [[series]]{suggest(curve.drafter, known)}"
        if curve.drafter in self.added:
            yield f".drafter: '{curve.drafter}' is among 'added', the drafters that the paper's own has not"
        if curve.role not in self.cells.roles:
            yield f".role: '{curve.role}' is not among cells.roles"
        yield from self.curve_problems(curve.benchmark, xs)
        if curve.quantity and not self.timed:
            yield f".quantity: belongs to experiments that measure time, not to the kind {self.kind}"

    def curve_problems(self, benchmark: str, xs: tuple[float, ...]) -> Iterator[str]:
        """What is wrong about the places of one of the paper's curves."""
        if benchmark:
            yield f".benchmark: must be empty for the kind {self.kind}"


def counted(xs: tuple[float, ...], places: int, kind: str) -> Iterator[str]:
    """Whether the x of a paper's curve count ``places`` from 1."""
    if not set(xs) <= set(range(1, places + 1)):
        yield f".x: counts from 1 to {places} for the kind {kind}"


def color_problems(key: str, color: str) -> Iterator[str]:
    """Whether a colour can be read."""
    if not _COLOR.fullmatch(color):
        yield f"{key}: '{color}' is not of the form #1f77b4"
