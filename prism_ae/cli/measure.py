"""Measuring what a request asks for, and handing over what was measured: shared by ``run`` and ``render``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.experiments.request import Request, runs_folder
from prism_ae.io.words import pluralise
from prism_ae.planning.plan import Plan, Resolved, make_plan
from prism_ae.store import Record, Store
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    from prism_ae.analysis.results import Measured
    from prism_ae.cells import Point
    from prism_ae.devices.slots import Slot
    from prism_ae.engines.protocol import Assignment
    from prism_ae.execution.run import Outcome


def open_store(runs_dir: Path, suite: Suite) -> Store:
    """The suite's runs folder; raises StoreError. Damage is reported on standard error."""
    store = Store(runs_folder(runs_dir, suite), suite.name, suite.version)
    if damaged := store.quarantined:
        lines = ", ".join(str(damage.line) for damage in damaged[:10])
        more = "" if len(damaged) <= 10 else ", …"
        print(
            f"warning: {pluralise(len(damaged), 'damaged line')} in {store.root / 'log.jsonl'} set aside "
            f"(lines {lines}{more}); what they held is measured again",
            file=sys.stderr,
        )
    return store


def measure(
    request: Request, resolved: Resolved, store: Store, models_dir: Path, where: Sequence[Slot]
) -> tuple[Plan, Outcome]:
    """Measure what is not in the store yet, with the run lock held.

    Raises:
        UsageError: a variable of the environment would end an engine while it starts.
        StoreError: the folder cannot be written, or another run uses it.
        DeviceError: no worker can be started.
    """
    from prism_ae.engines.registry import check_environment
    from prism_ae.execution.run import CellRun, ToMeasure, cells_state
    from prism_ae.execution.worker import RunSetup, WorkerSetup
    from prism_ae.processes.child import Child
    from prism_ae.processes.interrupts import Signals
    from prism_ae.processes.progress import display_on
    from prism_ae.store.lock import run_lock
    from prism_ae.store.provenance import provenance

    for engine in sorted({point.engine for point in resolved.cells}):
        check_environment(engine, os.environ)
    store.prepare()
    with run_lock(store.root) as lock, Signals() as signals:
        plan = make_plan(resolved, store.records())  # again: another run may have just ended
        origin = provenance(sys.argv, Path(__file__).parents[1])
        setup = RunSetup(request.suite, store.root, models_dir.resolve(), origin)

        def launch(worker: WorkerSetup) -> Child:
            what = f"a worker for {worker.slot.label}"
            return Child("prism_ae.execution.worker", what, worker, worker.slot.environment, [lock])

        def further(target: str) -> Sequence[Assignment]:
            return to_measure_again(request, resolved, store, [target])

        with display_on(sys.stderr, cells_state(0, plan.to_measure, 0, 0.0), plan.to_measure) as display:
            # Nothing may be left but what an interrupted run would have measured again.
            first = plan.assignments or to_measure_again(request, resolved, store, request.suite.targets)
            outcome = CellRun(setup, ToMeasure(first, further), where, launch, signals, display=display).execute()
    return plan, outcome


def to_measure_again(
    request: Request, resolved: Resolved, store: Store, targets: Collection[str]
) -> Sequence[Assignment]:
    """The next repeats of those cells of ``targets`` whose times are unstable; none where the user said how many there
    are. Raises StoreError."""
    from prism_ae.planning.further import unstable_again

    if request.options.repeats is not None:
        return ()
    timed = {
        point: cell for point, cell in resolved.cells.items() if point.batch is not None and point.target in targets
    }
    asked = dataclasses.replace(resolved, cells=timed, missing=())
    again = unstable_again(asked, measured(make_plan(asked, store.records()), store), request.suite.most_repeats)
    return make_plan(again, store.records()).assignments


def recall(request: Request, runs_dir: Path, models_dir: Path) -> tuple[Plan, Store]:
    """The plan of a request that measures nothing, and the store that it is made from; raises as `open_store`."""
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import resolve

    store = open_store(runs_dir, request.suite)
    lookup = LocalLookup(request.suite, models_dir)
    return make_plan(resolve(request.all_points, lookup, request.suite.drafters), store.records()), store


def measured(plan: Plan, store: Store) -> dict[Point, Measured]:
    """The results of a plan's finished points; raises StoreError."""
    return {point: _measured(record, store) for point, record in plan.done.items()}


def _measured(record: Record, store: Store) -> Measured:
    from prism_ae.analysis.results import Measured

    assert record.wall_seconds is not None
    return Measured(
        cell_id=record.cell.id,
        samples=store.samples(record),
        wall_seconds=record.wall_seconds,
        settings=record.settings,
        finished=record.finished,
        device=record.device,
        fingerprints=record.cell.fingerprints,
    )
