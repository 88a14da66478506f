"""The artifact's evaluations, written into the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prism_ae.authors_import.cells import cell_of, origin_of, result_of
from prism_ae.authors_import.find import EvaluationRun
from prism_ae.store import Store
from prism_ae.store.lock import run_lock
from prism_ae.store.records import OK
from prism_ae.store.store import AttemptOutcome
from prism_ae.suites.records import Suite


def write_runs(runs: Sequence[EvaluationRun], suite: Suite, store: Store, provenance: Mapping[str, Any]) -> list[str]:
    """Write the cells that the store does not have yet.

    Args:
        provenance: of this process.

    Returns:
        The runs that were refused, as text: the store holds another run of their cell.

    Raises:
        StoreError: the folder cannot be written, or another run uses it.
    """
    store.prepare()
    refused = []
    with run_lock(store.root):
        there = {record.cell.point: record.cell for record in store.records().values() if record.ok}
        for run in runs:
            cell = cell_of(run, suite)
            if there.get(cell.point, cell) != cell:
                refused.append(f"{run.file}: {store.root} holds another run of this cell; choose another --runs-dir")
            elif cell.point not in there:
                result = result_of(run)
                [attempt] = store.begin([cell], {**provenance, "artifact": origin_of(run)})
                log = b"" if run.log is None else f"imported, with {run.log.file}\n".encode()
                outcome = AttemptOutcome(OK, result=result)
                store.commit(attempt, outcome, result.wall_seconds, "a device that was not recorded", log)
    return refused
