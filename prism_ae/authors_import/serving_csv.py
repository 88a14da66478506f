"""The CSV files of the artifact's serving runs: summaries, one line per dataset or per mean over datasets."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping

from prism_ae.authors_import.refused import RefusedError

_WHAT = (
    "algorithm",
    "draft_model_path",
    "max_running_requests",
    "speculative_num_steps",
    "speculative_eagle_topk",
    "speculative_num_draft_tokens",
)
_WHERE = ("dataset", "temperature")


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of a serving run.

    Attributes:
        file, line: where it stands.
        what: algorithm, its checkpoint where the file says it, batch and draft tree.
        where: dataset and temperature; empty for a mean over datasets.
        tps: tokens per second.
        al: tokens per round; None where the file does not say it, and without drafts.
        datasets: those that a mean is over; 1 for a single one.
    """

    file: str
    line: int
    what: tuple[str, ...]
    where: tuple[str, ...]
    tps: float
    al: float | None
    datasets: int


def parse_table(text: str, file: str) -> tuple[list[Row], list[RefusedError]]:
    """Read a CSV; a line that cannot be taken is refused, and the others stay.

    A run that is there twice (the script that adds a method does so when it is started again) is refused in both lines.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        columns = set(reader.fieldnames or ())
    except csv.Error as error:
        return [], [RefusedError(file, 1, f"is no CSV: {error}")]
    if not {"algorithm", "status"} <= columns or not columns & {"throughput", "avg_throughput"}:
        return [], [RefusedError(file, 1, "is no table of a serving run: algorithm, status or throughput is missing")]
    rows: list[Row] = []
    refused: list[RefusedError] = []
    try:
        for data in reader:
            try:
                rows.append(_row(data, file, reader.line_num))
            except ValueError as error:
                refused.append(RefusedError(file, reader.line_num, str(error)))
    except csv.Error as error:
        return [], [RefusedError(file, reader.line_num, f"is no CSV: {error}")]
    lines: dict[tuple[tuple[str, ...], ...], list[int]] = {}
    for row in rows:
        lines.setdefault((row.what, row.where), []).append(row.line)
    for row in rows:
        if others := [line for line in lines[row.what, row.where] if line != row.line]:
            refused.append(
                RefusedError(file, row.line, f"is there a second time in line {others[0]}: which run counts?")
            )
    return [row for row in rows if len(lines[row.what, row.where]) == 1], refused


def _row(data: Mapping[str, str | None], file: str, line: int) -> Row:
    status, error = data.get("status") or "", (data.get("error") or "").strip()
    if status.strip().lower() != "ok":
        raise ValueError(f"the run is recorded as '{status}'{f': {error[:80]}' if error else ''}")
    mean = "avg_throughput" in data
    datasets = 1
    if mean:
        datasets = int(_number(data, "num_datasets"))
        if (succeeded := int(_number(data, "num_success"))) != datasets:
            raise ValueError(f"is a mean over {succeeded} of {datasets} datasets")
    what = tuple(value for key in _WHAT if (value := (data.get(key) or "").strip()))
    where = () if mean else tuple(value for key in _WHERE if (value := (data.get(key) or "").strip()))
    tps = _number(data, "avg_throughput" if mean else "throughput")
    drafts = (data.get("algorithm") or "").strip().upper() != "NONE" and bool(data.get("draft_model_path", "unsaid"))
    al = _number(data, "accept_length") if drafts and not mean else None
    return Row(file, line, what, where, tps, al, datasets)


def _number(data: Mapping[str, str | None], column: str) -> float:
    text = (data.get(column) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"column {column} holds no number: {text!r}")
    return value


def check_means(means: Iterable[Row], details: Iterable[Row]) -> list[RefusedError]:
    """The means that are not the means of the rows they are over: another run's rows, or not all of them."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for row in details:
        groups.setdefault(row.what, []).append(row.tps)
    refused = []
    for mean in means:
        values = groups.get(mean.what, [])
        own = sum(values) / len(values) if values else math.nan
        if len(values) != mean.datasets or not math.isclose(own, mean.tps, rel_tol=1e-9):
            said = f"says {mean.tps:g} tokens per second over {mean.datasets} datasets"
            why = f"{said}, and its rows give {own:g} over {len(values)}: they are not of one run"
            refused.append(RefusedError(mean.file, mean.line, why))
    return refused
