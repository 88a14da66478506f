"""The words of suites and experiments that a page shows: made fit for it, or refused by name before it is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from prism_ae.cells import Point
from prism_ae.drawing.canvas import undrawable
from prism_ae.drawing.text import one_line
from prism_ae.errors import ConfigError
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite


def check_labels(
    experiment: Experiment, suite: Suite, points: Iterable[Point], places: tuple[str, str] | None = None
) -> None:
    """Refuse a label, or a name that stands for one, that cannot be drawn.

    Args:
        points: what is drawn of the suite; labels of anything else do not matter.
        places: the files of experiment and suite, for the message; None: it names experiment and suite themselves.

    Raises:
        ConfigError: with file, key and the first letter that cannot be drawn.
    """
    experiment_place, suite_place = places or (f"experiment {experiment.name}", f"suite {suite.name}")
    of_both = ((suite_place, _of_suite(suite, tuple(points))), (experiment_place, _of_experiment(experiment)))
    for place, labels in of_both:
        for error in _undrawable(place, labels):
            raise error


def undrawable_labels(suite: Suite) -> list[ConfigError]:
    """What `check_labels` would refuse of a suite if all of it were drawn."""
    place = f"suite {suite.name}"
    everything = [
        *(("targets", name, each.label) for name, each in suite.targets.items()),
        *(("drafters", name, each.label) for name, each in suite.drafters.items()),
        *(("benchmarks", name, each.label) for name, each in suite.benchmarks.items()),
    ]
    labels = [(f"{table}.{name}.label", label) for table, name, label in everything]
    labels += [(f"{table}.{name}", name) for table, name, _ in everything]
    labels += [(f"scales.{number}.name", scale.name) for number, scale in enumerate(suite.scales)]
    return list(_undrawable(place, [("title", suite.title), ("scale_axis", suite.scale_axis), *labels]))


def _undrawable(place: str, labels: Iterable[tuple[str, str]]) -> Iterator[ConfigError]:
    for key, text in labels:
        if letter := undrawable(one_line(text)):
            shown = f"'{letter}' (U+{ord(letter):04X})" if letter.isprintable() else f"U+{ord(letter):04X}"
            yield ConfigError(
                f"{place}: {key}: {_quoted(text)} cannot be drawn: the fonts here do not set {shown}",
                "write it in letters that run from left to right, such as Latin, Greek or Cyrillic",
            )


def in_one_line(suite: Suite) -> Suite:
    """A suite whose labels are each one line."""
    replace = dataclasses.replace
    return replace(
        suite,
        title=one_line(suite.title),
        scale_axis=one_line(suite.scale_axis),
        targets={name: replace(each, label=one_line(each.label)) for name, each in suite.targets.items()},
        drafters={name: replace(each, label=one_line(each.label)) for name, each in suite.drafters.items()},
        benchmarks={name: replace(each, label=one_line(each.label)) for name, each in suite.benchmarks.items()},
    )


def _of_suite(suite: Suite, points: tuple[Point, ...]) -> Iterator[tuple[str, str]]:
    yield from (("title", suite.title), ("scale_axis", suite.scale_axis))
    scales = {point.scale for point in points}
    for number, scale in enumerate(suite.scales):
        if scale.name in scales:
            yield f"scales.{number}.name", scale.name
    for name in dict.fromkeys(point.target for point in points):
        yield from ((f"targets.{name}", name), (f"targets.{name}.label", suite.targets[name].label))
    for name in dict.fromkeys(point.drafter for point in points):
        drafter = suite.drafters[name]
        yield from ((f"drafters.{name}", name), (f"drafters.{name}.label", drafter.label))
        yield f"drafters.{name}.absent", drafter.absent or ""
    for name in dict.fromkeys(point.benchmark for point in points):
        yield from ((f"benchmarks.{name}", name), (f"benchmarks.{name}.label", suite.benchmarks[name].label))


def _of_experiment(experiment: Experiment) -> Iterator[tuple[str, str]]:
    look, paper = experiment.look, experiment.paper
    yield from (("title", experiment.title), ("paper.source", paper.source), ("paper.note", paper.note))
    yield "remark", experiment.remark
    yield from ((f"suites.{name}.remark", choice.remark) for name, choice in experiment.suites.items())
    yield from ((f"look.{key}", getattr(look, key, "")) for key in ("x_label", "y_label", "right_label"))
    yield from ((f"series.{number}.label", series.label) for number, series in enumerate(experiment.series))
    yield from ((f"claims.{number}.text", claim.text) for number, claim in enumerate(experiment.claims))


def _quoted(text: str) -> str:
    """At most 60 letters of a text, those that are no letters as escapes."""
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
    return f"'{shown}'" if len(shown) <= 60 else f"'{shown[:57]}…'"
