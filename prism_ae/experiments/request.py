"""From names and options to a checked request: suite, experiments and the points they ask for.

Everything a user can get wrong in names and numbers is refused here, before a device or a process is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.expand import UnfilledError, expand
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.io.words import wrapped
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class Request:
    """Experiments of a suite, and the points that they ask for.

    Attributes:
        points: of each experiment, in their order.
        places: the files of each experiment and of the suite, in words, for messages about their content.
        left_out: experiments that "all" stands for and the suite cannot fill -> what the suite lacks.
    """

    suite: Suite
    options: Options
    experiments: tuple[Kind, ...]
    points: tuple[tuple[Point, ...], ...]
    places: tuple[tuple[str, str], ...]
    left_out: Mapping[str, str]

    @property
    def all_points(self) -> tuple[Point, ...]:
        """Each point once: experiments share points."""
        return tuple(dict.fromkeys(point for points in self.points for point in points))

    def of(self, names: Sequence[str]) -> Request:
        """The same of some of the experiments."""
        kept = [number for number, experiment in enumerate(self.experiments) if experiment.name in names]
        return dataclasses.replace(
            self,
            experiments=tuple(self.experiments[number] for number in kept),
            points=tuple(self.points[number] for number in kept),
            places=tuple(self.places[number] for number in kept),
            left_out={name: reason for name, reason in self.left_out.items() if name in names},
        )


def make_request(experiments: Sequence[str], suite: str, options: Options, *, allow_empty: bool = False) -> Request:
    """Check and expand.

    Args:
        allow_empty: a suite that can fill none of the experiments that "all" stands for is no error.

    Raises:
        UsageError, ConfigError: as `load_suite`, `load_experiment` and `expand`; an experiment that was named has to
            be one that the suite can fill.
    """
    loaded_suite = load_suite(suite)
    names = _experiments(experiments)
    loaded = tuple(load_experiment(name) for name in names)
    twice = [one.name for number, one in enumerate(loaded) if one.name in {other.name for other in loaded[:number]}]
    if twice:
        raise UsageError(f"two experiments are called '{twice[0]}', and would draw to the same file")
    filled: list[Kind] = []
    points: list[tuple[Point, ...]] = []
    places: list[tuple[str, str]] = []
    left_out: dict[str, str] = {}
    for name, experiment in zip(names, loaded, strict=True):
        try:
            expanded = expand(experiment, loaded_suite, options)
        except UnfilledError as error:
            if name in experiments:
                raise
            left_out[experiment.name] = error.reason
            continue
        filled.append(experiment)
        points.append(expanded)
        places.append((_place("experiment", name), _place("suite", suite)))
    if not filled and not allow_empty:
        raise ConfigError(
            f"{_place('suite', suite)} can fill no experiment as it is: {'; '.join(_by_reason(left_out))}",
            "name an experiment, and what the suite has with --drafters, --benches and --targets",
        )
    return Request(loaded_suite, options, tuple(filled), tuple(points), tuple(places), left_out)


def left_out_in_words(request: Request) -> list[str]:
    """Lines that say which experiments were left out and why; none where all are there."""
    if not request.left_out:
        return []
    lines = [f"left out, because suite {request.suite.name} cannot fill them as they are:"]
    return [*lines, *(line for text in _by_reason(request.left_out) for line in wrapped(text))]


def _by_reason(left_out: Mapping[str, str]) -> list[str]:
    """`Request.left_out` as "no benchmark 'sum' (figure1, figure4)", a text per reason."""
    together: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        together.setdefault(reason, []).append(name)
    return [f"{reason} ({', '.join(names)})" for reason, names in together.items()]


def _place(kind: str, name: str) -> str:
    return name if name.endswith(".toml") else f"{kind} {name}"


def _experiments(names: Sequence[str]) -> tuple[str, ...]:
    """The names given, once each; "all" stands for those that come with the package."""
    return tuple(dict.fromkeys(one for name in names for one in (experiment_names() if name == "all" else (name,))))


def drawn_in(out: Path | None, experiment: Kind) -> Path:
    """The folder for an experiment's files, to which the suite's name is added; ``out`` is what --out says."""
    return out or Path(experiment.folder) / "out"


def runs_folder(runs_dir: Path, suite: Suite) -> Path:
    """Where a suite's measurements are kept."""
    return runs_dir / suite.name
