"""From an experiment and its results to everything that is drawn: pure values, and what tests look at."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import Judged
from prism_ae.analysis.estimates import unique
from prism_ae.analysis.results import Measured, Results, results_of
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import Point
from prism_ae.drawing.latex import as_latex
from prism_ae.drawing.material import Material
from prism_ae.drawing.page import Page
from prism_ae.drawing.rows import drawn_rows
from prism_ae.drawing.style import ADDED, SeriesStyle, series_style
from prism_ae.drawing.table import Table
from prism_ae.experiments.caption import Subject, small_print, title
from prism_ae.experiments.expand import expand
from prism_ae.experiments.kinds.base import Kind, as_in_the_paper, paper_values
from prism_ae.experiments.labels import check_labels, in_one_line
from prism_ae.experiments.options import Options
from prism_ae.experiments.verdicts import Evidence, claims_of, judge_own
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A figure or table before it is written; ``rows`` are its .csv."""

    experiment: Kind
    suite: Suite
    options: Options
    results: Results
    material: Material
    verdicts: tuple[Judged, ...]
    texts: Texts
    page: Page
    rows: pd.DataFrame

    def as_json(self) -> str:
        """Caption, counts and verdicts; the values are in the .csv."""
        keys = ["target", "drafter", "scale", "benchmark", "temperature"]
        keys += ["tree", "batch", "drafting", "repeat"] if self.experiment.timed else []
        missing = self.results.missing
        data: dict[str, Any] = {
            "experiment": self.experiment.name,
            "suite": self.suite.name,
            "options": self.options.described(),
            "title": self.page.title.text,
            "cells": {"asked": self.results.asked, "measured": self.results.measured},
            "missing": [{key: _plain(getattr(point, key)) for key in keys} for point in missing],
            "texts": dataclasses.asdict(self.texts),
            "claims": [
                {"id": one.claim.id, "text": one.claim.text, "verdict": one.verdict, "sentence": one.sentence()}
                for one in self.verdicts
            ],
            "caption": [text.text for text in self.page.small_print],
            "values": f"{self.experiment.name}.csv",
        }
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    def as_latex(self) -> str | None:
        """A table's LaTeX; None for a figure."""
        if not isinstance(self.page.content, Table):
            return None
        return as_latex(self.page.content, self.page.title.text, [text.text for text in self.page.small_print])


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def compose(
    experiment: Kind,
    suite: Suite,
    options: Options,
    measured: Mapping[Point, Measured],
    *,
    with_paper: bool = False,
    notes: Sequence[str] = (),
) -> Drawing:
    """Everything that a figure or table shows.

    Args:
        measured: results by point; points of other experiments are ignored, missing ones are drawn as missing.
        with_paper: draw the paper's values as a pale, labelled layer.
        notes: further paragraphs for the caption.

    Raises:
        UsageError, ConfigError, StoreError: as `expand`, `Kind.check_drawable`, `check_labels` and `results_of`.
    """
    points = expand(experiment, suite, options)
    experiment.check_drawable(points)
    check_labels(experiment, suite, points)
    suite = in_one_line(suite)
    results = results_of(points, measured, authors=options.count == "authors")
    texts = compare({point: measured[point] for point in points if point in measured})
    evidence = Evidence(experiment, suite, results, options)  # of all that was asked, as the ledger has it
    unpublished: list[str] = []
    if not experiment.keeps_unpublished:
        results, unpublished = _published(suite, results)
    summaries, asked = experiment.summarise(results), unique(point.drafter for point in points)
    known = paper_values(experiment, suite, summaries, asked) if as_in_the_paper(experiment, suite, results) else ()
    drawn = known if with_paper else ()
    names = unique([*(summary.place.drafter for summary in summaries), *(each.drafter for each in drawn)])
    styles = {name: _style(experiment, suite, name) for name in names}
    material = Material(summaries, drawn, experiment.acceptance_length(options), styles, suite)
    verdicts = tuple(judge_own(claims_of(experiment), evidence))
    subject = Subject(
        experiment, suite, options, results, styles, verdicts, texts, unpublished,
        bool(drawn) if with_paper else None, notes,
    )  # fmt: skip
    page = Page(title(experiment, suite, results), experiment.painter(material), small_print(subject), styles)
    rows = drawn_rows(material, experiment.quantities, experiment.axis)
    return Drawing(experiment, suite, options, results, material, verdicts, texts, page, rows)


def _style(experiment: Kind, suite: Suite, drafter: str) -> SeriesStyle:
    """How a drafter looks; one that the paper's own drawing has not is marked."""
    style = series_style(experiment.series, suite, drafter)
    return dataclasses.replace(style, label=f"{style.label}{ADDED}") if drafter in experiment.added else style


def _published(suite: Suite, results: Results) -> tuple[Results, list[str]]:
    """The results without drafters that no checkpoint was published of for a target, and a line about each.

    A drafter of which something was measured stays, and so does every one that only is not here yet.
    """
    said, left_out = [], set()
    measured = {(cell.point.target, cell.point.drafter) for cell in results.done}
    for pair in unique((point.target, point.drafter) for point in results.points):
        target, drafter = suite.targets[pair[0]], suite.drafters[pair[1]]
        served = any(each.role in target.roles for each in drafter.served)
        if drafter.absent and not served and pair not in measured:
            left_out.add(pair)
            said.append(f"{drafter.label} is not among {target.label}'s methods: {drafter.absent}.")
    kept = [point for point in results.points if (point.target, point.drafter) not in left_out]
    # All of it absent is drawn as missing: a page of nothing would say less.
    return (results.of(kept), said) if kept else (results, [])
