"""A figure's three files: the .pdf, the .csv of what was drawn, and the .json with caption, counts and verdicts. A
table has a .tex beside them.

The same data give the same bytes: no dates, no random names, fonts that come with matplotlib. Files are written
beside their place and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import Verdict, judge
from prism_ae.analysis.curves import Curve, fold
from prism_ae.analysis.entries import Entry
from prism_ae.analysis.paper_values import Reference
from prism_ae.analysis.results import Measured, build_frame
from prism_ae.analysis.text_agreement import Texts, compare
from prism_ae.cells import Point
from prism_ae.drawing import caption, page, positions, scaling_grid, scaling_mean, sheet, table
from prism_ae.drawing.canvas import own_settings
from prism_ae.drawing.drawable import check_drawable
from prism_ae.drawing.labels import check_labels, in_one_line
from prism_ae.drawing.latex import as_latex
from prism_ae.drawing.panels import Grid, PaperLine, paper_lines
from prism_ae.drawing.style import series_style
from prism_ae.drawing.tabular import Table
from prism_ae.drawing.timed import compose_timed
from prism_ae.drawing.timed_rows import COLUMNS as TIMED_COLUMNS
from prism_ae.errors import StoreError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.io.digests import digest
from prism_ae.io.paths import why_not
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_IDS = 1000
"""More cell ids than this do not go into a PDF's metadata; their digest does."""

QUANTITY = {"positions": "conditional acceptance rate", "scaling-grid": "AL macro", "scaling-mean": "AL macro"}


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A figure or table before it is written: pure values, and what tests look at.

    Attributes:
        curves, paper: of a figure of acceptance; entries, known: of an experiment that measures time.
        columns: of the rows.
    """

    frame: pd.DataFrame
    curves: tuple[Curve, ...]
    paper: tuple[PaperLine, ...]
    verdicts: tuple[Verdict, ...]
    texts: Texts
    page: page.Page | sheet.Sheet
    rows: list[dict[str, Any]]
    columns: tuple[str, ...] = table.COLUMNS
    entries: tuple[Entry, ...] = ()
    known: tuple[Reference, ...] = ()


def compose(
    experiment: Experiment,
    suite: Suite,
    options: Options,
    measured: Mapping[Point, Measured],
    with_paper: bool = False,
    notes: Sequence[str] = (),
) -> Drawing:
    """Everything that a figure or table shows. Raises as `expand`, `check_drawable`, `check_labels`, `build_frame`."""
    points = expand(experiment, suite, options)
    check_drawable(experiment, points)
    check_labels(experiment, suite, points)
    suite = in_one_line(suite)
    frame = build_frame(points, measured)
    texts = compare({point: measured[point] for point in points if point in measured})
    if experiment.timed:
        timed = compose_timed(experiment, suite, options, frame, texts, with_paper, notes)
        return Drawing(
            frame=timed.frame,
            curves=(),
            paper=(),
            verdicts=timed.verdicts,
            texts=texts,
            page=timed.sheet,
            rows=timed.rows,
            columns=TIMED_COLUMNS,
            entries=timed.entries,
            known=timed.known,
        )
    curves = fold(frame, experiment, suite)
    comparable = _as_in_the_paper(experiment, suite, options, frame)
    verdicts = judge(experiment, suite, curves, comparable)
    paper = paper_lines(experiment, suite, curves) if with_paper and comparable else ()
    styles = {name: series_style(experiment, suite, name) for name in dict.fromkeys(c.drafter for c in curves)}
    drawn = page.Page(
        title=caption.title(experiment, suite, frame),
        grid=_arrange(experiment, suite, curves, paper),
        styles=styles,
        panel=experiment.look.panel,
        x_label=experiment.look.x_label or suite.scale_axis,
        y_label=experiment.look.y_label,
        small_print=caption.small_print(
            experiment, suite, options, frame, styles, verdicts, bool(paper) if with_paper else None, notes, texts
        ),
        missing=caption.missing(curves),
    )
    return Drawing(
        frame, curves, paper, verdicts, texts, drawn, table.rows(curves, paper, styles, QUANTITY[experiment.kind])
    )


def _as_in_the_paper(experiment: Experiment, suite: Suite, options: Options, frame: pd.DataFrame) -> bool:
    """Whether the paper's values are of what was asked: a mean over other benchmarks, or with another draft tree, is
    something else, and the paper's beside it would mislead."""
    tree = options.trees[0] if options.trees else suite.trees[experiment.cells.tree]
    same = experiment.kind == "scaling-grid" or set(frame["benchmark"]) == set(experiment.cells.benchmarks)
    return same and tree == suite.trees[experiment.cells.tree]


