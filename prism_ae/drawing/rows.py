"""What was drawn, as a tidy table: the .csv beside a drawing.

A row per place and quantity, missing values included, then one per value of the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.estimates import Place
from prism_ae.analysis.paper_values import PaperValue
from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO, QUANTITIES, TPS, Quantity
from prism_ae.drawing.material import Material

if TYPE_CHECKING:
    import pandas as pd

_PLACE = [field.name for field in dataclasses.fields(Place)]
COLUMNS = (
    "layer", *_PLACE, "label", "quantity", "unit", "value", "low", "high", "questions", "questions_without_rounds",
    "overshoot", "repeats", "unstable", "cells_asked", "cells_measured", "cell_ids", "vanilla_cell_ids",
)  # fmt: skip
"""``layer`` is "measured", "paper" or "artifact re-run"; ``benchmark`` "mean" is the mean over those asked; ``value``
is empty where it is missing or undefined; ``low`` and ``high`` bound the 95 % interval; ``overshoot`` counts tokens
that were committed behind the answers' ends; ``repeats``: how often times were measured; ``unstable`` counts cells
whose times spread too far over the repeats; ids are separated by spaces; a ratio is over the value of
``vanilla_cell_ids``, which has a row of its own."""


def drawn_rows(material: Material, quantities: Sequence[Quantity], axis: str) -> pd.DataFrame:
    """The rows, in the order drawn.

    Args:
        axis: the field of `Place` that an x of the paper's values is.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for summary in material.summaries:
        own = _place(summary.place) | {
            "layer": "measured",
            "label": material.styles[summary.place.drafter].label,
            "questions": summary.questions,
            "questions_without_rounds": summary.without_rounds,
            "overshoot": summary.overshoot,
            "repeats": summary.repeats if TPS in quantities else None,
            "unstable": summary.unstable if TPS in quantities else None,
            "cells_asked": summary.asked,
            "cells_measured": len(summary.cell_ids),
            "cell_ids": " ".join(summary.cell_ids),
        }
        for quantity in quantities:
            if quantity.applies(vanilla=summary.vanilla):
                value = summary.values.get(quantity.name)
                low, high = (value and value.bounds) or (None, None)
                ids = " ".join(summary.vanilla_ids) if quantity.over_vanilla else None
                said = {"quantity": quantity.name, "unit": quantity.unit, "value": value and value.value}
                rows.append(own | said | {"low": low, "high": high, "vanilla_cell_ids": ids})
    al = AL_MICRO if TPS in quantities else AL_MACRO  # as the authors count where time is measured, and elsewhere
    rows += [_known(each, QUANTITIES.get(each.quantity, al), material, axis) for each in material.known]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def _place(place: Place) -> dict[str, Any]:
    said = {name: getattr(place, name) for name in _PLACE}
    drafting = None if place.tree is None else place.drafting
    return said | {"benchmark": place.benchmark or "mean", "drafting": drafting, "tree": place.tree and str(place.tree)}


def _known(each: PaperValue, quantity: Quantity, material: Material, axis: str) -> dict[str, Any]:
    return {
        "layer": "artifact re-run" if each.rerun else "paper",
        "target": each.target,
        "drafter": each.drafter,
        "temperature": each.temperature,
        "benchmark": each.benchmark or "mean",
        "label": material.styles[each.drafter].label,
        "quantity": quantity.name,
        "unit": quantity.unit,
        "value": each.value,
        axis: _named(each.x, material, axis),
    }


def _named(x: object, material: Material, axis: str) -> object:
    """An x as a measured value's row has it."""
    names = {scale.value: scale.name for scale in material.suite.scales} if axis == "scale" else {}
    return names.get(x, x) if isinstance(x, (int, float)) else x and str(x)
