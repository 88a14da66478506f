"""Tables 4 to 7 and the comparison of draft loops: summaries as the rows and columns of a `Table`.

"N/A" is what vanilla decoding has not, "–" a missing value. The best value of a row's or column's methods is bold; the
paper's values, on request, stand below each measured one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from prism_ae.analysis.estimates import Estimate, Summary, combine, unique
from prism_ae.analysis.quantities import AL_MACRO, QUANTITIES
from prism_ae.cells import EXACT, STOCK
from prism_ae.drawing.material import Material
from prism_ae.drawing.table import Row, Table, TableCell

BOTH = ("al", "tps")
MEANS = ("al", "tps", "speed_up", "round_cost", "decode_speed_up")
_SHOWN = {"al": AL_MACRO} | QUANTITIES
LAYERS = ((False, "paper"), (True, "re-run"))
DRAFTING = {EXACT: "exact", STOCK: "SGLang's own"}


@dataclasses.dataclass(frozen=True)
class Source:
    """What a table is made of, found by place; ``least`` is the width and height of a cell at the least, inches."""

    material: Material
    least: tuple[float, float]

    def find(self, target: str, drafter: str, temperature: float, benchmark: str | None) -> Summary | None:
        wanted = (target, drafter, temperature, benchmark)
        for summary in self.material.summaries:
            place = summary.place
            if (place.target, place.drafter, place.temperature, place.benchmark) == wanted:
                return summary
        return None

    def reference(
        self, target: str, drafter: str, temperature: float, column: tuple[str | None, str], *, rerun: bool
    ) -> TableCell:
        """The paper's value of a column: benchmark and quantity."""
        wanted = (target, drafter, temperature, *column, rerun)
        for each in self.material.known:
            found = (each.target, each.drafter, each.temperature, each.benchmark, each.quantity, each.rerun)
            if found == wanted:
                return TableCell(_SHOWN[each.quantity].form.format(each.value), pale=True)
        return TableCell()

    def layers(self, target: str, temperature: float, drafter: str | None = None) -> list[tuple[bool, str]]:
        """Which of the paper's layers have a value there."""
        there = {
            each.rerun
            for each in self.material.known
            if (each.target, each.temperature) == (target, temperature) and drafter in (None, each.drafter)
        }
        return [layer for layer in LAYERS if layer[0] in there]

    def cell(self, summary: Summary | None, quantity: str, among: Iterable[Summary | None]) -> TableCell:
        """A measured value, bold if it is shown as the best among some summaries' values."""
        if summary is None:
            return TableCell()
        if summary.vanilla and quantity in ("al", "round_cost"):
            return TableCell("N/A")
        if (value := self.material.value(summary, quantity)) is None:
            return TableCell("–")
        found = [self.material.value(each, quantity) for each in among if each is not None]
        values = [each.value for each in found if each is not None]
        best, form = min(values) if quantity == "round_cost" else max(values), _SHOWN[quantity].form
        text = form.format(value.value)
        return TableCell(text, bold=text == form.format(best) and len(values) > 1)

    @property
    def parts(self) -> list[tuple[str | None, str, tuple[str, ...]]]:
        """Benchmark (None is the mean), its label, and what is shown of it; one alone has no mean beside it."""
        names, labels = self.material.benchmarks, self.material.suite.benchmarks
        if len(names) == 1:
            return [(names[0], labels[names[0]].label, MEANS)]
        parts: list[tuple[str | None, str, tuple[str, ...]]] = [(name, labels[name].label, BOTH) for name in names]
        return [*parts, (None, f"Mean over {len(names)}", MEANS)]

    def drafters(self, target: str | None = None) -> list[str]:
        """In the order asked, those of which only the paper's values are known last."""
        mine = [(summary.place.target, summary.place.drafter) for summary in self.material.summaries]
        mine += [(each.target, each.drafter) for each in self.material.known]
        return unique(drafter for of, drafter in mine if target in (None, of))


def methods_on_rows(source: Source) -> Table:
    """Tables 4 and 5: a row per target, temperature and method, two columns per benchmark, then the means."""
    places = [(benchmark, quantity) for benchmark, _, shown in source.parts for quantity in shown]
    head = (
        (TableCell(span=3), *(TableCell(label, span=len(shown)) for _, label, shown in source.parts)),
        (
            *(TableCell(text) for text in ("Target", "T", "Method")),
            *(TableCell(_SHOWN[quantity].label) for _, quantity in places),
        ),
    )
    blocks = []
    for target in source.material.targets:
        for temperature in source.material.temperatures:
            lines: list[Row] = []
            for drafter in source.drafters(target):
                if source.find(target, drafter, temperature, source.parts[-1][0]):
                    lines.append(
                        (
                            TableCell(source.material.styles[drafter].label),
                            *_method(source, target, drafter, temperature),
                        )
                    )
                for rerun, word in source.layers(target, temperature, drafter):
                    known = [source.reference(target, drafter, temperature, place, rerun=rerun) for place in places]
                    lines.append((TableCell(f"{source.material.styles[drafter].label}, {word}", pale=True), *known))
            names = (TableCell(source.material.target_label(target)), TableCell(f"{temperature:g}"))
            blocks.append(
                tuple((*(names if line is lines[0] else (TableCell(), TableCell())), *line) for line in lines)
            )
    return Table(3, head, tuple(blocks), source.least)


