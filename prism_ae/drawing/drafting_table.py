"""The comparison of two ways of drafting: acceptance length and milliseconds per round of each, and their difference.

The difference's interval is paired: both ways answered the same questions, and the same ones are drawn for both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from prism_ae.analysis.bootstrap import interval
from prism_ae.analysis.curves import Estimate
from prism_ae.analysis.entries import Entry
from prism_ae.drawing.style import SeriesStyle
from prism_ae.drawing.tabular import Cell, Row, Table
from prism_ae.suites.records import Suite

EXACT, STOCK = "exact", "stock"
NAMES = {EXACT: "exact", STOCK: "SGLang's own"}


Difference = tuple[float, tuple[float, float] | None]
"""A value and its 95 % interval, None where that would mean nothing."""


def difference(one: Estimate | None, other: Estimate | None) -> Difference | None:
    """one - other with its 95 % interval; None for a hole, and no interval over different questions."""
    if one is None or other is None:
        return None
    value = one.value - other.value
    if one.question_ids != other.question_ids or one.bounds is None or other.bounds is None:
        return value, None
    return value, interval(one.replicates - other.replicates, min(len(ids) for ids in one.question_ids))


def drafting_table(
    entries: Sequence[Entry],
    al: str,
    styles: Mapping[str, SeriesStyle],
    suite: Suite,
    least: tuple[float, float],
) -> Table:
    """Four rows per target, temperature and drafter: exact, SGLang's own, their difference, its interval.

    Args:
        al: "al_macro" or "al_micro".
        least: width and height of a cell at the least, inches.
    """
    found = {(e.target, e.temperature, e.drafter, e.drafting, e.benchmark): e for e in entries if not e.vanilla}
    benchmarks = list(dict.fromkeys(entry.benchmark for entry in entries if entry.benchmark))
    columns = [*benchmarks, ""] if len(benchmarks) > 1 else benchmarks
    labels = [suite.benchmarks[name].label if name else f"Mean over {len(benchmarks)}" for name in columns]
    head = (
        (Cell(span=3), *(Cell(label, span=2) for label in labels)),
        (Cell("Target"), Cell("Method"), Cell("Drafting"), *(Cell(text) for _ in columns for text in ("AL", "ms"))),
    )
    several = len({entry.temperature for entry in entries}) > 1
    blocks = []
    for target, temperature, drafter in dict.fromkeys(key[:3] for key in found):
        exact, stock = (
            [
                _estimate(found.get((target, temperature, drafter, way, name)), *quantity)
                for name in columns
                for quantity in ((al, 1.0), ("round_seconds", 1000.0))
            ]
            for way in (EXACT, STOCK)
        )
        apart = [difference(one, other) for one, other in zip(exact, stock, strict=True)]
        label = suite.targets[target].label + (f", T = {temperature:g}" if several else "")
        rows: tuple[Row, ...] = (
            (Cell(label), Cell(styles[drafter].label), Cell(NAMES[EXACT]), *(_value(each) for each in exact)),
            (Cell(), Cell(), Cell(NAMES[STOCK]), *(_value(each) for each in stock)),
            (Cell(), Cell(), Cell("difference"), *(_difference(each) for each in apart)),
            (Cell(), Cell(), Cell("95 % interval"), *(_interval(each) for each in apart)),
        )
        blocks.append(rows)
    return Table(3, head, tuple(blocks), least)


def _estimate(entry: Entry | None, quantity: str, factor: float) -> Estimate | None:
    """A value in the unit of the table."""
    if entry is None or (value := entry.values.get(quantity)) is None:
        return None
    bounds = value.bounds and (factor * value.bounds[0], factor * value.bounds[1])
    return dataclasses.replace(value, value=factor * value.value, bounds=bounds, replicates=factor * value.replicates)


def _value(estimate: Estimate | None) -> Cell:
    return Cell(f"{estimate.value:.2f}" if estimate else "–")


def _difference(apart: Difference | None) -> Cell:
    """Bold where its interval leaves out 0."""
    if apart is None:
        return Cell("–")
    value, bounds = apart
    return Cell(_signed(value), bold=bounds is not None and not bounds[0] <= 0 <= bounds[1])


def _interval(apart: Difference | None) -> Cell:
    if apart is None or apart[1] is None:
        return Cell("–")
    return Cell(f"{_signed(apart[1][0])} … {_signed(apart[1][1])}")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
