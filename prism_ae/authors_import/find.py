"""What lies in a folder of the artifact's: runs with raw data, summaries, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prism_ae.authors_import.answers import Answers, parse_answers
from prism_ae.authors_import.fallbacks import Fallbacks
from prism_ae.authors_import.jobs import ANSWERS_NAME, LOG_NAME, Evaluation, job_of
from prism_ae.authors_import.logs import EvaluationLog, check_log, drawn_with_fallbacks, parse_log
from prism_ae.authors_import.refused import RefusedError
from prism_ae.authors_import.serving_csv import Row, check_means, parse_table
from prism_ae.cells import TreeShape
from prism_ae.errors import StoreError, UsageError
from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class EvaluationRun:
    """An evaluation with raw data. ``file`` is its answers, as shown; ``tree`` that of its log, else the scripts'."""

    job: Evaluation
    file: str
    answers: Answers
    tree: TreeShape
    log: EvaluationLog | None


@dataclasses.dataclass(frozen=True)
class FolderContents:
    """What a folder holds.

    Attributes:
        runs: one per cell.
        lengths: evaluations of which only the log is left, with the acceptance length that it says.
        rows: of serving runs.
        refused: everything that is not taken.
    """

    runs: tuple[EvaluationRun, ...]
    lengths: tuple[tuple[Evaluation, EvaluationLog], ...]
    rows: tuple[Row, ...]
    refused: tuple[RefusedError, ...]


