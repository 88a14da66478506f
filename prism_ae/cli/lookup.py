"""What there is on this machine, asked once per question: models, prompts and engine versions, for `prism_ae.plan`."""

from __future__ import annotations

import functools
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.engines import registry
from prism_ae.prompts.fingerprint import prompts_fingerprint
from prism_ae.suites.models import Absent, Located, locate_drafter, locate_target
from prism_ae.suites.records import Suite


class LocalLookup:
    """A `plan.Lookup` of a suite's models below a folder. Many points ask the same, so every answer is kept."""

    def __init__(self, suite: Suite, models_dir: Path) -> None:
        self._suite = suite
        self.target = functools.cache(lambda target: locate_target(suite, target, models_dir))
        self.prompts = functools.cache(
            lambda target, benchmark, questions: prompts_fingerprint(suite, target, benchmark, questions, models_dir)
        )
        self._drafter = functools.cache(
            lambda target, drafter, scale, engine: locate_drafter(suite, target, drafter, scale, models_dir, engine)
        )

    def drafter(self, target: str, drafter: str, scale: str | None, engine: str) -> Located | Absent | None:
        kind = self._suite.drafters[drafter].kind
        return None if kind == "vanilla" else self._drafter(target, drafter, scale, engine)

    def engine(self, engine: str) -> tuple[str, str]:
        return registry.identify(engine)

    def engine_problem(self, point: Point) -> str:
        return registry.problem(point.engine, point, self._suite.drafters[point.drafter].kind)
