"""What was drawn, as rows: the .csv beside a figure. Every point of every curve, holes included, and the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from prism_ae.analysis.curves import Curve
from prism_ae.drawing.panels import PaperLine
from prism_ae.drawing.style import SeriesStyle

COLUMNS = (
    "layer",
    "target",
    "benchmark",
    "drafter",
    "label",
    "temperature",
    "x",
    "x_name",
    "quantity",
    "value",
    "low",
    "high",
    "al_micro",
    "questions",
    "questions_without_rounds",
    "cells_asked",
    "cells_measured",
    "cell_ids",
)
"""``layer`` is "measured" or "paper"; ``benchmark`` "mean" is the mean over those asked; ``value`` is empty for a hole;
``low`` and ``high`` bound the 95 % interval; ``cell_ids`` are separated by spaces."""


def rows(
    curves: Sequence[Curve], paper: Sequence[PaperLine], styles: Mapping[str, SeriesStyle], quantity: str
) -> list[dict[str, Any]]:
    """One row per drawn point; ``quantity`` names what ``value`` is."""
    table = []
    for curve in curves:
        for point in curve.points:
            estimate = point.estimate
            low, high = (estimate.bounds if estimate else None) or (None, None)
            table.append(
                {
                    "layer": "measured",
                    "target": curve.target,
                    "benchmark": curve.benchmark or "mean",
                    "drafter": curve.drafter,
                    "label": styles[curve.drafter].label,
                    "temperature": curve.temperature,
                    "x": point.x,
                    "x_name": point.label,
                    "quantity": quantity,
                    "value": estimate.value if estimate else None,
                    "low": low,
                    "high": high,
                    "al_micro": estimate.al_micro if estimate else None,
                    "questions": point.questions,
                    "questions_without_rounds": point.without_rounds,
                    "cells_asked": point.asked,
                    "cells_measured": len(point.cell_ids),
                    "cell_ids": " ".join(point.cell_ids),
                }
            )
    for line in paper:
        table += [
            {
                "layer": "paper",
                "target": line.target,
                "benchmark": line.benchmark or "mean",
                "drafter": line.drafter,
                "label": styles[line.drafter].label,
                "temperature": line.temperature,
                "x": x,
                "quantity": quantity,
                "value": y,
            }
            for x, y in zip(line.x, line.y, strict=True)
        ]
    return table


def as_csv(table: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """The rows as text; numbers with all their digits, None as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
