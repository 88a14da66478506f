"""What there is on this machine, asked once per question: models, prompts and engine versions, for `prism_ae.plan`."""

from __future__ import annotations

import functools
from pathlib import Path

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
            lambda target, drafter, scale: locate_drafter(suite, target, drafter, scale, models_dir)
        )

    def drafter(self, target: str, drafter: str, scale: str | None) -> Located | Absent | None:
        return None if self._suite.drafters[drafter].kind == "vanilla" else self._drafter(target, drafter, scale)

    def engine(self, engine: str) -> tuple[str, str]:
        record = registry.find(engine)
        return record.version, record.verifier
