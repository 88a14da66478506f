"""Figure 7's kind: speed-up over vanilla decoding at each batch size as bars, and below them every TPS in numbers.

Bars start at 0, so that their lengths may be compared. A missing value is a cross where the bar would stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prism_ae.analysis.estimates import Summary, unique
from prism_ae.drawing.legend import LegendItem
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import axes_box, fitting, put
from prism_ae.drawing.style import FAINT, INK
from prism_ae.drawing.text import NAME, shortened, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FONT = 15.0
EM = FONT / 72
ALPHA = 0.8
"""Of the bars, as in the paper."""
LEAST = 7.0
"""Points: where bars leave no room for larger numbers, these are turned."""
GROUP = 0.8
"""Part of a group's width that its bars take."""


@dataclasses.dataclass(frozen=True)
class Bars:
    """Panels side by side per target and below each other per temperature.

    Attributes:
        material: means over benchmarks, and the paper's speed-ups.
        panel: width and height of one panel's axes, inches.
    """

    material: Material
    panel: tuple[float, float]
    x_label: str
    y_label: str
    font: float = FONT
    legend_below: bool = False

    @property
    def _drafters(self) -> list[str]:
        """In the order of the numbers below a panel: vanilla first, as what the others are compared with."""
        plain = {summary.place.drafter: summary.vanilla for summary in self.material.summaries}
        return sorted(plain, key=lambda name: not plain[name])

    @property
    def _bars(self) -> list[str]:
        return unique(summary.place.drafter for summary in self.material.summaries if not summary.vanilla)

    @property
    def _left(self) -> float:
        """Inches for the y label with its ticks, or for the names of the rows below."""
        names = max(width_of(self._name(name), 0.75 * FONT) for name in self._drafters)
        return max(4.2 * EM, names + 1.2 * EM)

    def _name(self, drafter: str) -> str:
        """A drafter's label as it stands beside its row of numbers."""
        return shortened(self.material.styles[drafter].label, NAME, 0.75 * FONT)

    def size(self) -> tuple[float, float]:
        width = len(self.material.targets) * (self._left + self.panel[0]) + 0.4 * EM
        return width, len(self.material.temperatures) * self._height()

    def _height(self) -> float:
        return 1.7 * EM + self.panel[1] + 3.4 * EM + 1.2 * EM * (len(self._drafters) + 1)

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        series: list[LegendItem] = []
        for name in self._bars:
            alpha = 0.3 if self.material.unmeasured(name) else ALPHA
            patch = Patch(facecolor=self.material.styles[name].color, alpha=alpha)
            series.append((self.material.legend_label(name), patch))
        others: list[LegendItem] = [("Vanilla", Line2D([], [], color=INK, linestyle="--", linewidth=1.2))]
        if self.material.known:
            look = {"color": FAINT, "linewidth": 1.4, "marker": "D", "markersize": 5.0, "markerfacecolor": "white"}
            others.append(("grey: the paper's values", Line2D([], [], **look)))  # type: ignore[arg-type]
        return series, others

    def paint(self, figure: Figure, left: float, top: float) -> None:
        for row, temperature in enumerate(self.material.temperatures):
            for column, target in enumerate(self.material.targets):
                x = left + self._left + column * (self._left + self.panel[0])
                y = top + 1.7 * EM + row * self._height()
                self._panel(figure, x, y, target, temperature)

    def _panel(self, figure: Figure, x: float, y: float, target: str, temperature: float) -> None:
        mine = {
            (summary.place.drafter, summary.place.batch or 1): summary
            for summary in self.material.summaries
            if (summary.place.target, summary.place.temperature) == (target, temperature)
        }
        known = {
            (each.drafter, each.x): each.value
            for each in self.material.known
            if (each.target, each.temperature) == (target, temperature)
        }
        batches = list(dict.fromkeys(batch for _, batch in mine))
        axes = figure.add_axes(axes_box(figure, x, y, *self.panel))
        title = shortened(f"{self.material.target_label(target)}, T = {temperature:g}", self.panel[0], FONT)
        axes.set_title(title, fontsize=FONT, pad=0.35 * FONT)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.5, len(batches) - 0.5)
        axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        axes.tick_params(labelsize=0.86 * FONT)
        tallest = 1.0
        for summary in mine.values():
            if value := summary.values.get("speed_up"):
                tallest = max(tallest, value.value, *(value.bounds or ()))
        axes.set_ylim(0, 1.15 * max(tallest, *known.values(), 1.0))
        axes.axhline(1.0, color=INK, linestyle="--", linewidth=1.2, zorder=1.5)
        self._draw_bars(axes, mine, known, batches)
        if not any("speed_up" in mine[name, batch].values for name in self._bars for batch in batches):
            axes.text(0.5, 0.55, "not measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        put(
            figure,
            x - 3.3 * EM,
            y + self.panel[1] / 2,
            shortened(self.y_label, self.panel[1], FONT),
            fontsize=FONT,
            rotation=90,
            ha="center",
            va="center",
        )
        self._numbers(figure, x, y + self.panel[1], mine, batches)

    def _draw_bars(
        self,
        axes: Axes,
        mine: Mapping[tuple[str, int], Summary],
        known: Mapping[tuple[str, object], float],
        batches: Sequence[int],
    ) -> None:
        width = GROUP / max(1, len(self._bars))
        room = 0.96 * width * self.panel[0] / len(batches)
        size, turned = fitting("0.00×", 0.7 * FONT, room), 0.0
        if size < LEAST:
            size, turned = LEAST, 90.0
        for number, name in enumerate(self._bars):
            color = self.material.styles[name].color
            for place, batch in enumerate(batches):
                middle = place + (number + 0.5) * width - GROUP / 2
                if (value := known.get((name, batch))) is not None:
                    ends = (middle - 0.42 * width, middle + 0.42 * width)
                    axes.plot(ends, (value, value), color=FAINT, linewidth=1.4, zorder=4, gid="paper")
                    look = {"markersize": 5, "markerfacecolor": "white", "markeredgecolor": FAINT}
                    axes.plot(middle, value, "D", zorder=4.1, gid="paper", **look)  # type: ignore[arg-type]
                estimate = mine[name, batch].values.get("speed_up") if (name, batch) in mine else None
                if estimate is None:
                    low = 0.035 * axes.get_ylim()[1]
                    axes.plot(middle, low, "x", color=color, markersize=8, markeredgewidth=1.8, zorder=3, gid="hole")
                    continue
                axes.bar(middle, estimate.value, 0.94 * width, color=color, alpha=ALPHA, zorder=2, gid="measured")
                high = estimate.value
                if estimate.bounds:
                    axes.vlines(middle, *estimate.bounds, color=INK, linewidth=1.0, zorder=3)
                    high = max(high, estimate.bounds[1])
                high = max(high, value or 0.0) if value is not None and abs(value - high) < 0.25 else high
                axes.annotate(
                    f"{estimate.value:.2f}×",
                    (middle, high),
                    (0, 4),
                    textcoords="offset points",
                    ha="center",
                    fontsize=size,
                    rotation=turned,
                    zorder=5,
                )

    def _numbers(
        self, figure: Figure, x: float, y: float, mine: Mapping[tuple[str, int], Summary], batches: Sequence[int]
    ) -> None:
        """The TPS of every bar and of vanilla, below the axis."""
        step, size = self.panel[0] / len(batches), 0.75 * FONT
        x_label = shortened(self.x_label, self.panel[0], FONT)
        put(figure, x + self.panel[0] / 2, y + 1.5 * EM, x_label, fontsize=FONT, ha="center", va="top")
        y += 3.3 * EM
        put(figure, x + self.panel[0] / 2, y, "tokens per second (TPS)", fontsize=size, ha="center", va="top")
        for row, name in enumerate(self._drafters):
            y += 1.2 * EM
            put(figure, x - 0.5 * EM, y, self._name(name), fontsize=size, ha="right", va="top")
            if row == 0:
                width, height = figure.get_size_inches()
                figure.add_artist(_rule(x / width, (x + self.panel[0]) / width, 1 - (y - 0.12 * EM) / height))
            for place, batch in enumerate(batches):
                estimate = mine[name, batch].values.get("tps") if (name, batch) in mine else None
                text = f"{estimate.value:,.1f}" if estimate else "–"
                put(
                    figure,
                    x + (place + 0.5) * step,
                    y,
                    text,
                    fontsize=fitting(text, size, 0.95 * step),
                    ha="center",
                    va="top",
                )


def _rule(x0: float, x1: float, y: float) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D((x0, x1), (y, y), color=FAINT, linewidth=0.6)
