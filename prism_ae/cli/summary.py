"""Which cells have no result and why, in words: for ``plan``, and for the list that a ``run`` ends with.

Reasons with the same remedy stand together, and many of one kind are one line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prism_ae.cells import Point
from prism_ae.errors import IncompleteError
from prism_ae.io.words import one_line, pluralise, table, wrapped
from prism_ae.planning.plan import MissingCell, Plan

_APART = 3
"""Reasons with one remedy that have a line each; of more, one is named."""
_SHOWN = 20
"""Lines of reasons; ``status`` and --json have all."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An experiment that was drawn: the points that it asks for, and its files, the page first."""

    name: str
    points: tuple[Point, ...]
    files: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Cause:
    """The points that have no result for one reason; ``text`` continues a sentence that begins with "n cells"."""

    text: str
    hint: str
    points: tuple[Point, ...]


def run_summary(plan: Plan, drawn: Sequence[Drawn]) -> list[str]:
    """What was drawn, and what is missing in it and why; ``plan`` is made after measuring."""
    rows = []
    for one in drawn:
        measured = sum(point in plan.done for point in one.points)
        rows.append((one.name, f"{measured:,} of {pluralise(len(one.points), 'cell')}", str(one.files[0])))
    lines = ["drawn:", *table(rows, indent="  ")]
    causes = causes_of([*_unmeasured(plan), *not_measurable(plan.missing)])
    if causes:
        missing = pluralise(plan.total - len(plan.done), "cell")
        lines += [
            f"missing, {missing} of {plan.total:,}:",
            *causes_in_words(causes, where=lambda ps: _where(ps, drawn)),
        ]
    return lines


def check_complete(plan: Plan) -> None:
    """Raises IncompleteError if a cell has no result that could have one."""
    without = plan.to_measure + sum(bool(missing.hint) for missing in plan.missing)
    if without:
        raise IncompleteError(
            f"{without:,} of {pluralise(plan.total, 'cell')} have no result and could have one, see above",
            "'prism-ae status' lists them all; the same command tries again",
        )


def causes_of(without: Iterable[tuple[Point, str, str]]) -> tuple[Cause, ...]:
    """From (point, text, hint), the most frequent first."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point, text, hint in without:
        found.setdefault((text, hint), []).append(point)
    causes = (Cause(text, hint, tuple(points)) for (text, hint), points in found.items())
    return tuple(sorted(causes, key=lambda cause: -len(cause.points)))


def not_measurable(missing: Iterable[MissingCell]) -> Iterator[tuple[Point, str, str]]:
    """The cells of a plan that cannot be measured, as `causes_of` takes them."""
    return ((one.point, f" cannot be measured: {one.reason}", one.hint) for one in missing)


def causes_in_words(causes: Sequence[Cause], where: Callable[[Sequence[Point]], str] = lambda points: "") -> list[str]:
    """Lines, a remedy below the reasons that it is for.

    Args:
        where: the end of each line, from the cause's points.
    """
    together: dict[str, list[Cause]] = {}
    for cause in causes:
        together.setdefault(cause.hint, []).append(cause)
    groups = {hint: _merged(group) if hint else group for hint, group in together.items()}
    lines: list[str] = []
    left = _SHOWN
    for hint, group in sorted(groups.items(), key=lambda item: -max(len(cause.points) for cause in item[1])):
        for cause in group[:left]:
            lines += wrapped(f"{pluralise(len(cause.points), 'cell')}{cause.text}{where(cause.points)}")
        if hint and left > 0:
            lines += wrapped(hint, "    ")
        left -= min(left, len(group))
    hidden = sum(map(len, groups.values())) - _SHOWN
    return [*lines, f"  … and {pluralise(hidden, 'more reason')}"] if hidden > 0 else lines


def _merged(group: list[Cause]) -> list[Cause]:
    if len(group) <= _APART:
        return group
    points = tuple(point for cause in group for point in cause.points)
    return [Cause(f"{group[0].text}, and {len(group) - 1:,} more like it", group[0].hint, points)]


def _unmeasured(plan: Plan) -> Iterator[tuple[Point, str, str]]:
    """The cells that were to be measured and have no result, as `causes_of` takes them."""
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
