"""What an experiment's tables must say about each other. Pure: an experiment in, problems out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prism_ae.cells import TreeShape
from prism_ae.errors import UsageError
from prism_ae.experiments.records import Claim, Experiment, Look, Selection, TreeClaim
from prism_ae.io.schema import closest

_PANELS = {
    "positions": ("temperature",),
    "scaling-grid": ("benchmark",),
    "scaling-mean": ("target", "temperature"),
    "batches": ("target",),
    "trees": ("target",),
    "table": ("target",),
}
TIMED = ("batches", "trees", "table")
"""Kinds that measure time."""
_COLOR = re.compile(r"#[0-9a-f]{6}")


def problems(experiment: Experiment) -> Iterator[str]:
    """Every contradiction, as "key: what is wrong and what would be right"; none for a sound experiment."""
    cells, look, known = experiment.cells, experiment.look, [series.drafter for series in experiment.series]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", experiment.name):
        yield f"name: '{experiment.name}' names files; use letters, digits, - and _"
    for key, values in (
        ("drafters", experiment.drafters),
        ("cells.roles", cells.roles),
        ("cells.benchmarks", cells.benchmarks),
        ("cells.temperatures", cells.temperatures),
        ("cells.drafting", cells.drafting),
    ):
        if not values:
            yield f"{key}: must not be empty"
        if len(set(values)) < len(values):
            yield f"{key}: says something twice"
    if min(cells.temperatures, default=0) < 0:
        yield "cells.temperatures: must not be negative"
    if len(set(known)) < len(known):
        yield "series: a drafter occurs twice"
    for number, series in enumerate(experiment.series):
        if not _COLOR.fullmatch(series.color):
            yield f"series.{number}.color: '{series.color}' is not of the form #1f77b4"
    yield from _selection(cells, experiment.kind)
    drawn = {"drafters": experiment.drafters, "controls": experiment.controls}
    for suite, choice in experiment.suites.items():
        drawn |= {f"suites.{suite}.drafters": choice.drafters or (), f"suites.{suite}.controls": choice.controls or ()}
        if choice.drafters == ():
            yield f"suites.{suite}.drafters: must not be empty"
        if choice.questions is not None and choice.questions < 1:
            yield f"suites.{suite}.questions: must be at least 1"
    for number, claim in enumerate(experiment.claims):
        drawn[f"claims.{number}.order"] = claim.order
        yield from (f"claims.{number}.{problem}" for problem in _claim(claim, experiment.kind))
    if experiment.tree_claims and experiment.kind != "trees":
        yield "tree_claims: belongs to the kind trees, and only there"
    for number, tree_claim in enumerate(experiment.tree_claims):
        yield from (f"tree_claims.{number}.{problem}" for problem in _tree_claim(tree_claim, cells))
    for key, names in drawn.items():
        for name in names:
            if name not in known:
                yield f"{key}: '{name}' has no [[series]]{closest(name, known)}"
    yield from _look(look, experiment.kind)
    yield from _paper(experiment, known)


def _selection(cells: Selection, kind: str) -> Iterator[str]:
    """What is said wrongly about scales, trees, batches and drafting."""
    timed = kind in TIMED
    if kind == "positions" and cells.scales != "largest":
        yield "cells.scales: must be 'largest' for the kind positions, whose curves are over positions"
    if timed and cells.scales != "largest":
        yield f"cells.scales: must be 'largest' for the kind {kind}, which has no axis of scales"
    if bool(cells.batches) != timed:
        yield f"cells.batches: belongs to the kinds {', '.join(TIMED)}, which need it, and only there"
    if kind in ("trees", "table") and len(cells.batches) > 1:
        yield f"cells.batches: must be one size for the kind {kind}"
    if min(cells.batches, default=1) < 1:
        yield "cells.batches: must be at least 1"
    for key, values in (("cells.batches", cells.batches), ("cells.trees", cells.trees)):
        if len(set(values)) < len(values):
            yield f"{key}: says something twice"
    if bool(cells.trees) != (kind == "trees"):
        yield "cells.trees: belongs to the kind trees, which needs it, and only there"
    if bool(cells.tree) == (kind == "trees"):
        yield "cells.tree: a tree of the suite, except for the kind trees, where it must be empty"
    yield from (f"cells.{problem}" for problem in _unbuildable(cells.trees))
    if "stock" in cells.drafting and cells.engine != "sglang":
        yield f"cells.drafting: the engine {cells.engine} has one way of drafting, 'exact'"


def _unbuildable(trees: tuple[str, ...]) -> Iterator[str]:
    for number, text in enumerate(trees):
        try:
            TreeShape.parse(text)
        except UsageError as error:
            yield f"trees.{number}: {error.what}"


def _look(look: Look, kind: str) -> Iterator[str]:
    if min(look.panel) <= 0:
        yield "look.panel: width and height must be positive"
    if look.panels not in _PANELS[kind]:
        yield f"look.panels: must be {' or '.join(_PANELS[kind])} for the kind {kind}"
    if look.positions is not None and look.positions < 1:
        yield "look.positions: must be at least 1"
    for key, said, owner in (
        ("positions", look.positions is not None, "positions"),
        ("layout", bool(look.layout), "table"),
        ("right_label", bool(look.right_label), "trees"),
        ("right_color", bool(look.right_color), "trees"),
    ):
        if said != (kind == owner):
            yield f"look.{key}: belongs to the kind {owner}, which needs it, and only there"
    if look.right_color and not _COLOR.fullmatch(look.right_color):
        yield f"look.right_color: '{look.right_color}' is not of the form #1f77b4"


def _claim(claim: Claim, kind: str) -> Iterator[str]:
    if len(claim.order) < 2:
        yield "order: names at least two drafters"
    if (claim.of == "gain") != (claim.since is not None):
        yield "since: belongs to of = 'gain', and only there"
    if claim.between is not None and (claim.of == "gain" or claim.between[0] > claim.between[1]):
        yield "between: the smallest and the largest x, for of = 'value'"
    if claim.quantity and kind not in TIMED:
        yield f"quantity: belongs to the kinds {', '.join(TIMED)}, and only there"
    if not claim.times > 0:
        yield f"times: must be greater than 0, got {claim.times:g}"


def _tree_claim(claim: TreeClaim, cells: Selection) -> Iterator[str]:
    yield from _unbuildable(claim.trees)
    for text in claim.trees:
        if text not in cells.trees:
            yield f"trees: '{text}' is not among cells.trees{closest(text, cells.trees)}"
    if len(claim.trees) == 1:
        yield "trees: names at least two, or none for every pair that can be compared"


def _paper(experiment: Experiment, known: list[str]) -> Iterator[str]:
    paper, grid = experiment.paper, experiment.kind == "scaling-grid"
    counted = {"trees": experiment.cells.trees, "table": experiment.cells.benchmarks}.get(experiment.kind)
    places = None if counted is None else len(counted)
    for number, curve in enumerate(paper.values):
        where = f"paper.values.{number}"
        xs = paper.x if curve.x is None else curve.x
        if len(xs) != len(curve.y):
            yield f"{where}: {len(curve.y)} values for {len(xs)} places on the x axis"
        if curve.drafter not in known:
            yield f"{where}.drafter: '{curve.drafter}' has no [[series]]{closest(curve.drafter, known)}"
        if curve.role not in experiment.cells.roles:
            yield f"{where}.role: '{curve.role}' is not among cells.roles"
        if grid and curve.benchmark not in experiment.cells.benchmarks:
            yield f"{where}.benchmark: '{curve.benchmark}' is not among cells.benchmarks"
        if not grid and curve.benchmark:
            yield f"{where}.benchmark: must be empty for the kind {experiment.kind}"
        if places is not None and not set(xs) <= set(range(1, places + 1)):
            yield f"{where}.x: counts from 1 to {places} for the kind {experiment.kind}"
        if curve.quantity and experiment.kind not in TIMED:
            yield f"{where}.quantity: belongs to the kinds {', '.join(TIMED)}, and only there"
