"""The ledger: every claim with its statistic, interval, rule, verdict, scope and evidence, for one suite."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import (
    CANNOT_TELL,
    CONTRADICTED,
    INCOMPLETE,
    NOT_MEASURABLE,
    REPRODUCED,
    Claim,
    Judged,
    judge,
)
from prism_ae.analysis.estimates import unique
from prism_ae.analysis.results import Measured, results_of
from prism_ae.analysis.text_agreement import compare
from prism_ae.cells import Point
from prism_ae.errors import StoreError
from prism_ae.experiments.request import Request
from prism_ae.experiments.verdicts import (
    Evidence,
    PaperContrast,
    family_size,
    ledger_claims,
    paper_contrasts,
)
from prism_ae.io.atomic import atomic_write_all
from prism_ae.io.paths import why_not
from prism_ae.io.words import pluralise, wrapped
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = (REPRODUCED, CONTRADICTED, CANNOT_TELL, INCOMPLETE, NOT_MEASURABLE)
ARCHITECTURE_SEEDS = 3
"""Trainings from which on a claim is about the architecture, and not about these checkpoints."""


@dataclasses.dataclass(frozen=True, eq=False)
class LedgerRow:
    """A claim and what became of it; ``paper`` are its contrasts by the paper's own numbers."""

    judged: Judged
    paper: tuple[PaperContrast, ...]
    timed: bool

    @property
    def claim(self) -> Claim:
        return self.judged.claim

    @property
    def scope(self) -> str:
        """What the verdict is about."""
        if not self.judged.measured:
            return ""
        if self.timed:
            known = [each.estimate.repeats for each in self.judged.contrasts if each.estimate]
            repeats = min((number for number in known if number is not None), default=1)
            return f"these checkpoints on this device, times measured {pluralise(repeats, 'time')}"
        seeds = self.judged.seeds
        return f"the architecture ({seeds} trainings)" if seeds >= ARCHITECTURE_SEEDS else "these checkpoints"

    @property
    def statistic(self) -> str:
        """The number that decides and where it is."""
        worst = self.judged.worst
        return f"{worst.estimate.value:.4g}" if worst and worst.estimate else ""

    @property
    def interval(self) -> str:
        """Its simultaneous 95 % interval."""
        return f"[{self.judged.bounds[0]:.4g}, {self.judged.bounds[1]:.4g}]" if self.judged.bounds else ""

    @property
    def paper_words(self) -> str:
        """What the paper's own numbers say under the same rule; they have no intervals."""
        if not self.paper:
            return ""
        worst = min(self.paper, key=lambda each: each.contrast.distance)
        wrong = Counter(each.contrast.of for each in self.paper if not each.contrast.right)
        right = f"as claimed at {len(self.paper) - wrong.total()} of {len(self.paper)}"
        against = "; ".join(f"{of} ({count})" for of, count in wrong.items())
        return f"{right}, not at {against}; lowest {worst}" if wrong else f"{right}; lowest {worst}"

    def as_dict(self) -> dict[str, Any]:
        """One row of the .csv, and an entry of the .json."""
        judged, worst = self.judged, self.judged.worst
        low, high = judged.bounds or (None, None)
        rules = dict.fromkeys(f"{part.rule()} ({part.experiment})" for part in self.claim.parts if not part.paper_only)
        return {
            "id": self.claim.id,
            "place": self.claim.place,
            "claim": self.claim.text,
            "primary": self.claim.primary,
            "verdict": judged.verdict,
            "why": judged.why,
            "statistic": worst.estimate.value if worst and worst.estimate else None,
            "low": low,
            "high": high,
            "of": worst.where if worst else "",
            "rule": worst.part.rule() if worst else "",
            "rules": "; ".join(rules),
            "points": len(judged.contrasts),
            "measured": judged.measured,
            "as_claimed": judged.right,
            "by_chance": judged.chance,
            "scope": self.scope,
            "seeds": judged.seeds if judged.measured else None,
            "paper": self.paper_words,
            "cells": len(judged.cell_ids),
            "cell_ids": " ".join(judged.cell_ids),
        }


def make_ledger(request: Request, measured: Mapping[Point, Measured]) -> tuple[LedgerRow, ...]:
    """A row for every claim that comes with the package.

    Args:
        request: the experiments that claims name, those apart that the suite cannot fill.
        measured: results by point.
    """
    suite = request.suite
    evidence, authors = {}, request.options.count == "authors"
    for experiment, points in zip(request.experiments, request.points, strict=True):
        results = results_of(points, measured, authors=authors)
        evidence[experiment.name] = Evidence(experiment, suite, results, request.options)
    rows = []
    for claim in ledger_claims():
        parts = [part for part in claim.parts if not part.paper_only]
        names = {part.experiment for part in parts}
        lacking = [f"{name}: {request.left_out.get(name, 'not asked for')}" for name in names if name not in evidence]
        if claim.subject == "texts":
            judged = _texts(claim, request, measured)
        elif claim.pending:
            judged = judge(claim, (), family_size())
        elif lacking:
            judged = Judged(claim, NOT_MEASURABLE, f"suite {suite.name} cannot fill {'; '.join(sorted(lacking))}")
        else:
            found = [evidence[part.experiment].contrasts(part) for part in parts]
            doubts = (evidence[part.experiment].doubt for part in parts if evidence[part.experiment].timed(part))
            judged = judge(claim, found, family_size(), "" if claim.guard else next(filter(None, doubts), ""))
            if not all(found):
                why = [
                    _undrawn(suite, part.experiment, name)
                    for part, contrasts in zip(parts, found, strict=True)
                    for name in evidence[part.experiment].undrawn(part)
                    if not contrasts
                ]
                if why:
                    judged = dataclasses.replace(judged, why="; ".join(unique(why)))
        paper = () if claim.own else tuple(paper_contrasts(claim))
        timed = any(part.experiment in evidence and evidence[part.experiment].timed(part) for part in parts)
        rows.append(LedgerRow(judged, paper, timed))
    return tuple(rows)


