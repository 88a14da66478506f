"""The models, prompts and engine versions of this machine, each looked up once: a `plan` is made from them."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.engines import registry
from prism_ae.engines.pairs import check_branch, make_pair
from prism_ae.errors import MissingError, PrismError
from prism_ae.io.words import format_bytes
from prism_ae.models.locate import (
    Absent,
    DrafterKey,
    Located,
    Parameterless,
    locate_drafter,
    locate_target,
    parameterless,
)
from prism_ae.planning.plan import Lookup
from prism_ae.prompts.conversation import Conversation, check_questions, open_conversation
from prism_ae.prompts.fingerprint import prompts_fingerprint
from prism_ae.prompts.questions import load_questions, origin
from prism_ae.suites.records import Suite


class LocalLookup:
    """A `plan.Lookup` of a suite's models below a folder. Many points ask the same, so every answer is kept."""

    def __init__(self, suite: Suite, models_dir: Path) -> None:
        self._suite, self._models_dir = suite, models_dir
        self.target = functools.cache(lambda target: locate_target(suite, target, models_dir, _say_reading))
        self._make_pair = functools.cache(make_pair)
        self.prompts = functools.cache(self._prompts)
        self._conversation = functools.cache(self._open)
        self._drafter = functools.cache(lambda key: locate_drafter(suite, key, models_dir, _say_reading))
        self.engine = functools.cache(registry.identify)

    def _prompts(self, target: str, benchmark: str, count: int) -> str:
        """The fingerprint, once every question was seen to be one that the target can read; "" without the target."""
        questions = load_questions(self._suite, benchmark, count, self._models_dir)
        if (conversation := self._conversation(target)) is None:
            return ""
        check_questions(conversation, questions, origin(self._suite, benchmark, self._models_dir))
        return prompts_fingerprint(conversation, questions)

    def _open(self, target: str) -> Conversation | None:
        """The conversation with a target, None where the target is not here."""
        found, record = self.target(target), self._suite.targets[target]
        if isinstance(found, Absent):
            return None
        return open_conversation(found.path, self._suite.templates[record.template], self._suite.system_prompt)

    def drafter(self, key: DrafterKey) -> Located | Parameterless | Absent | None:
        record = self._suite.drafters[key.drafter]
        return self._drafter(key) if record.has_checkpoint else parameterless(record)

    def pair_problem(self, point: Point) -> PrismError | None:
        target = self.target(point.target)
        drafter = self.drafter(DrafterKey.of(point))
        if isinstance(target, Absent) or isinstance(drafter, Absent) or not registry.find(point.engine).runs_models:
            return None
        record, kind = self._suite.targets[point.target], self._suite.drafters[point.drafter].kind
        try:
            pair = self._make_pair(record, target.path, drafter.path if drafter else None, kind, point.engine)
            check_branch(pair.config, pair.drafter, point.tree)
        except PrismError as error:
            return error
        return None

    def engine_problem(self, point: Point) -> str:
        return registry.problem(point.engine, point, self._suite.drafters[point.drafter].kind)


def _say_reading(folder: Path, size: int) -> None:
    """Models that were put in place by hand are read once, which takes minutes for all of the paper's."""
    if size >= 1e9:
        print(f"reading {folder} once ({format_bytes(size)}): its content identifies what is measured", file=sys.stderr)


class AssumeAvailable:
    """A `plan.Lookup` in which everything that is absent with a hint (about its remedy) counts as available.

    Its answers stand for no content: cells made from them are for counting only.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def target(self, target: str) -> Located | Absent:
        return _assumed(self._lookup.target(target), target)

    def drafter(self, key: DrafterKey) -> Located | Parameterless | Absent | None:
        found = self._lookup.drafter(key)
        return _assumed(found, "/".join(map(str, key))) if isinstance(found, Absent) else found

    def prompts(self, target: str, benchmark: str, questions: int) -> str:
        try:
            return self._lookup.prompts(target, benchmark, questions)
        except MissingError:
            return ""

    def engine(self, engine: str) -> tuple[str, str]:
        try:
            return self._lookup.engine(engine)
        except MissingError:
            return "", ""

    def pair_problem(self, point: Point) -> PrismError | None:
        return self._lookup.pair_problem(point)

    def engine_problem(self, point: Point) -> str:
        return self._lookup.engine_problem(point)


def _assumed(found: Located | Absent, name: str) -> Located | Absent:
    return Located(Path(name), "") if isinstance(found, Absent) and found.hint else found
