"""Tables 4 to 7 and the comparison of draft loops: entries as the rows and columns of a `tabular.Table`.

"N/A" is what vanilla decoding has not, "–" a hole. The best value of a row's or column's methods is bold; the paper's
values, on request, stand below each measured one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from prism_ae.analysis.curves import Estimate
from prism_ae.analysis.entries import Entry
from prism_ae.analysis.paper_values import Reference
from prism_ae.drawing.style import SeriesStyle
from prism_ae.drawing.tabular import Cell, Row, Table
from prism_ae.suites.records import Suite

BOTH = ("al", "tps")
MEANS = ("al", "tps", "speed_up", "round_cost", "decode_speed_up")
NAMES = {"al": "AL", "tps": "TPS", "speed_up": "Speed-up", "round_cost": "Round cost", "decode_speed_up": "Decode"}
FORMS = {"al": "{:.2f}", "tps": "{:,.1f}", "speed_up": "{:.2f}×", "round_cost": "{:.2f}", "decode_speed_up": "{:.2f}×"}
LAYERS = ((False, "paper"), (True, "re-run"))


@dataclasses.dataclass(frozen=True)
class Source:
    """What a table is made of: entries by place, and the paper's values if they are drawn."""

    entries: Sequence[Entry]
    known: Sequence[Reference]
    al: str
    styles: Mapping[str, SeriesStyle]
    suite: Suite
    least: tuple[float, float]

    def find(self, target: str, drafter: str, temperature: float, benchmark: str) -> Entry | None:
        place = (target, drafter, temperature, benchmark)
        return next((e for e in self.entries if (e.target, e.drafter, e.temperature, e.benchmark) == place), None)

    def reference(
        self, target: str, drafter: str, temperature: float, benchmark: str, quantity: str, rerun: bool
    ) -> Cell:
        place = (target, drafter, temperature, benchmark, quantity, rerun)
        for each in self.known:
            if (each.target, each.drafter, each.temperature, each.benchmark, each.quantity, each.rerun) == place:
                return Cell(FORMS[quantity].format(each.value), pale=True)
        return Cell()

    def layers(self, target: str, temperature: float, drafter: str | None = None) -> list[tuple[bool, str]]:
        """Which of the paper's layers have a value there."""
        there = {
            each.rerun
            for each in self.known
            if (each.target, each.temperature) == (target, temperature) and drafter in (None, each.drafter)
        }
        return [layer for layer in LAYERS if layer[0] in there]

    def number(self, entry: Entry, quantity: str) -> Estimate | None:
        return entry.values.get(self.al if quantity == "al" else quantity)

    def cell(self, entry: Entry | None, quantity: str, among: Iterable[Entry | None]) -> Cell:
        """A measured value, bold if it is shown as the best among some entries' values."""
        if entry is None:
            return Cell()
        if entry.vanilla and quantity in ("al", "round_cost"):
            return Cell("N/A")
        if (value := self.number(entry, quantity)) is None:
            return Cell("–")
        found = [self.number(each, quantity) for each in among if each is not None]
        values = [each.value for each in found if each is not None]
        best = min(values) if quantity == "round_cost" else max(values)
        text = FORMS[quantity].format(value.value)
        return Cell(text, bold=text == FORMS[quantity].format(best) and len(values) > 1)

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(entry.target for entry in self.entries))

    @property
    def temperatures(self) -> list[float]:
        return list(dict.fromkeys(entry.temperature for entry in self.entries))

    @property
    def benchmarks(self) -> list[str]:
        return list(dict.fromkeys(entry.benchmark for entry in self.entries if entry.benchmark))

    @property
    def parts(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Benchmark ("" is the mean), its label, and what is shown of it; one benchmark alone has no mean beside it."""
        names = self.benchmarks
        labels = [self.suite.benchmarks[name].label for name in names]
        if len(names) == 1:
            return [(names[0], labels[0], MEANS)]
        parts: list[tuple[str, str, tuple[str, ...]]] = [
            (name, label, BOTH) for name, label in zip(names, labels, strict=True)
        ]
        return [*parts, ("", f"Mean over {len(names)}", MEANS)]

    def drafters(self, target: str | None = None) -> list[str]:
        """In the order asked, those of which only the paper's values are known last."""
        mine = [entry.drafter for entry in self.entries if target in (None, entry.target)]
        return list(dict.fromkeys([*mine, *(each.drafter for each in self.known if target in (None, each.target))]))


def methods_on_rows(source: Source) -> Table:
    """Tables 4 and 5: a row per target, temperature and method, two columns per benchmark, then the means."""
    places = [(benchmark, quantity) for benchmark, _, shown in source.parts for quantity in shown]
    head = (
        (Cell(span=3), *(Cell(label, span=len(shown)) for _, label, shown in source.parts)),
        (*(Cell(text) for text in ("Target", "T", "Method")), *(Cell(NAMES[quantity]) for _, quantity in places)),
    )
    blocks = []
    for target in source.targets:
        for temperature in source.temperatures:
            lines: list[Row] = []
            for drafter in source.drafters(target):
                if source.find(target, drafter, temperature, source.parts[-1][0]):
                    lines.append((Cell(source.styles[drafter].label), *_method(source, target, drafter, temperature)))
                for rerun, word in source.layers(target, temperature, drafter):
                    known = [source.reference(target, drafter, temperature, *place, rerun) for place in places]
                    lines.append((Cell(f"{source.styles[drafter].label}, {word}", pale=True), *known))
            names = (Cell(source.suite.targets[target].label), Cell(f"{temperature:g}"))
            blocks.append(tuple((*(names if line is lines[0] else (Cell(), Cell())), *line) for line in lines))
    return Table(3, head, tuple(blocks), source.least)


def _method(source: Source, target: str, drafter: str, temperature: float) -> list[Cell]:
    """A method's measured cells."""
    cells = []
    for benchmark, _, shown in source.parts:
        among = [source.find(target, name, temperature, benchmark) for name in source.drafters(target)]
        entry = source.find(target, drafter, temperature, benchmark)
        cells += [source.cell(entry, quantity, among) for quantity in shown]
    return cells


def methods_on_columns(source: Source) -> Table:
    """Tables 6 and 7: two rows per benchmark, a column per temperature and method, then rows of the means."""
    temperatures, drafters, several = source.temperatures, source.drafters(), len(source.targets) > 1
    columns = [(temperature, name) for temperature in temperatures for name in drafters]
    head = (
        (Cell(span=2), *(Cell(f"T = {temperature:g}", span=len(drafters)) for temperature in temperatures)),
        (Cell("Benchmark"), Cell(), *(Cell(source.styles[name].label) for _, name in columns)),
    )
    blocks = []
    for target in source.targets:
        layers = dict.fromkeys(each for temperature in temperatures for each in source.layers(target, temperature))
        for benchmark, label, shown in source.parts:
            label = f"{label}, {source.suite.targets[target].label}" if several else label
            rows: list[Row] = []
            for quantity in shown:
                cells: list[Cell] = []
                for temperature in temperatures:
                    among = [source.find(target, name, temperature, benchmark) for name in drafters]
                    cells += [source.cell(entry, quantity, among) for entry in among]
                rows.append((Cell("" if rows else label), Cell(NAMES[quantity]), *cells))
                for rerun, word in layers if benchmark and quantity in BOTH else ():
                    known = [
                        source.reference(target, name, temperature, benchmark, quantity, rerun)
                        for temperature, name in columns
                    ]
                    rows.append((Cell(), Cell(f"{NAMES[quantity]}, {word}", pale=True), *known))
            blocks.append(tuple(rows))
    return Table(2, head, tuple(blocks), source.least)
