"""A page laid out as in its PDF, and whether everything on it has a place of its own."""

from __future__ import annotations

import contextlib
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prism_ae.drawing.canvas import own_settings
from prism_ae.drawing.page import draw
from prism_ae.experiments.compose import Drawing


def laid_out(drawing: Drawing) -> Figure:
    """The page with every extent known."""
    with own_settings(), unhinted():
        figure = draw(drawing.page)
        figure.set_dpi(300)
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        return figure


def unhinted() -> contextlib.AbstractContextManager[None]:
    """Letters are not rounded to pixels, as in a PDF: texts would grow wider."""
    return matplotlib.rc_context({"text.hinting": "none"})


def boxes_of(figure: Figure) -> list[tuple[str, Any]]:
    """Every text, legend and pair of axes, with its extent in pixels; turned tick labels apart."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes: list[tuple[str, Any]] = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts if t.get_text()]
    boxes += [("legend", legend.get_window_extent(renderer)) for legend in figure.legends]
    seen: set[tuple[float, ...]] = set()
    for axes in figure.axes:
        place = axes.get_position().bounds
        if place not in seen:  # the right-hand axis has the left one's box, and its names of trees, which are turned
            seen.add(place)
            boxes.append(("axes", axes.get_window_extent(renderer)))
        low, high = axes.get_ylim()
        labels = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
        labels += [label for label in axes.get_xticklabels() if not label.get_rotation() and label.get_visible()]
        boxes += [(label.get_text(), label.get_window_extent(renderer)) for label in labels if label.get_text()]
        if axes.get_title():
            boxes.append((axes.get_title(), axes.title.get_window_extent(renderer)))
    return boxes


def check_places(name: str, figure: Figure) -> None:
    """Nothing is cut off, nothing lies on anything else; ``name`` is of the page, for the message."""
    with unhinted():
        boxes, page = boxes_of(figure), figure.bbox
    assert len(boxes) > 10
    for number, (text, box) in enumerate(boxes):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{name}: '{text}' is cut off"
        for other, second in boxes[number + 1 :]:
            apart = (
                box.x1 <= second.x0 + 1 or second.x1 <= box.x0 + 1 or box.y1 <= second.y0 + 1 or second.y1 <= box.y0 + 1
            )
            assert apart, f"{name}: '{text}' lies on '{other}'"
