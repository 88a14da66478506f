"""Figure 8's kind: acceptance length (bars, left axis) and tokens per second (line, right axis) of each draft tree.

Both axes start at 0, so that bars and line may be compared by their heights. A missing value is a cross and a gap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.estimates import Summary
from prism_ae.drawing.legend import LegendItem
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import axes_box, fitting, put
from prism_ae.drawing.style import FAINT, INK
from prism_ae.drawing.text import shortened, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 15.0
EM = FONT / 72
ALPHA = 0.7
"""Of the bars, as in the paper."""
DASHED = (0, (5, 2.5))


@dataclasses.dataclass(frozen=True)
class TreeBars:
    """One panel per target, drafter and temperature, below each other.

    Attributes:
        material: means over benchmarks, and the paper's values.
        panel: width and height of one panel's axes, inches.
        right_color: of the line.
    """

    material: Material
    panel: tuple[float, float]
    x_label: str
    y_label: str
    right_label: str
    right_color: str
    font: float = FONT
    legend_below: bool = False

    @property
    def _panels(self) -> dict[tuple[str, str, float], list[Summary]]:
        found: dict[tuple[str, str, float], list[Summary]] = {}
        for summary in self.material.summaries:
            if not summary.vanilla:
                place = summary.place
                found.setdefault((place.target, place.drafter, place.temperature), []).append(summary)
        return found

    @property
    def _ticks(self) -> float:
        """Inches below an axis for the names of trees, turned by 45 degrees."""
        longest = max(width_of(str(each.place.tree), 0.8 * FONT) for each in self.material.summaries)
        return (longest + 0.8 * FONT / 72) / math.sqrt(2) + 0.3 * EM

    def size(self) -> tuple[float, float]:
        return self.panel[0] + 9.4 * EM, len(self._panels) * self._height()

    def _height(self) -> float:
        return 1.7 * EM + self.panel[1] + self._ticks + 2.2 * EM

    def legend(self) -> tuple[list[LegendItem], list[LegendItem]]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        series: list[LegendItem] = []
        for name in dict.fromkeys(drafter for _, drafter, _ in self._panels):
            empty = self.material.unmeasured(name)
            label = f"{self.material.styles[name].label}: {self.y_label}" + (" (not measured)" if empty else "")
            series.append((label, Patch(facecolor=self.material.styles[name].color, alpha=0.3 if empty else ALPHA)))
        others: list[LegendItem] = [(self.right_label, Line2D([], [], **self._line))]
        if self.material.known:
            look: dict[str, Any] = {"color": FAINT, "linewidth": 1.2, "marker": "D", "markersize": 5.0}
            others.append(("grey: the paper's values", Line2D([], [], markerfacecolor="white", **look)))
        return series, others

    @property
    def _line(self) -> dict[str, Any]:
        return {"color": self.right_color, "linestyle": DASHED, "linewidth": 1.8, "marker": "o", "markersize": 6.0}

    def paint(self, figure: Figure, left: float, top: float) -> None:
        for number, (key, mine) in enumerate(self._panels.items()):
            x, y = left + 4.4 * EM, top + 1.7 * EM + number * self._height()
            target, drafter, temperature = key
            axes = figure.add_axes(axes_box(figure, x, y, *self.panel))
            title = f"{self.material.styles[drafter].label}, {self.material.target_label(target)}, T = {temperature:g}"
            axes.set_title(shortened(title, self.panel[0], FONT), fontsize=FONT, pad=0.35 * FONT)
            known = {
                (each.quantity, each.x): each.value
                for each in self.material.known
                if (each.target, each.drafter, each.temperature) == key
            }
            self._panel(axes, mine, known, self.material.styles[drafter].color)
            middle = y + self.panel[1] / 2
            for place, text in ((x - 3.3 * EM, self.y_label), (x + self.panel[0] + 4.0 * EM, self.right_label)):
                label = shortened(text, self.panel[1], FONT)
                put(figure, place, middle, label, fontsize=FONT, rotation=90, ha="center", va="center")
            below = y + self.panel[1] + self._ticks + 0.4 * EM
            x_label = shortened(self.x_label, self.panel[0], FONT)
            put(figure, x + self.panel[0] / 2, below, x_label, fontsize=FONT, ha="center", va="top")

    def _panel(
        self, axes: Axes, mine: Sequence[Summary], known: Mapping[tuple[str, object], float], color: str
    ) -> None:
        xs = range(len(mine))
        lengths = [self.material.value(summary, "al") for summary in mine]
        speeds = [summary.values.get("tps") for summary in mine]
        right = axes.twinx()
        right.grid(visible=False)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.6, len(mine) - 0.4)
        names = [str(summary.place.tree) for summary in mine]
        axes.set_xticks(xs, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelsize=0.8 * FONT)
        for each in (axes, right):
            each.tick_params(axis="y", labelsize=0.86 * FONT)
        tall = [value for each in lengths if each for value in (each.value, *(each.bounds or ()))]
        fast = [value for each in speeds if each for value in (each.value, *(each.bounds or ()))]
        # The line above the bars: they rise alike, and would hide each other.
        axes.set_ylim(0, 1.5 * max([*tall, *(v for (q, _), v in known.items() if q == "al")], default=1.0))
        right.set_ylim(0, 1.12 * max([*fast, *(v for (q, _), v in known.items() if q == "tps")], default=1.0))
        axes.set_zorder(1)
        right.set_zorder(2)
        room = 0.9 * self.panel[0] / (len(mine) + 0.2)
        for x, summary, length, speed in zip(xs, mine, lengths, speeds, strict=True):
            if (value := known.get(("al", summary.place.tree))) is not None:
                axes.plot((x - 0.38, x + 0.38), (value, value), color=FAINT, linewidth=1.2, zorder=4, gid="paper")
                axes.plot(x, value, "D", color=FAINT, markersize=5, markerfacecolor="white", zorder=4.1, gid="paper")
            if length is None:
                low = 0.035 * axes.get_ylim()[1]
                axes.plot(x, low, "x", color=color, markersize=8, markeredgewidth=1.8, zorder=3, gid="hole")
            else:
                axes.bar(x, length.value, 0.74, color=color, alpha=ALPHA, zorder=2, gid="measured")
                text = f"{length.value:.2f}"
                low = 0.02 * axes.get_ylim()[1]
                pale = {"facecolor": "white", "alpha": 0.6, "edgecolor": "none", "pad": 0.8}  # on any colour
                size = fitting(text, 0.7 * FONT, room)
                axes.text(x, low, text, ha="center", fontsize=size, zorder=5, bbox=pale)
                if length.bounds:
                    axes.vlines(x, *length.bounds, color=INK, linewidth=1.0, zorder=3)
            if speed is not None:
                text = f"{speed.value:,.0f}" if speed.value >= 100 else f"{speed.value:.1f}"
                high = max(speed.value, *(speed.bounds or (0.0,)))
                how: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
                right.annotate(text, (x, high), (0, 5), fontsize=fitting(text, 0.7 * FONT, room), **how)
                if speed.bounds:
                    right.vlines(x, *speed.bounds, color=self.right_color, linewidth=1.0)
        paper = [known.get(("tps", summary.place.tree), math.nan) for summary in mine]
        if not all(math.isnan(value) for value in paper):
            right.plot(
                xs, paper, color=FAINT, linewidth=1.2, marker="D", markersize=5, markerfacecolor="white", gid="paper"
            )
        ys = [speed.value if speed else math.nan for speed in speeds]
        right.plot(xs, ys, gid="measured", **self._line)
        if not any([*lengths, *speeds]):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)
