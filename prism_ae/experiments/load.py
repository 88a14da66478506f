"""Experiments from TOML, checked once at the border so that everything behind it may trust them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_ae.cells import TreeShape
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.records import Claim, Experiment, Selection
from prism_ae.toml import check, closest, meant, read_toml

FOLDERS = ("figures", "tables")
"""Where experiments' files are, in the order in which they are listed."""


def experiment_folder(kind: str = "figures") -> Path:
    """One of `FOLDERS`: package data in a wheel, beside the package in a checkout."""
    packaged = Path(__file__).parent / kind
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / kind


def experiment_names() -> tuple[str, ...]:
    """The experiments that come with the package: figures, then tables, each in the order of their numbers."""
    return tuple(_files())


def _files() -> dict[str, Path]:
    """Name -> file of the experiments that come with the package, in order."""
    return {
        path.stem: path
        for kind in FOLDERS
        for path in sorted(experiment_folder(kind).glob("*.toml"), key=lambda path: _natural(path.stem))
    }


def load_experiment(name_or_path: str | Path) -> Experiment:
    """An experiment by its name, or from a file of one's own (a path that ends in ``.toml``).

    Raises:
        UsageError: no experiment of that name.
        ConfigError: the file says something impossible; the message names file, key and what would be right.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        files = _files()
        if str(name_or_path) not in files:
            raise UsageError(
                f"there is no experiment '{name_or_path}'{meant(str(name_or_path), files)}",
                f"experiments: {', '.join(files)}; or give the path of a .toml file",
            )
        path = files[str(name_or_path)]
    return parse_experiment(read_toml(path), str(path))


def parse_experiment(data: dict[str, Any], where: str) -> Experiment:
    """An experiment from the tables of its file; ``where`` names the file in messages. Raises ConfigError."""
    experiment = check(data, Experiment, where)
    if problems := list(_problems(experiment)):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems), "correct the file and run again")
    return experiment


_PANELS = {
    "positions": ("temperature",),
    "scaling-grid": ("benchmark",),
    "scaling-mean": ("target", "temperature"),
    "batches": ("target",),
    "trees": ("target",),
    "table": ("target",),
}
_TIMED = ("batches", "trees", "table")
"""Kinds that measure time."""


def _problems(experiment: Experiment) -> Iterator[str]:
    """What the tables say wrongly about each other."""
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
        if not re.fullmatch(r"#[0-9a-f]{6}", series.color):
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
        yield from (f"claims.{number}.{problem}" for problem in _claim(claim))
    for key, names in drawn.items():
        for name in names:
            if name not in known:
                yield f"{key}: '{name}' has no [[series]]{closest(name, known)}"
    if min(look.panel) <= 0:
        yield "look.panel: width and height must be positive"
    if look.panels not in _PANELS[experiment.kind]:
        yield f"look.panels: must be {' or '.join(_PANELS[experiment.kind])} for the kind {experiment.kind}"
    if (look.positions is not None) != (experiment.kind == "positions"):
        yield "look.positions: belongs to the kind positions, and only there"
    if look.positions is not None and look.positions < 1:
        yield "look.positions: must be at least 1"
    yield from _paper(experiment, known)


def _selection(cells: Selection, kind: str) -> Iterator[str]:
    """What is said wrongly about scales, trees, batches and drafting."""
    timed = kind in _TIMED
    if kind == "positions" and cells.scales != "largest":
        yield "cells.scales: must be 'largest' for the kind positions, whose curves are over positions"
    if timed and cells.scales != "largest":
        yield f"cells.scales: must be 'largest' for the kind {kind}, which has no axis of scales"
    if bool(cells.batches) != timed:
        yield f"cells.batches: belongs to the kinds {', '.join(_TIMED)}, which need it, and only there"
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
    for number, text in enumerate(cells.trees):
        try:
            TreeShape.parse(text)
        except UsageError as error:
            yield f"cells.trees.{number}: {error.what}"
    if "stock" in cells.drafting and cells.engine != "sglang":
        yield f"cells.drafting: the engine {cells.engine} has one way of drafting, 'exact'"


def _claim(claim: Claim) -> Iterator[str]:
    if len(claim.order) < 2:
        yield "order: names at least two drafters"
    if (claim.of == "gain") != (claim.since is not None):
        yield "since: belongs to of = 'gain', and only there"
    if claim.between is not None and (claim.of == "gain" or claim.between[0] > claim.between[1]):
        yield "between: the smallest and the largest x, for of = 'value'"


def _paper(experiment: Experiment, known: list[str]) -> Iterator[str]:
    paper, grid = experiment.paper, experiment.kind == "scaling-grid"
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
            yield f"{where}.benchmark: this kind draws means over benchmarks"


def _natural(name: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"(\D*)(\d+)(.*)", name)
    return (match[1], int(match[2]), match[3]) if match else (name, 0, "")
