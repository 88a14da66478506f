"""From the words on a command line to a checked request: suite, experiments and the points they ask for.

Everything a user can get wrong in names and numbers is refused here, before a device or a process is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prism_ae.cells import Point, TreeShape
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
    """What is asked.

    Attributes:
        points: of each experiment, in their order.
        places: the files of each experiment and of the suite, in words, for messages about what they say.
        left_out: experiments that "all" stands for and the suite cannot fill -> what it has not.
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


def make_request(
    experiments: Sequence[str],
    suite: str,
    benches: str | None = None,
    scales: str | None = None,
    targets: str | None = None,
    drafters: str | None = None,
    temperatures: str | None = None,
    questions: int | None = None,
    trees: Iterable[str] | None = None,
    engine: str | None = None,
    controls: bool = False,
    batch_sizes: Iterable[int] | None = None,
    drafting: str | None = None,
    dtype: str | None = None,
    paper_compat: bool = False,
    none_will_do: bool = False,
) -> Request:
    """Check and expand.

    Args:
        none_will_do: a suite that can fill none of the experiments that "all" stands for is no error.

    Raises:
        UsageError, ConfigError: as `load_suite`, `load_experiment` and `expand`; an experiment that was named has to
            be one that the suite can fill.
    """
    options = Options(
        benches=_names("--benches", benches),
        scales=_names("--scales", scales),
        targets=_names("--targets", targets),
        drafters=_names("--drafters", drafters),
        temperatures=tuple(_number("--temperatures", text) for text in _names("--temperatures", temperatures)),
        questions=questions,
        trees=tuple(TreeShape.parse(text) for text in trees or ()),
        engine=engine,
        controls=controls,
        batch_sizes=tuple(batch_sizes or ()),
        drafting=drafting,
        dtype=dtype,
        paper_compat=paper_compat,
    )
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
    if not filled and not none_will_do:
        raise ConfigError(
            f"{_place('suite', suite)} can fill no experiment as it is: {'; '.join(_by_reason(left_out))}",
            "name an experiment, and what the suite has with --drafters, --benches and --targets",
        )
    return Request(loaded_suite, options, tuple(filled), tuple(points), tuple(places), left_out)


def left_out_in_words(request: Request) -> list[str]:
    """What was left out and why, as lines; none where nothing was."""
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


def _names(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(
            f"{option}: '{text}' has an empty name", f"write names with commas between, as in {option} a,b"
        )
    return names


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: '{text}' is not a number", f"write numbers as in {option} 0,1") from None


def drawn_in(out: Path | None, experiment: Kind) -> Path:
    """The folder for an experiment's files, to which the suite's name is added; ``out`` is what --out says."""
    return out or Path(experiment.folder) / "out"


def runs_folder(runs_dir: Path, suite: Suite) -> Path:
    """Where a suite's measurements are kept."""
    return runs_dir / suite.name