def render(
    experiment: Experiment,
    suite: Suite,
    options: Options,
    measured: Mapping[Point, Measured],
    out_dir: Path,
    with_paper: bool = False,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``<out_dir>/<suite>/<experiment>`` as .pdf, .csv, .json and, if it is a table, .tex; returns the paths.

    Args:
        measured: results by point; points of other experiments are ignored, missing ones are holes.
        with_paper: draw the paper's values as a pale, labelled layer.
        notes: further paragraphs for the caption.

    Raises:
        UsageError, ConfigError: as `expand`, `check_drawable` and `check_labels`.
        StoreError: contradictory samples, or a folder that cannot be written.
    """
    drawing = compose(experiment, suite, options, measured, with_paper, notes)
    folder = out_dir / suite.name
    files = {
        folder / f"{experiment.name}.csv": table.as_csv(drawing.rows, drawing.columns).encode(),
        folder / f"{experiment.name}.json": _json(experiment, suite, options, drawing).encode(),
        folder / f"{experiment.name}.pdf": _pdf(experiment, drawing),
    }
    if isinstance(drawing.page, sheet.Sheet) and isinstance(drawing.page.content, Table):
        said = [text.text for text in drawing.page.small_print]
        latex = as_latex(drawing.page.content, drawing.page.title.text, said)
        files[folder / f"{experiment.name}.tex"] = latex.encode()
    _write(files)
    return sorted(files, key=lambda path: (path.suffix != ".pdf", path.name))


def _arrange(experiment: Experiment, suite: Suite, curves: tuple[Curve, ...], paper: tuple[PaperLine, ...]) -> Grid:
    if experiment.kind == "positions":
        return positions.arrange(curves, paper, suite)
    if experiment.kind == "scaling-grid":
        return scaling_grid.arrange(curves, paper, suite)
    return scaling_mean.arrange(experiment, curves, paper, suite)


def draw(drawn: page.Page | sheet.Sheet) -> Figure:
    """The page as a matplotlib figure, under the caller's rcParams."""
    return sheet.draw(drawn) if isinstance(drawn, sheet.Sheet) else page.draw(drawn)


def _pdf(experiment: Experiment, drawing: Drawing) -> bytes:
    ids = [cell_id for cell_id in drawing.frame["cell_id"] if cell_id]
    listed = " ".join(ids) if len(ids) <= MOST_IDS else f"{len(ids)} cells, sha256 {digest(sorted(ids))}"
    metadata = {
        "Title": drawing.page.title.text,
        "Subject": f"every value and cell id: {experiment.name}.csv",
        "Keywords": f"cells: {listed}",
        "Creator": "prism-ae",
        "CreationDate": None,
    }
    with own_settings():
        figure = draw(drawing.page)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()


def _json(experiment: Experiment, suite: Suite, options: Options, drawing: Drawing) -> str:
    frame = drawing.frame
    holes = frame[~frame["measured"]]
    keys = ["target", "drafter", "scale", "benchmark", "temperature"]
    keys += ["tree", "batch", "drafting"] if experiment.timed else []
    data: dict[str, Any] = {
        "experiment": experiment.name,
        "suite": suite.name,
        "options": options.described(),
        "title": drawing.page.title.text,
        "cells": {"asked": len(frame), "measured": int(frame["measured"].sum())},
        "missing": [dict(zip(keys, row, strict=True)) for row in holes[keys].itertuples(index=False, name=None)],
        "texts": dataclasses.asdict(drawing.texts),
        "claims": [
            dataclasses.asdict(verdict) | {"verdict": verdict.word, "sentence": verdict.sentence()}
            for verdict in drawing.verdicts
        ],
        "caption": [text.text for text in drawing.page.small_print],
        "values": f"{experiment.name}.csv",
    }
    if experiment.timed:
        data["rows"] = drawing.rows
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then rename all: an error leaves the old ones as they were."""
    pending: list[tuple[Path, Path]] = []
    path = next(iter(files))
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            pending.append((temporary, path))
            temporary.write_bytes(data)
        for temporary, path in pending:
            temporary.replace(path)
    except OSError as error:
        hint = "choose another place with --out, or free some space; measurements are kept"
        raise StoreError(f"cannot write {path}: {why_not(error, path)}", hint) from error
    finally:
        for temporary, _ in pending:
            with contextlib.suppress(OSError):
                temporary.unlink()
