"""The table of a round's anatomy: a row per target and method, sizes and bytes beside seconds.

"N/A" is what vanilla decoding has not, "–" a missing value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prism_ae.analysis.estimates import Summary
from prism_ae.analysis.quantities import Quantity
from prism_ae.cells import STAGES
from prism_ae.drawing.material import Material
from prism_ae.drawing.table import Row, Table, TableCell


@dataclasses.dataclass(frozen=True)
class _Column:
    """``quantity`` times ``factor`` as ``form``; of vanilla decoding ``vanilla`` where that is another quantity."""

    label: str
    quantity: str
    form: str = "{:,.2f}"
    factor: float = 1.0
    vanilla: str = ""


_STAGES = tuple(f"{stage}_seconds" for stage in STAGES)
_UNEXPLAINED = "unexplained"
_ROUND, _STEP = "round_seconds", "step_seconds"

_GROUPS: tuple[tuple[str, tuple[_Column, ...]], ...] = (
    (
        "Parameters, millions",
        (
            _Column("all", "parameters", factor=1e-6),
            _Column("of target", "parameter_share", "{:.2f} %", 100),
            _Column("active", "active_parameters", factor=1e-6),
        ),
    ),
    ("Read", (_Column("MB", "read_bytes", factor=1e-6),)),
    (
        "Milliseconds",
        (
            _Column("draft step", "draft_step_seconds", factor=1000),
            *(_Column(name.removesuffix("_seconds"), name, factor=1000) for name in _STAGES),
            _Column("round", _ROUND, factor=1000, vanilla=_STEP),
            _Column(_UNEXPLAINED, _UNEXPLAINED, "{:.1f} %"),
        ),
    ),
    (
        "Round",
        (
            _Column("cost", "round_cost"),
            _Column("tokens", "tokens_per_round"),
            _Column("MBU", "mbu", "{:.0f} %", 100),
        ),
    ),
    (
        "Decode speed-up",
        (_Column("predicted", "predicted_speed_up", "{:.2f}×"), _Column("measured", "decode_speed_up", "{:.2f}×")),
    ),
)


def anatomy_table(material: Material, quantities: Sequence[Quantity], least: tuple[float, float]) -> Table:
    """A block per target and temperature, a row per method.

    Args:
        quantities: what was summarised, one by one; those that vanilla decoding has not are "N/A" there.
        least: width and height of a cell, inches.
    """
    plain = {_UNEXPLAINED, *(quantity.name for quantity in quantities if quantity.applies(vanilla=True))}
    columns = [column for _, group in _GROUPS for column in group]
    head = (
        (TableCell(span=2), *(TableCell(label, span=len(group)) for label, group in _GROUPS)),
        tuple(TableCell(text) for text in ("Target", "Method", *(column.label for column in columns))),
    )
    blocks: dict[tuple[str, float], list[Row]] = {}
    for summary in material.summaries:
        place = summary.place
        rows = blocks.setdefault((place.target, place.temperature), [])
        label = "" if rows else _label(material, place.target, place.temperature)
        cells = [_cell(material, summary, column, plain) for column in columns]
        rows.append((TableCell(label), TableCell(material.styles[place.drafter].label), *cells))
    return Table(2, head, tuple(map(tuple, blocks.values())), least)


def _label(material: Material, target: str, temperature: float) -> str:
    several = len(material.temperatures) > 1
    return material.target_label(target) + (f", T = {temperature:g}" if several else "")


def _cell(material: Material, summary: Summary, column: _Column, plain: set[str]) -> TableCell:
    name = column.vanilla if summary.vanilla and column.vanilla else column.quantity
    if summary.vanilla and name not in plain:
        return TableCell("N/A")
    value = _unexplained(material, summary) if name == _UNEXPLAINED else _value(material, summary, name)
    return TableCell("–" if value is None else column.form.format(column.factor * value).replace("-", "−"))


def _value(material: Material, summary: Summary, quantity: str) -> float | None:
    found = material.value(summary, quantity)
    return None if found is None else found.value


def _unexplained(material: Material, summary: Summary) -> float | None:
    """Per cent of a round (of vanilla decoding: of a step) that no stage's timer had."""
    whole = _value(material, summary, _STEP if summary.vanilla else _ROUND)
    stages = [_value(material, summary, name) for name in _STAGES]
    known = [each for each in stages if each is not None]
    return None if whole is None or len(known) < len(stages) else 100 * (1 - sum(known) / whole)
