"""Why cells have no result, in words: what has the same remedy stands together, and many of one kind are one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from prism_ae.cells import Point
from prism_ae.io.words import pluralise, wrapped
from prism_ae.planning.plan import Hole

_APART = 3
"""Reasons with one remedy that have a line each; of more, one is named."""
_SHOWN = 20
"""Lines of reasons; ``status`` and --json have all."""


@dataclasses.dataclass(frozen=True)
class Cause:
    """The points that have no result for one reason; ``text`` continues a sentence that begins with "n cells"."""

    text: str
    hint: str
    points: tuple[Point, ...]


def causes_of(without: Iterable[tuple[Point, str, str]]) -> tuple[Cause, ...]:
    """From (point, text, hint), the most frequent first."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point, text, hint in without:
        found.setdefault((text, hint), []).append(point)
    causes = (Cause(text, hint, tuple(points)) for (text, hint), points in found.items())
    return tuple(sorted(causes, key=lambda cause: -len(cause.points)))


def from_holes(holes: Iterable[Hole]) -> Iterable[tuple[Point, str, str]]:
    """What `causes_of` takes, of a plan's holes."""
    return ((hole.point, f": {hole.reason}", hole.hint) for hole in holes)


def causes_in_words(
    causes: Sequence[Cause], before: str = "", where: Callable[[Sequence[Point]], str] = lambda points: ""
) -> list[str]:
    """Lines, a remedy below the reasons that it is for.

    Args:
        before: what each line begins with.
        where: what is said of a cause's points at the end of its line.
    """
    together: dict[str, list[Cause]] = {}
    for cause in causes:
        together.setdefault(cause.hint, []).append(cause)
    groups = {hint: _merged(group) if hint else group for hint, group in together.items()}
    lines: list[str] = []
    left = _SHOWN
    for hint, group in sorted(groups.items(), key=lambda item: -max(len(cause.points) for cause in item[1])):
        for cause in group[:left]:
            lines += wrapped(f"{before}{pluralise(len(cause.points), 'cell')}{cause.text}{where(cause.points)}")
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
