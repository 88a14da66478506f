"""The content of ``plan``: assignments, loads, time, disk, and missing cells. Takes no device and writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prism_ae.devices.slots import Slot
from prism_ae.experiments.request import Request
from prism_ae.io.digests import plain
from prism_ae.planning.inventory import Inventory, bytes_to_write, take_inventory
from prism_ae.planning.load_count import Loads, count_loads
from prism_ae.planning.lookup import AssumeAvailable
from prism_ae.planning.plan import Lookup, Plan, make_plan, resolve
from prism_ae.store import Record


@dataclasses.dataclass(frozen=True)
class Work:
    """A plan, and the load that it puts on workers and disk.

    Attributes:
        used: workers that have something to do.
        written: bytes that it adds to the runs folder, for ``written_cells`` of its cells; the others are unknown.
    """

    plan: Plan
    used: int
    loads: Loads
    written: int
    written_cells: int


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a run would do now, and what it would do if everything with a remedy were here.

    Attributes:
        complete: the latter, without the cells that are measured; None where nothing is missing that has a remedy.
        slots: of the workers.
        authors_times: what the authors say about the time -> the experiments of this request that it is about.
        download: the command that fetches the suite's models; None where it is not downloaded.
        size_note: what the publishers say about the models' size, or ""; None where the suite is not downloaded.
    """

    now: Work
    complete: Work | None
    slots: tuple[Slot, ...]
    inventory: Inventory
    authors_times: Mapping[str, tuple[str, ...]]
    download: str | None
    size_note: str | None

    @property
    def on_cpu(self) -> bool:
        return self.slots[0].device == "cpu"


def make_forecast(
    request: Request,
    lookup: Lookup,
    records: Mapping[str, Record],
    slots: tuple[Slot, ...],
    *,
    models_dir: Path,
    root: Path,
) -> Forecast:
    """Look at models, records and disk; changes nothing.

    Args:
        records: of the store, by cell id.
        root: the suite's runs folder.
    """
    suite = request.suite
    plan = make_plan(resolve(request.all_points, lookup, suite.drafters), records)

    def work(plan: Plan) -> Work:
        used = min(len(slots), len(plan.assignments))
        loads = count_loads(plan.assignments, max(1, used), on_cpu=slots[0].device == "cpu")
        cells = [cell for assignment in plan.assignments for cell in assignment.cells]
        return Work(plan, used, loads, *bytes_to_write(cells, records, root))

    complete = None
    if any(one.hint for one in plan.missing):
        left = [point for point in request.all_points if point not in plan.done]
        complete = make_plan(resolve(left, AssumeAvailable(lookup), suite.drafters), records)
    times: dict[str, tuple[str, ...]] = {}
    for experiment in request.experiments:
        choice = experiment.suites.get(suite.name)
        if choice is not None and choice.authors_time:
            times[choice.authors_time] = (*times.get(choice.authors_time, ()), experiment.name)
    return Forecast(
        now=work(plan),
        complete=work(complete) if complete and complete.to_measure > plan.to_measure else None,
        slots=slots,
        inventory=take_inventory(request.all_points, lookup, suite, models_dir),
        authors_times=times,
        download=suite.download_command if suite.hub else None,
        size_note=suite.hub.size_note if suite.hub else None,
    )


def as_json(forecast: Forecast) -> dict[str, Any]:
    """A forecast as data."""
    plan, inventory = forecast.now.plan, forecast.inventory
    return {
        "cells": plan.total,
        "measured": [record.cell.id for record in plan.done.values()],
        "failed_before": dict(plan.failed),
        "assignments": [
            {
                "target": str(assignment.target_path),
                "drafter": None if assignment.drafter_path is None else str(assignment.drafter_path),
                "cells": [{"id": cell.id} | plain(cell.point) for cell in assignment.cells],
            }
            for assignment in plan.assignments
        ],
        "holes": [{"reason": one.reason, "hint": one.hint} | plain(one.point) for one in plan.missing],
        "targets": list(plan.targets),
        "workers": [
            {"label": slot.label, "name": slot.name, "threads": slot.threads, "here": slot.here, "why": slot.why}
            for slot in forecast.slots
        ],
        **_work(forecast.now),
        "if_complete": None
        if forecast.complete is None
        else {
            "cells_to_measure": forecast.complete.plan.to_measure,
            "assignments": len(forecast.complete.plan.assignments),
            **_work(forecast.complete),
        },
        "authors_times": [{"says": text, "experiments": names} for text, names in forecast.authors_times.items()],
        "models": {
            "targets": inventory.targets,
            "drafters": inventory.drafters,
            "here": [str(folder) for folder in inventory.here],
            "missing": list(inventory.absent),
            "missing_questions": list(inventory.questions),
            "bytes": inventory.size,
            "free_bytes": inventory.free,
            "authors_say": forecast.size_note or None,
        },
    }


def _work(work: Work) -> dict[str, Any]:
    estimate = work.plan.estimate
    return {
        "loads": dataclasses.asdict(work.loads),
        "expected_worker_seconds": estimate.seconds if estimate.known else None,
        "cells_of_unknown_time": estimate.unknown,
        "expected_from_devices": list(estimate.devices),
        "expected_bytes_written": work.written if work.written_cells else None,
        "cells_of_unknown_size": work.plan.to_measure - work.written_cells,
    }
