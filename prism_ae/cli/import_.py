"""``prism-ae import``: results of the original artifact, into the store."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.authors_import.find import FolderContents

Folder = Annotated[Path, typer.Argument(help="The original artifact's folder, or its outputs/.", metavar="DIR")]


def import_(folder: Folder, suite: o.SuiteName = "paper", runs_dir: o.RunsDir = o.RUNS) -> None:
    """Import the original artifact's measurements, and check them.

    Answer files become cells of the engine 'artifact'; logs and CSV files are checked and listed. A file that repeats
    a question, mixes runs, is cut off, or may hold a drawing script's stored number is refused, with file and line.

    \b
    Examples:
      prism-ae import prism-mlsys-ae/evaluation/prep_figure1456/outputs --runs-dir imported
      prism-ae render figure4 --engine artifact --runs-dir imported
    """
    from prism_ae.authors_import.fallbacks import fallbacks_of
    from prism_ae.authors_import.find import find
    from prism_ae.authors_import.write import write_runs
    from prism_ae.cli.measure import open_store
    from prism_ae.cli.output import say
    from prism_ae.errors import IncompleteError, UsageError
    from prism_ae.experiments.load import load_experiment
    from prism_ae.io.words import pluralise
    from prism_ae.store.provenance import provenance
    from prism_ae.suites.load import load_suite

    loaded = load_suite(suite)
    found = find(folder, loaded, fallbacks_of(load_experiment("figure4"), loaded))
    if not (found.runs or found.lengths or found.rows or found.refused):
        raise UsageError(f"{folder} holds no results of the original artifact", "name its outputs/ folder")
    refused = [str(one) for one in found.refused]
    store = open_store(runs_dir, loaded)
    if found.runs:
        refused += write_runs(found.runs, loaded, store, provenance(sys.argv, Path(__file__).parents[1]))
    say(_report(found))
    if refused:
        what = f"{pluralise(len(refused), 'thing')} in {folder} refused; what is not named here was taken"
        raise IncompleteError(what, "\n  ".join(refused))


def _report(found: FolderContents) -> list[str]:
    from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO
    from prism_ae.analysis.results import columns_of
    from prism_ae.engines.registry import ARTIFACT
    from prism_ae.io.words import pluralise, table

    lines = []
    if found.runs:
        head = ("target", "drafter", "scale", "benchmark", "T", "tree", "questions", "AL macro", "AL micro", "log")
        rows: list[Iterable[str]] = [head]
        for run in found.runs:
            job, columns = run.job, columns_of(run.answers.samples)
            agrees = "none" if run.log is None or run.log.length is None else "agrees"
            lengths = f"{columns.value(AL_MACRO):.5f}", f"{columns.value(AL_MICRO):.5f}"
            asked = job.target, job.drafter, job.scale, job.benchmark, f"{job.temperature:g}", str(run.tree)
            rows.append((*asked, str(len(columns.question_ids)), *lengths, agrees))
        lines += [f"{pluralise(len(found.runs), 'cell')} of engine {ARTIFACT.name}:", *table(rows, "  ")]
    if found.lengths:
        logs = [(str(job), log.length.text, log.file) for job, log in found.lengths if log.length]
        lines += ["Acceptance lengths without raw data, which become no cells:", *table(logs, "  ")]
    if found.rows:
        rows = [("file", "line", "what", "where", "TPS", "AL micro")]
        rows += [
            (row.file, str(row.line), " ".join(row.what), _where(row.where, row.datasets), f"{row.tps:g}", _al(row.al))
            for row in found.rows
        ]
        lines += ["Serving runs, without raw data (MT-bench at T = 1 was decoded greedily there):", *table(rows, "  ")]
    return lines


def _where(where: tuple[str, ...], datasets: int) -> str:
    return " T=".join(where) or f"mean of {datasets}"


def _al(al: float | None) -> str:
    return "-" if al is None else f"{al:g}"