def find(folder: Path, suite: Suite, fallbacks: Fallbacks) -> FolderContents:
    """Read a folder: ``outputs``, what contains it, or anything below it. Links are not followed.

    Raises:
        UsageError: it is no folder.
        StoreError: a file cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "name the artifact's folder, or its outputs/")
    # Resolved, because the names of the folders say what was measured; `latest` given by name is its tag.
    root = folder.resolve()
    paths = tuple(_files(root))
    found = _Reader(root, paths, suite, fallbacks)
    for path in paths:
        found.take(path)
    return found.result()


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise StoreError(f"cannot read {error.filename}: {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        yield from (path for name in sorted(names) if not (path := Path(place, name)).is_symlink() and path.is_file())


class _Reader:
    def __init__(self, folder: Path, paths: Iterable[Path], suite: Suite, fallbacks: Fallbacks) -> None:
        self._folder = folder
        logs = (path for path in paths if path.parent.name == "logs" and LOG_NAME.fullmatch(path.name))
        self._log_paths = dict.fromkeys(logs)
        self._suite = suite
        self._fallbacks = fallbacks
        self._runs: dict[Evaluation, list[EvaluationRun]] = defaultdict(list)
        self._logs: dict[Evaluation, list[EvaluationLog]] = defaultdict(list)
        self._answered: set[Evaluation] = set()
        self._tables: dict[Path, list[Row]] = {}
        self._refused: list[RefusedError] = []

    def take(self, path: Path) -> None:
        """Read a file if it is one of the artifact's results."""
        try:
            if match := ANSWERS_NAME.fullmatch(path.name):
                self._take_answers(path, match["name"], match["temperature"])
            elif path in self._log_paths:
                job, log = self._read_log(path)
                self._logs[job].append(log)
            elif path.suffix in (".log", ".txt") and (drawn := drawn_with_fallbacks(_text(path))):
                why = f"a drawing script used its own stored numbers for {drawn[1]} points: they are no measurements"
                raise RefusedError(self._shown(path), drawn[0], why)
            elif path.suffix == ".csv" and (path.name.startswith("e2e_") or path.name == "benchmark_results.csv"):
                self._tables[path], refused = parse_table(_text(path), self._shown(path))
                self._refused += refused
            elif path.suffix == ".jsonl" and _unlabelled(path):
                why = "lines of several runs, and none says of which method, batch or machine it is"
                raise RefusedError(self._shown(path), 1, why)
        except RefusedError as refused:
            self._refused.append(refused)

    def result(self) -> FolderContents:
        runs = [run for job in sorted(self._runs) for run in self._one_run(self._runs[job])]
        lengths = [one for job in sorted(self._logs.keys() - self._answered) for one in self._one_length(job)]
        for path in self._tables:
            if path.stem.endswith("_avg"):
                details = path.with_name(f"{path.stem.removesuffix('_avg')}_detail.csv")
                if details in self._tables:
                    self._refused += check_means(self._tables[path], self._tables[details])
        # A log is read beside its answers and by itself.
        refused = {str(one): one for one in self._refused}.values()
        bad = {(one.file, one.line) for one in refused}
        rows = [row for rows in self._tables.values() for row in rows if (row.file, row.line) not in bad]
        return FolderContents(tuple(runs), tuple(lengths), tuple(rows), tuple(refused))

    def _take_answers(self, path: Path, name: str, temperature: str) -> None:
        file, tag, benchmark = self._shown(path), path.parent.parent, path.parent.name
        job = self._job(path, tag, name, benchmark, temperature)
        self._answered.add(job)
        beginning = f"{name}__{benchmark}__temp-{temperature}__gpu-"
        logs = [log for log in self._log_paths if log.parent.parent == tag and log.name.startswith(beginning)]
        if len(logs) > 1:
            names = " and ".join(log.name for log in logs)
            raise RefusedError(file, None, f"two runs wrote this file, by their logs {names}: which answers are whose?")
        log = self._read_log(logs[0])[1] if logs else None
        if log and log.broke:
            raise RefusedError(log.file, log.broke, f"the evaluation failed here, so {path.name} is not complete")
        tree = log.tree if log and log.tree else self._suite.trees["main"]
        turns = self._suite.benchmarks[benchmark].turns
        of = f"{name}-temperature-{temperature}"
        answers = parse_answers(_bytes(path), file, of, benchmark, turns=turns, steps=tree.steps)
        asked, got = self._suite.limits.questions, len(answers.samples)
        if got < asked and log and not log.ended:
            raise RefusedError(
                file, got, f"holds {got} of {asked} questions, and its log has no end: it broke off here"
            )
        if log:
            check_log(log, answers.samples)
        self._runs[job].append(EvaluationRun(job, file, answers, tree, log))

    def _read_log(self, path: Path) -> tuple[Evaluation, EvaluationLog]:
        match = LOG_NAME.fullmatch(path.name)
        if match is None:
            raise RefusedError(self._shown(path), None, "is not named as the artifact's logs are")
        job = self._job(path, path.parent.parent, match["name"], match["benchmark"], match["temperature"])
        names = match["name"], match["benchmark"], match["temperature"], match["gpu"]
        return job, parse_log(_text(path), self._shown(path), names)

    def _job(self, path: Path, tag: Path, name: str, benchmark: str, temperature: str) -> Evaluation:
        """The evaluation that a file of a tag's folder belongs to."""
        model = tag.parent
        try:
            return job_of(self._suite, model, name, benchmark, temperature)
        except ValueError as error:
            raise RefusedError(self._shown(path), None, str(error)) from None

    def _one_run(self, runs: list[EvaluationRun]) -> Iterable[EvaluationRun]:
        """The run of a cell; copies of one file are one run, and two runs are none."""
        if len({run.answers.sha256 for run in runs}) == 1:
            return runs[:1]
        for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
            why = f"is another run of the same cell as {other.file}; import the folder of one of the two"
            self._refused.append(RefusedError(run.file, None, why))
        return ()

    def _one_length(self, job: Evaluation) -> Iterable[tuple[Evaluation, EvaluationLog]]:
        """The acceptance length of which only a log is left."""
        logs = [log for log in self._logs[job] if log.length]
        if len({log.length.text for log in logs if log.length}) > 1:
            names = " and ".join(log.file for log in logs)
            self._refused.append(RefusedError(logs[0].file, None, f"two runs of one cell, and no answers: {names}"))
            return
        for log in logs[:1]:
            stored = self._fallbacks.get((job.target, job.scale, job.benchmark, job.temperature), frozenset())
            if log.length and float(log.length.text) in stored:
                why = (
                    f"{log.length.text} is the number that the drawing script uses where there is no log, and without "
                    "its answers it cannot be told from that"
                )
                self._refused.append(RefusedError(log.file, log.length.line, why))
            else:
                yield job, log

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _unlabelled(path: Path) -> bool:
    """Whether a file holds results of the serving client: numbers without the method they are of."""
    try:
        with path.open("rb") as file:
            # One of the authors' own files begins with an empty line.
            lines = (file.readline(100_000) for _ in range(100))
            first = json.loads(next((line for line in lines if line.strip()), b""))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"throughput", "accept_length"} <= first.keys()


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
