"""How ``run`` ends: a list of what was drawn, and of what is missing in it and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.cli.causes import causes_in_words, causes_of, from_holes
from prism_ae.errors import IncompleteError
from prism_ae.io.words import one_line, pluralise, table
from prism_ae.planning.plan import Plan


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An experiment that was drawn: the points that it asks for, and its files, the page first."""

    name: str
    points: tuple[Point, ...]
    files: tuple[Path, ...]


def closing(plan: Plan, drawn: Sequence[Drawn]) -> list[str]:
    """The list; ``plan`` is made after measuring."""
    rows = []
    for one in drawn:
        measured = sum(point in plan.done for point in one.points)
        rows.append((one.name, f"{measured:,} of {pluralise(len(one.points), 'cell')}", str(one.files[0])))
    lines = ["drawn:", *table(rows, indent="  ")]
    causes = causes_of([*_unmeasured(plan), *from_holes(plan.holes)])
    if causes:
        missing = pluralise(plan.total - len(plan.done), "cell")
        lines += [
            f"missing, {missing} of {plan.total:,}:",
            *causes_in_words(causes, where=lambda ps: _where(ps, drawn)),
        ]
    return lines


def complain(plan: Plan) -> None:
    """Raises IncompleteError if a cell has no result that could have one."""
    without = plan.to_measure + sum(bool(hole.hint) for hole in plan.holes)
    if without:
        raise IncompleteError(
            f"{without:,} of {pluralise(plan.total, 'cell')} have no result and could have one, see above",
            "'prism-ae status' lists them all; the same command tries again",
        )


def _unmeasured(plan: Plan) -> Iterator[tuple[Point, str, str]]:
    """What `causes_of` takes, of the cells that were to be measured and have no result."""
    for assignment in plan.assignments:
        for cell in assignment.cells:
            message = plan.failed.get(cell.id)
            yield cell.point, " not measured" if message is None else f" failed: {one_line(message)}", ""


def _where(points: Sequence[Point], drawn: Sequence[Drawn]) -> str:
    """The experiments that ask for any of these, where there is a choice."""
    if len(drawn) == 1:
        return ""
    missing = set(points)
    return f" ({', '.join(one.name for one in drawn if not missing.isdisjoint(one.points))})"
