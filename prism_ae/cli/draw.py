"""Drawing a request's experiments from the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.cli.measure import measured
from prism_ae.cli.output import say
from prism_ae.cli.summary import Drawn
from prism_ae.errors import StoreError
from prism_ae.experiments import labels
from prism_ae.experiments.request import Request, drawn_in
from prism_ae.io.paths import why_not
from prism_ae.io.words import pluralise
from prism_ae.planning.plan import Plan
from prism_ae.store import Store
from prism_ae.suites.records import Suite


def check_labels(request: Request) -> None:
    """A label that cannot be drawn is refused before anything is measured; raises ConfigError."""
    for experiment, points, places in zip(request.experiments, request.points, request.places, strict=True):
        labels.check_labels(experiment, request.suite, points, places)


def check_writable(out: Path | None, request: Request) -> None:
    """What cannot be drawn or written is refused before hours of measuring.

    Raises UsageError, ConfigError and StoreError.
    """
    for experiment, points in zip(request.experiments, request.points, strict=True):
        experiment.check_drawable(points)
    check_labels(request)
    for place in dict.fromkeys(drawn_in(out, experiment) for experiment in request.experiments):
        folder = place / request.suite.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            hint = "choose another place with --out"
            raise StoreError(f"cannot write to {folder}: {why_not(error, folder)}", hint) from error


def draw(request: Request, plan: Plan, store: Store, out: Path | None, *, with_paper: bool) -> tuple[Drawn, ...]:
    """Draw every experiment and print the files, one per line; ``out`` as `drawn_in` takes it. Raises StoreError."""
    from prism_ae.experiments.compose import compose
    from prism_ae.experiments.render import render

    check_labels(request)
    found = measured(plan, store)
    drawn = []
    for experiment, points in zip(request.experiments, request.points, strict=True):
        own = {point: found[point] for point in points if point in found}
        present = [point for point in own if point not in plan.from_store_only]
        notes = (*_mixture(len(own) - len(present), len(own)), *_recipes(request.suite, present))
        place = drawn_in(out, experiment)
        drawing = compose(experiment, request.suite, request.options, own, with_paper=with_paper, notes=notes)
        files = render(drawing, place)
        say(str(file) for file in files)
        drawn.append(Drawn(experiment.name, points, tuple(files)))
    return tuple(drawn)


def _mixture(recalled: int, drawn: int) -> tuple[str, ...]:
    """A warning where results of models that are not here now stand beside results of those that are."""
    if not 0 < recalled < drawn:
        return ()
    return (f"{recalled:,} of {pluralise(drawn, 'cell')} measured with models that are not here now (newest result).",)


def _recipes(suite: Suite, points: Iterable[Point]) -> tuple[str, ...]:
    """How the drafters of ``points`` were trained, for the caption; nothing for a suite that is not trained here.

    Only for points whose model is here: its folder is named after the digest of today's recipe, so that recipe made it.
    """
    from prism_ae.recipes.file import load_recipes, passes_summary, recipe_summary

    if not suite.recipes:
        return ()
    recipes = load_recipes(Path(suite.recipes))
    trained = {name for name in recipes.drafters if name in suite.drafters and not suite.drafters[name].folder}
    drafters = dict.fromkeys(point.drafter for point in points if point.drafter in trained)
    if not drafters:
        return ()
    extra = any(recipes.drafters[drafter].start for drafter in drafters)
    lines = [passes_summary(recipes, extra=extra), *(recipe_summary(drafter, recipes) for drafter in drafters)]
    return (f"Recipes. {'. '.join(lines)}.",)