def _method(source: Source, target: str, drafter: str, temperature: float) -> list[TableCell]:
    """A method's measured cells."""
    cells = []
    for benchmark, _, shown in source.parts:
        among = [source.find(target, name, temperature, benchmark) for name in source.drafters(target)]
        entry = source.find(target, drafter, temperature, benchmark)
        cells += [source.cell(entry, quantity, among) for quantity in shown]
    return cells


def methods_on_columns(source: Source) -> Table:
    """Tables 6 and 7: two rows per benchmark, a column per temperature and method, then rows of the means."""
    temperatures, drafters, several = source.material.temperatures, source.drafters(), len(source.material.targets) > 1
    columns = [(temperature, name) for temperature in temperatures for name in drafters]
    head = (
        (TableCell(span=2), *(TableCell(f"T = {temperature:g}", span=len(drafters)) for temperature in temperatures)),
        (TableCell("Benchmark"), TableCell(), *(TableCell(source.material.styles[name].label) for _, name in columns)),
    )
    blocks = []
    for target in source.material.targets:
        layers = dict.fromkeys(each for temperature in temperatures for each in source.layers(target, temperature))
        for benchmark, label, shown in source.parts:
            label = f"{label}, {source.material.target_label(target)}" if several else label
            rows: list[Row] = []
            for quantity in shown:
                cells: list[TableCell] = []
                for temperature in temperatures:
                    among = [source.find(target, name, temperature, benchmark) for name in drafters]
                    cells += [source.cell(entry, quantity, among) for entry in among]
                rows.append((TableCell("" if rows else label), TableCell(_SHOWN[quantity].label), *cells))
                for rerun, word in layers if benchmark and quantity in BOTH else ():
                    known = [
                        source.reference(target, name, temperature, (benchmark, quantity), rerun=rerun)
                        for temperature, name in columns
                    ]
                    rows.append((TableCell(), TableCell(f"{_SHOWN[quantity].label}, {word}", pale=True), *known))
            blocks.append(tuple(rows))
    return Table(2, head, tuple(blocks), source.least)


def drafting_table(source: Source) -> Table:
    """Four rows per target, temperature and drafter: exact drafting, SGLang's own, their difference, its interval.

    The interval is paired: both ways answered the same questions, and the same ones are drawn for both.
    """
    material = source.material
    found = {_row_key(summary): summary for summary in material.summaries if not summary.vanilla}
    columns = [benchmark for benchmark, _, _ in source.parts]
    head = (
        (TableCell(span=3), *(TableCell(label, span=2) for _, label, _ in source.parts)),
        tuple(TableCell(text) for text in ("Target", "Method", "Drafting", *("AL", "ms") * len(columns))),
    )
    several = len(material.temperatures) > 1
    blocks = []
    for target, temperature, drafter in unique(key[:3] for key in found):
        exact, stock = (
            [
                _scaled(material, found.get((target, temperature, drafter, way, name)), *quantity)
                for name in columns
                for quantity in (("al", 1.0), ("round_seconds", 1000.0))
            ]
            for way in DRAFTING
        )
        apart = [one.minus(other) if one and other else None for one, other in zip(exact, stock, strict=True)]
        label = material.target_label(target) + (f", T = {temperature:g}" if several else "")
        rows: tuple[Row, ...] = (
            (
                TableCell(label),
                TableCell(material.styles[drafter].label),
                TableCell(DRAFTING[EXACT]),
                *map(_plain, exact),
            ),
            (TableCell(), TableCell(), TableCell(DRAFTING[STOCK]), *map(_plain, stock)),
            (TableCell(), TableCell(), TableCell("difference"), *map(_difference, apart)),
            (TableCell(), TableCell(), TableCell("95 % interval"), *map(_interval, apart)),
        )
        blocks.append(rows)
    return Table(3, head, tuple(blocks), source.least)


def _row_key(summary: Summary) -> tuple[str, float, str, str, str | None]:
    place = summary.place
    return place.target, place.temperature, place.drafter, place.drafting, place.benchmark


def _scaled(material: Material, summary: Summary | None, quantity: str, factor: float) -> Estimate | None:
    """A value in the unit of the table."""
    value = summary and material.value(summary, quantity)
    return combine(lambda values: factor * float(values[0]), [value]) if value else None


def _plain(value: Estimate | None) -> TableCell:
    return TableCell(f"{value.value:.2f}" if value else "–")


def _difference(apart: Estimate | None) -> TableCell:
    """Bold where its interval leaves out 0."""
    if apart is None:
        return TableCell("–")
    bounds = apart.bounds
    return TableCell(_signed(apart.value), bold=bounds is not None and not bounds[0] <= 0 <= bounds[1])


def _interval(apart: Estimate | None) -> TableCell:
    bounds = apart and apart.bounds
    return TableCell(f"{_signed(bounds[0])} … {_signed(bounds[1])}" if bounds else "–")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
