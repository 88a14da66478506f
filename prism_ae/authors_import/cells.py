"""One of the artifact's evaluations as a cell of the store, with what it does not say said."""

from __future__ import annotations

from typing import Any

from prism_ae.authors_import.find import EvaluationRun
from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, Result
from prism_ae.engines.registry import ARTIFACT
from prism_ae.suites.records import Suite

NOT_RECORDED = ("prompt_tokens", "stops", "prefill_seconds")
"""Of a sample: these stand at 0 and (), and nothing is computed from them."""

_UNKNOWN = "not recorded"


def cell_of(run: EvaluationRun, suite: Suite) -> Cell:
    """The cell: the suite's limits are those that the artifact's evaluation has in effect.

    The artifact records no digest of checkpoints or prompts. The digest of the answers takes their place, so two runs
    are never taken for one.
    """
    job, limits = run.job, suite.limits
    turns = suite.benchmarks[job.benchmark].turns
    point = Point(
        suite=suite.name,
        target=job.target,
        drafter=job.drafter,
        scale=job.scale,
        benchmark=job.benchmark,
        temperature=job.temperature,
        tree=run.tree,
        engine=ARTIFACT.name,
        batch=None,
        questions=len(run.answers.samples),
        max_new_tokens=limits.new_tokens(turns),
        max_length=limits.max_length,
        seed=limits.seed,
        dtype=limits.dtype,
    )
    version = f"{ARTIFACT.version}/{run.answers.sha256}"
    return Cell(point, Fingerprints(_UNKNOWN, _UNKNOWN, _UNKNOWN, version, ARTIFACT.verifier))


def result_of(run: EvaluationRun) -> Result:
    """Its raw counts, and in the settings where they come from."""
    seconds = sum(sample.decode_seconds for sample in run.answers.samples)
    return Result(run.answers.samples, seconds, EngineSettings(others=origin_of(run)))


def origin_of(run: EvaluationRun) -> dict[str, Any]:
    """Where a run comes from, for the record and the provenance."""
    return {
        "imported_from": run.file,
        "answers_sha256": run.answers.sha256,
        "log": None if run.log is None else run.log.file,
        "tree_from": "the log" if run.log is not None and run.log.tree is not None else "eval_all.sh",
        "answers_written": list(run.answers.written),
        "generated_tokens": "committed by rounds, behind the end of an answer too",
        "not_recorded": list(NOT_RECORDED),
    }