def experiments_of_claims() -> tuple[str, ...]:
    """Those whose cells claims need, in order."""
    return tuple(
        dict.fromkeys(part.experiment for claim in ledger_claims() for part in claim.parts if not part.paper_only)
    )


def _undrawn(suite: Suite, experiment: str, name: str) -> str:
    """Why a drafter is not in an experiment of this suite."""
    if name not in suite.drafters:
        return f"suite {suite.name} has no drafter {name}"
    remedy = "--controls" if suite.drafters[name].control and not suite.controls else "--drafters"
    return f"{experiment} was not asked for {name} ({remedy})"


def _texts(claim: Claim, request: Request, measured: Mapping[Point, Measured]) -> Judged:
    """Losslessness: every text that was written more than once."""
    texts = compare(measured)
    said = f"{texts.differing} of {texts.compared} texts that were written more than once differ"
    if texts.differing:
        said += f": {texts.ties} at ties, {texts.faults} at faults, {texts.differing_exactly} in float32"
        said += f", {texts.unexamined} not examined"
    if texts.faults or texts.differing_exactly or texts.wrong_tokens:
        return Judged(claim, CONTRADICTED, said)
    points = request.all_points
    why = request.suite.why_unpublished
    left = sum(point not in measured and not why(point.target, point.drafter, point.scale) for point in set(points))
    if left or not texts.compared:
        return Judged(claim, INCOMPLETE, f"{said}; {left:,} cells are not measured")
    return Judged(claim, CANNOT_TELL if texts.unexamined else REPRODUCED, said)


def as_table(rows: Iterable[LedgerRow]) -> pd.DataFrame:
    """A row per claim, the columns of `LedgerRow.as_dict`."""
    import pandas as pd

    return pd.DataFrame([row.as_dict() for row in rows])


def counts(rows: Sequence[LedgerRow]) -> dict[str, int]:
    """Claims by verdict."""
    return {word: sum(row.judged.verdict == word for row in rows) for word in VERDICTS}


def as_markdown(rows: Sequence[LedgerRow], suite: str, asked: str = "") -> str:
    """One page; ``asked`` is what was asked differently from the experiments' files."""
    said = ", ".join(f"{number} {word}" for word, number in counts(rows).items() if number)
    lines = [f"# Claims, {suite} suite", "", f"{len(rows)} claims: {said}.", "", _HOW, ""]
    lines += [f"**{ASKED.format(asked)}**", ""] if asked else []
    lines += [
        "| claim | | number that decides | rule | verdict | scope | the paper's own numbers |",
        "|" + " --- |" * 7,
    ]
    for row in rows:
        data = row.as_dict()
        number = f"{row.statistic} {row.interval} ({data['of']})" if row.statistic else ""
        number += f"; {row.judged.points}" if row.judged.points else ""
        verdict = f"**{data['verdict']}**{f': {row.judged.why}' if row.judged.why else ''}"
        cells = [f"{row.claim.id}{' P' if row.claim.primary else ''}", f"{row.claim.text} ({row.claim.place})"]
        cells += [number, data["rule"], verdict, row.scope, row.paper_words]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


_HOW = (
    "P marks the primary claims, whose error rate is kept together. A claim is reproduced when every number it needs "
    "is as the rule says, by one-sided tests at 2.5 % (a primary claim's at its share of that), and contradicted when "
    "one is not, at a level that allows for how many there are. The interval shown is of the number with the least "
    "room and holds together with those of the claim's other numbers (95 %), so it may be wider than what decides. "
    "Cell ids are in claims.csv."
)
ASKED = "Asked differently from the experiments' files ({}): the verdicts are on that part alone."


def terminal_lines(rows: Sequence[LedgerRow]) -> list[str]:
    """The ledger for a terminal: verdict by verdict, a claim in two or three lines."""
    lines: list[str] = []
    for word in VERDICTS:
        mine = [row for row in rows if row.judged.verdict == word]
        lines += [f"{word} ({len(mine)}):"] if mine else []
        for row in mine:
            lines += wrapped(f"{row.claim.id}{' (primary)' if row.claim.primary else ''}: {row.claim.text}")
            data = row.as_dict()
            said = [row.judged.why] if row.judged.why else []
            if row.statistic:
                said.append(f"{row.statistic} {row.interval} at {data['of']}; rule: {data['rule']}")
                said += [row.judged.points] if row.judged.points else []
                said.append(f"of {row.scope}")
            if row.paper_words:
                said.append(f"the paper's own numbers: {row.paper_words}")
            for each in said:
                lines += wrapped(each, "    ")
    return lines


def write_ledger(rows: Sequence[LedgerRow], suite: str, folder: Path, asked: str = "") -> list[Path]:
    """claims.md, .csv and .json in ``folder``/``suite``; returns the paths. Raises StoreError."""
    place = folder / suite
    records = [row.as_dict() for row in rows]
    data = {"suite": suite, "options": asked, "verdicts": counts(rows), "claims": records}
    files = {
        place / "claims.md": as_markdown(rows, suite, asked).encode(),
        place / "claims.csv": as_table(rows).to_csv(index=False).encode(),
        place / "claims.json": (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode(),
    }
    try:
        atomic_write_all(files)
    except OSError as error:
        path = Path(error.filename or place)
        raise StoreError(f"cannot write {path}: {why_not(error, path)}", "choose another place with --out") from error
    return list(files)
