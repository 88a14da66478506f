"""An experiment that measures time, from its frame to what is on its page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import Verdict
from prism_ae.analysis.entries import Entry, fold_times
from prism_ae.analysis.paper_values import Reference, references
from prism_ae.analysis.text_agreement import Texts
from prism_ae.analysis.timed_claims import judge_times
from prism_ae.drawing import timed_caption
from prism_ae.drawing.bars import FONT, Bars
from prism_ae.drawing.drafting_table import drafting_table
from prism_ae.drawing.sheet import Content, Sheet
from prism_ae.drawing.style import SeriesStyle, series_style
from prism_ae.drawing.tables import Source, methods_on_columns, methods_on_rows
from prism_ae.drawing.timed_rows import timed_rows
from prism_ae.drawing.tree_bars import TreeBars
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

TABLE_FONT = 12.5
"""Of a table's title and small print, which follow from it; its cells have their own."""


@dataclasses.dataclass(frozen=True, eq=False)
class Timed:
    """What is drawn, written to .csv, and judged."""

    frame: pd.DataFrame
    entries: tuple[Entry, ...]
    known: tuple[Reference, ...]
    verdicts: tuple[Verdict, ...]
    sheet: Sheet
    rows: list[dict[str, Any]]


def compose_timed(
    experiment: Experiment,
    suite: Suite,
    options: Options,
    frame: pd.DataFrame,
    written: Texts,
    with_paper: bool,
    notes: Sequence[str],
) -> Timed:
    """Everything that a figure or table of speeds shows.

    Args:
        frame: `build_frame` of the experiment's points.
        written: whether the drafters wrote the same texts.
    """
    asked = tuple(dict.fromkeys(frame["drafter"]))
    frame, without = _with_a_place(suite, frame)
    entries = fold_times(frame, benchmarks=experiment.kind == "table")
    same = _as_in_the_paper(experiment, suite, frame)
    known = references(experiment, suite, entries, asked) if same else ()
    verdicts = judge_times(experiment, entries, known, options.paper_compat)
    drawn = known if with_paper else ()
    names = dict.fromkeys([*(entry.drafter for entry in entries), *(each.drafter for each in drawn)])
    styles = {name: series_style(experiment, suite, name) for name in names}
    sheet = Sheet(
        title=timed_caption.title(experiment, suite, frame),
        content=_content(experiment, suite, options, entries, drawn, styles),
        small_print=timed_caption.small_print(
            experiment,
            suite,
            options,
            frame,
            styles,
            verdicts,
            bool(drawn) if with_paper else None,
            notes,
            written,
            without,
        ),
        font=TABLE_FONT if experiment.kind == "table" else FONT,
        styles=styles,
    )
    return Timed(frame, entries, drawn, verdicts, sheet, timed_rows(entries, drawn, styles))


def _content(
    experiment: Experiment,
    suite: Suite,
    options: Options,
    entries: Sequence[Entry],
    known: Sequence[Reference],
    styles: Mapping[str, SeriesStyle],
) -> Content:
    look, al = experiment.look, "al_micro" if options.paper_compat else "al_macro"
    if experiment.kind == "batches":
        return Bars(entries, known, styles, suite, look.panel, look.x_label, look.y_label)
    if experiment.kind == "trees":
        labels = (look.x_label, look.y_label, look.right_label, look.right_color)
        return TreeBars(entries, known, al, styles, suite, look.panel, *labels)
    if look.layout == "drafting":
        return drafting_table(entries, al, styles, suite, look.panel)
    source = Source(entries, known, al, styles, suite, look.panel)
    return methods_on_columns(source) if look.layout == "methods-on-columns" else methods_on_rows(source)


def _with_a_place(suite: Suite, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The frame without drafters that no checkpoint was published of for a target, and a line about each.

    A drafter of which something was measured stays, and so does every one that only is not here yet.
    """
    said, keep = [], frame["measured"] | True
    for (target, drafter), mine in frame.groupby(["target", "drafter"], sort=False):
        record, of = suite.drafters[str(drafter)], suite.targets[str(target)]
        served = any(each.role == of.role for each in record.served)
        if record.absent and not served and not mine["measured"].any():
            keep &= ~((frame["target"] == target) & (frame["drafter"] == drafter))
            said.append(f"{record.label} is not among {of.label}'s methods: {record.absent}.")
    # All of it absent is drawn as holes: a page of nothing would say less.
    return (frame[keep].reset_index(drop=True), said) if keep.any() else (frame, [])


def _as_in_the_paper(experiment: Experiment, suite: Suite, frame: pd.DataFrame) -> bool:
    """Whether the paper's values are of what was asked: its benchmarks where they are means, its tree, its batches."""
    means = experiment.kind != "table"
    same = not means or set(frame["benchmark"]) == set(experiment.cells.benchmarks)
    trees = {str(suite.trees[experiment.cells.tree])} if experiment.cells.tree else set(frame["tree"])
    asked = {tree for tree in frame["tree"] if tree}
    batches = experiment.kind == "batches" or set(frame["batch"]) == set(experiment.cells.batches)
    return same and batches and (not asked or asked <= trees)
