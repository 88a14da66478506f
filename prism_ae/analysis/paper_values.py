"""The paper's values for what was asked of an experiment that measures time: one record per number.

They are drawn only as a labelled layer, on request, and stand in for nothing. A verdict counts in how many of them a
claim holds, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from prism_ae.analysis.entries import Entry
from prism_ae.cells import TreeShape
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite

QUANTITY = {"batches": "speed_up", "trees": "al", "table": "tps"}
"""What a claim or one of the paper's values is about where it does not say so, by kind of experiment."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """One number of the paper.

    Attributes:
        benchmark: "" is the mean over the experiment's benchmarks.
        tree, batch: None where the kind of experiment has only one.
        quantity: "al" (micro, as the authors' client counts), "tps" or "speed_up".
        rerun: from the authors' later run of their artifact, not printed in the paper.
    """

    target: str
    drafter: str
    temperature: float
    benchmark: str
    tree: str | None
    batch: int | None
    quantity: str
    value: float
    rerun: bool


def references(
    experiment: Experiment, suite: Suite, entries: Sequence[Entry], drafters: Collection[str]
) -> tuple[Reference, ...]:
    """The paper's values at places of ``entries``, of the drafters that were asked for (with or without an entry)."""
    targets = {target.role: target.name for target in suite.targets.values()}
    places = {(e.target, e.temperature, e.benchmark) for e in entries}
    trees, batches = {e.tree for e in entries}, {e.batch for e in entries}
    found = []
    for curve in experiment.paper.values:
        xs = experiment.paper.x if curve.x is None else curve.x
        for x, value in zip(xs, curve.y, strict=True):
            benchmark, tree, batch = _place(experiment, x)
            target = targets.get(curve.role, "")
            asked = (target, curve.temperature, benchmark) in places and curve.drafter in drafters
            if asked and (tree is None or tree in trees) and (batch is None or batch in batches):
                quantity = curve.quantity or QUANTITY[experiment.kind]
                place = (target, curve.drafter, curve.temperature, benchmark, tree, batch)
                found.append(Reference(*place, quantity, value, curve.rerun))
    return tuple(found)


def _place(experiment: Experiment, x: float) -> tuple[str, str | None, int | None]:
    """Benchmark, tree and batch that an x of the paper's values stands for."""
    if experiment.kind == "batches":
        return "", None, int(x)
    if experiment.kind == "trees":
        return "", str(TreeShape.parse(experiment.cells.trees[int(x) - 1])), None
    return experiment.cells.benchmarks[int(x) - 1], None, None
