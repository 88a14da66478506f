"""Measuring again what does not agree with itself: the next repeat of every cell whose times are unstable. Pure.

A suite says how often times are measured at least (`repeats`) and at most (`most_repeats`). What is repeated beyond the
first of these is not asked for by any experiment, but counts wherever its cell does (`analysis.results.results_of`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from prism_ae.analysis.estimates import stable
from prism_ae.analysis.results import Measured, results_of
from prism_ae.cells import Cell, Point
from prism_ae.planning.plan import Resolved


def unstable_again(resolved: Resolved, measured: Mapping[Point, Measured], most: int) -> Resolved:
    """One more repeat of each cell that has all repeats that were asked for, was measured less than ``most`` times, and
    whose times are unstable.

    Args:
        measured: results of the points of ``resolved`` and of their repeats beyond those.

    Raises:
        StoreError: as `results_of`.
    """
    cells: dict[Point, Cell] = {}
    for cell in results_of(resolved.cells, measured).done:
        times = 1 + len(cell.repeats)
        if cell.repeats and not cell.lacks_repeats and times < most and not stable(cell):
            last = cell.repeats[-1].point
            sibling = resolved.cells[dataclasses.replace(last, repeat=1)]
            point = dataclasses.replace(last, repeat=max(one.point.repeat for one in cell.repeats) + 1)
            cells[point] = dataclasses.replace(sibling, point=point)
    folders = {point: resolved.folders[dataclasses.replace(point, repeat=1)] for point in cells}
    return dataclasses.replace(resolved, cells=cells, folders=folders, missing=())
