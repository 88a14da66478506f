"""From the words on a command line to a checked request: suite, experiments and the points they ask for.

Everything a user can get wrong in names and numbers is refused here, before a device or a process is touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from prism_ae.cells import Point, TreeShape
from prism_ae.errors import UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked: ``points`` has the points of each experiment, in their order."""

    suite: Suite
    options: Options
    experiments: tuple[Experiment, ...]
    points: tuple[tuple[Point, ...], ...]

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
) -> Request:
    """Check and expand; raises UsageError and ConfigError."""
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
    loaded = tuple(load_experiment(name) for name in _experiments(experiments))
    twice = [one.name for number, one in enumerate(loaded) if one.name in {other.name for other in loaded[:number]}]
    if twice:
        raise UsageError(f"two experiments are called '{twice[0]}', and would draw to the same file")
    return Request(loaded_suite, options, loaded, tuple(expand(one, loaded_suite, options) for one in loaded))


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


def drawn_in(out: Path | None, experiment: Experiment) -> Path:
    """The folder for an experiment's files, to which the suite's name is added; ``out`` is what --out says."""
    return out or Path("tables" if experiment.kind == "table" else "figures") / "out"


def runs_folder(runs_dir: Path, suite: Suite) -> Path:
    """Where a suite's measurements are kept."""
    return runs_dir / suite.name
