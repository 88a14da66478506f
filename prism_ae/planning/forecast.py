"""Everything that ``plan`` tells, gathered before a word of it is said. Takes no device and writes nothing."""

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
from prism_ae.planning.lookup import IfComplete
from prism_ae.planning.plan import Lookup, Plan, make_plan, resolve
from prism_ae.store import Record


@dataclasses.dataclass(frozen=True)
class Work:
    """A plan, and what its assignments mean for the workers.

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
class Outlook:
    """What a run would do now, and what it would do if all that can be had were here.

    Attributes:
        complete: the latter, without what is measured; None where nothing is missing that can be had.
        slots: of the workers.
        authors_times: what the authors say about the time -> the experiments of this request that it is about.
        size_note: what the publishers say about the models' size, or ""; None where the suite is not downloaded.
    """

    now: Work
    complete: Work | None
    slots: tuple[Slot, ...]
    inventory: Inventory
    authors_times: Mapping[str, tuple[str, ...]]
    size_note: str | None

    @property
    def on_cpu(self) -> bool:
        return self.slots[0].device == "cpu"


def look(
    request: Request,
    lookup: Lookup,
    records: Mapping[str, Record],
    slots: tuple[Slot, ...],
    models_dir: Path,
    root: Path,
) -> Outlook:
    """Gather it.

    Args:
        records: of the store, by cell id.
        root: the suite's runs folder.
    """
    suite = request.suite
    plan = make_plan(resolve(request.all_points, lookup, suite.drafters), records)

    def work(plan: Plan) -> Work:
        used = min(len(slots), len(plan.assignments))
        loads = count_loads(plan.assignments, max(1, used), slots[0].device == "cpu")
        cells = [cell for assignment in plan.assignments for cell in assignment.cells]
        return Work(plan, used, loads, *bytes_to_write(cells, records, root))

    complete = None
    if any(hole.hint for hole in plan.holes):
        left = [point for point in request.all_points if point not in plan.done]
        complete = make_plan(resolve(left, IfComplete(lookup), suite.drafters), records)
    times: dict[str, tuple[str, ...]] = {}
    for experiment in request.experiments:
        choice = experiment.suites.get(suite.name)
        if choice is not None and choice.authors_time:
            times[choice.authors_time] = (*times.get(choice.authors_time, ()), experiment.name)
    return Outlook(
        now=work(plan),
        complete=work(complete) if complete and complete.to_measure > plan.to_measure else None,
        slots=slots,
        inventory=take_inventory(request.all_points, lookup, suite, models_dir),
        authors_times=times,
        size_note=suite.hub.size_note if suite.hub else None,
    )


def as_json(outlook: Outlook) -> dict[str, Any]:
    """An outlook as data."""
    plan, inventory = outlook.now.plan, outlook.inventory
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
        "holes": [{"reason": hole.reason, "hint": hole.hint} | plain(hole.point) for hole in plan.holes],
        "targets": list(plan.targets),
        "workers": [
            {"label": slot.label, "name": slot.name, "threads": slot.threads, "here": slot.here, "why": slot.why}
            for slot in outlook.slots
        ],
        **_work(outlook.now),
        "if_complete": None
        if outlook.complete is None
        else {
            "cells_to_measure": outlook.complete.plan.to_measure,
            "assignments": len(outlook.complete.plan.assignments),
            **_work(outlook.complete),
        },
        "authors_times": [{"says": text, "experiments": names} for text, names in outlook.authors_times.items()],
        "models": {
            "targets": inventory.targets,
            "drafters": inventory.drafters,
            "here": [str(folder) for folder in inventory.here],
            "missing": list(inventory.absent),
            "missing_questions": list(inventory.questions),
            "bytes": inventory.size,
            "free_bytes": inventory.free,
            "authors_say": outlook.size_note or None,
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
