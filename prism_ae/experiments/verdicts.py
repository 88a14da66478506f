"""The claims of the paper and of this project, from ``claims/*.toml``, and their verdicts from results."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from prism_ae.analysis.claims import Claim, ClaimPart, Contrast, Judged, Lines, contrasts, guard_doubt, judge
from prism_ae.analysis.quantities import QUANTITIES
from prism_ae.analysis.results import Results
from prism_ae.errors import ConfigError
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.load import experiment_folder, experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.io.schema import check, read_toml, record
from prism_ae.suites.records import Suite


@record
class ClaimsFile:
    """A file of claims."""

    claims: tuple[Claim, ...]


_packaged = functools.cache(load_experiment)
"""An experiment that comes with the package: claims name the same few many times, and some files are long."""


@functools.cache
def ledger_claims() -> tuple[Claim, ...]:
    """The claims that come with the package, in the order of their files; raises ConfigError for a wrong file."""
    found: list[Claim] = []
    for path in sorted(experiment_folder("claims").glob("*.toml")):
        found += read_claims(path)
    return tuple(found)


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims of a file; raises ConfigError."""
    claims = check(read_toml(path), ClaimsFile, str(path)).claims
    problems = [f"claims.{number}.{problem}" for number, claim in enumerate(claims) for problem in claim.problems()]
    ids = [claim.id for claim in claims]
    problems += [f"claims: '{name}' is the id of two" for name in dict.fromkeys(ids) if ids.count(name) > 1]
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems), "correct the file and run again")
    return claims


def family_size() -> int:
    """How many primary claims have numbers to be tested."""
    return sum(claim.primary and not claim.pending and claim.subject == "values" for claim in ledger_claims())


def claims_of(experiment: Kind) -> tuple[Claim, ...]:
    """Those of the experiment's own file, then those of the ledger that need its cells alone."""
    packaged = experiment.name in experiment_names() and _packaged(experiment.name) == experiment
    others = [
        claim
        for claim in (ledger_claims() if packaged else ())
        if (places := {part.experiment for part in claim.parts if not part.paper_only}) and places == {experiment.name}
    ]
    return (*experiment.claims, *others)


class Evidence:
    """One experiment's results as the lines that claims compare, each quantity's made once."""

    def __init__(self, experiment: Kind, suite: Suite, results: Results, options: Options) -> None:
        self._experiment, self._suite, self._results = experiment, suite, results
        self._al = experiment.acceptance_length(options)
        self._lines: dict[str, Lines] = {}

    def undrawn(self, part: ClaimPart) -> list[str]:
        """The part's drafters that were not asked for."""
        drawn = {point.drafter for point in self._results.points}
        return [name for name in (*part.drafters, *part.against) if name not in drawn]

    def contrasts(self, part: ClaimPart) -> tuple[Contrast, ...]:
        """Of what was measured."""
        name = part.quantity or self._experiment.about
        quantity = QUANTITIES[self._al if name == "al" else name]
        if quantity.name not in self._lines:
            summaries = self._experiment.judged(self._results, quantity)
            self._lines[quantity.name] = self._experiment.lines(summaries, quantity, self._suite)
        return contrasts(part, self._lines[quantity.name], self._never)

    def _never(self, target: str, drafter: str, x: object) -> str:
        """Why no checkpoint of a drafter was published at the scale that x is, or at that of the whole experiment."""
        scale = self._suite.scales[-1]
        if self._experiment.axis == "scale":
            scale = next(each for each in self._suite.scales if each.value == x)
        return self._suite.why_unpublished(target, drafter, scale.name)

    def timed(self, part: ClaimPart) -> bool:
        """Whether the part is about seconds."""
        name = part.quantity or self._experiment.about
        return name != "al" and QUANTITIES[name].timed

    @functools.cached_property
    def doubt(self) -> str:
        """Why no speed of this experiment has a verdict, by the claims that are guards; or ""."""
        mine = (
            part
            for claim in ledger_claims()
            for part in claim.parts
            if claim.guard and part.experiment == self._experiment.name
        )
        return guard_doubt(contrast for part in mine for contrast in self.contrasts(part))


@dataclasses.dataclass(frozen=True, eq=False)
class PaperContrast:
    """A number of a part by the paper's values of an experiment; ``rerun``: by the authors' later run."""

    experiment: str
    rerun: bool
    contrast: Contrast

    def __str__(self) -> str:
        assert self.contrast.estimate is not None
        source = f"{self.experiment}{', re-run' if self.rerun else ''}"
        return f"{self.contrast.estimate.value:.4g} ({source}: {self.contrast.where})"


def paper_contrasts(claim: Claim) -> Iterator[PaperContrast]:
    """Of the paper's own numbers, and of the authors' later run of their artifact, wherever they are known.

    A mean is taken over whole sets of benchmarks alone.
    """
    for part in claim.parts:
        if part.measured_only:
            continue
        experiment = _packaged(part.experiment)
        for rerun in (False, True):
            lines = experiment.paper_lines(part.quantity or experiment.about, rerun=rerun)
            if part.pooled and part.benchmarks == "each":
                whole = {name: set(each) for name, each in lines.items() if name.benchmark is None}
                lines = {
                    group: {
                        name: line
                        for name, line in drafters.items()
                        if name in whole.get(dataclasses.replace(group, benchmark=None), ())
                    }
                    for group, drafters in lines.items()
                }
            found = (each for each in contrasts(part, lines) if each.estimate is not None)
            yield from (PaperContrast(experiment.name, rerun, each) for each in found)


def judge_own(claims: Sequence[Claim], evidence: Evidence) -> list[Judged]:
    """Verdicts on claims of one experiment; those whose drafters were not asked for together are left out."""
    found = []
    for claim in claims:
        parts = [evidence.contrasts(part) for part in claim.parts if not part.paper_only]
        if all(parts):
            found.append(judge(claim, parts, family_size(), "" if claim.guard else evidence.doubt))
    return found
