"""What one of the artifact's evaluations measured, in the suite's words."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from prism_ae.suites.records import Suite

ANSWERS_NAME = re.compile(r"(?P<name>[\w.-]+)-temperature-(?P<temperature>\d+\.\d+)\.jsonl")
LOG_NAME = re.compile(r"(?P<name>[\w.-]+?)__(?P<benchmark>\w+)__temp-(?P<temperature>\d+\.\d+)__gpu-(?P<gpu>\w+)\.log")


@dataclasses.dataclass(frozen=True, order=True)
class Evaluation:
    """One evaluation: names of the suite's records, and the temperature."""

    target: str
    drafter: str
    scale: str
    benchmark: str
    temperature: float

    def __str__(self) -> str:
        return f"{self.target} {self.drafter} {self.scale} {self.benchmark} T={self.temperature:g}"


def job_of(suite: Suite, place: Path, name: str, benchmark: str, temperature: str) -> Evaluation:
    """The evaluation of a checkpoint folder.

    Args:
        place: ``outputs/<project>/<model>``.
        name: of the checkpoint's folder, which is in ``<project>-drafter``.

    Raises:
        ValueError: says what the suite does not have, or that the names contradict each other.
    """
    project, model = place.parent.name, place.name
    if not name.startswith(f"{model}-"):
        raise ValueError(f"'{name}' lies in the folder of '{model}': two models are mixed here")
    if benchmark not in suite.benchmarks:
        raise ValueError(f"suite {suite.name} has no benchmark '{benchmark}'")
    for target in suite.targets.values():
        for drafter in suite.drafters.values():
            for scale in suite.scales:
                folder = drafter.scaled and suite.drafter_folder(target.name, drafter.name, scale.name)
                if folder == f"{project}-drafter/{name}":
                    return Evaluation(target.name, drafter.name, scale.name, benchmark, float(temperature))
    raise ValueError(f"suite {suite.name} knows no checkpoint '{project}-drafter/{name}'")
