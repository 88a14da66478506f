"""``prism-ae status``: the progress of every experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.planning.plan import Plan
    from prism_ae.store import Record


def status(
    experiments: o.SomeExperiments = None,
    *,
    options: o.RequestOptions,
    folders: o.FolderOptions,
    json: o.Json = False,
) -> None:
    """Show how many cells are measured, which failed and why, and damaged records.

    Without an EXPERIMENT: every experiment that the suite can fill, and the cells measured with other options.

    \b
    Examples:
      prism-ae status --suite mini
      prism-ae status figure4 --suite mini --json
    """
    from prism_ae.cli.measure import open_store
    from prism_ae.cli.output import say, say_json
    from prism_ae.experiments.request import left_out_in_words
    from prism_ae.io.words import one_line, pluralise, table
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import make_plan, resolve

    request = options.request(experiments or ["all"], allow_empty=True)
    store = open_store(folders.runs_dir, request.suite)
    records, damaged = store.records(), store.quarantined
    lookup = LocalLookup(request.suite, folders.models_dir)
    plans = {
        experiment.name: make_plan(resolve(points, lookup, request.suite.drafters), records)
        for experiment, points in zip(request.experiments, request.points, strict=True)
    }
    failures = {cell_id: message for plan in plans.values() for cell_id, message in plan.failed.items()}
    others = Others() if experiments else _others(tuple(plans.values()), records)
    failures |= others.failed
    missing = {(one.reason, one.hint) for plan in plans.values() for one in plan.missing}
    if json:
        say_json(
            {
                "suite": request.suite.name,
                "runs": str(store.root),
                "experiments": {
                    name: {
                        "cells": plan.total,
                        "measured": len(plan.done),
                        "failed": len(plan.failed),
                        "not_measurable": len(plan.missing),
                    }
                    for name, plan in plans.items()
                },
                "left_out": dict(request.left_out),
                "others": {"measured": others.measured, "failed": len(others.failed)},
                "failures": failures,
                "missing": [{"reason": reason, "hint": hint} for reason, hint in sorted(missing)],
                "damaged_lines": [{"line": damage.line, "reason": damage.reason} for damage in damaged],
            }
        )
        return
    rows: list[tuple[str, ...]] = [("experiment", "cells", "measured", "failed", "not measurable now")]
    for name, plan in plans.items():
        counts = (plan.total, len(plan.done), len(plan.failed), len(plan.missing))
        rows.append((name, *(f"{count:,}" for count in counts)))
    if count := others.measured + len(others.failed):
        rows.append(("other options", f"{count:,}", f"{others.measured:,}", f"{len(others.failed):,}", ""))
    say([f"suite {request.suite.name} in {store.root}", *(table(rows, indent="  ") if len(rows) > 1 else ())])
    for cell_id, message in failures.items():
        point = records[cell_id].cell.point
        parts = [point.target, point.drafter, point.trained, point.benchmark]
        parts += [f"tree {point.tree}", f"batch {point.batch}"] if point.batch is not None else []
        what = " ".join(parts)
        say([f"  failed: {cell_id} ({what}, T={point.temperature:g}): {one_line(message)}"])
    say(f"  cannot be measured: {reason}{f'; {hint}' if hint else ''}" for reason, hint in sorted(missing))
    say(left_out_in_words(request))
    if damaged:
        say([f"{pluralise(len(damaged), 'damaged line')} in {store.root / 'log.jsonl'}:"])
        say(f"  line {damage.line} {damage.reason}" for damage in damaged)


@dataclasses.dataclass(frozen=True)
class Others:
    """Cells of the store that no experiment asks for as it is: how many are measured, and id -> message of those that
    failed."""

    measured: int = 0
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _others(plans: Sequence[Plan], records: Mapping[str, Record]) -> Others:
    """What was measured with other options, or of experiments that do not come with the package.

    A failure counts until the same point is measured, be it as another cell: with another checkpoint, say.
    """
    asked = {cell.id for plan in plans for assignment in plan.assignments for cell in assignment.cells}
    asked |= {record.cell.id for plan in plans for record in plan.done.values()}
    others = {cell_id: record for cell_id, record in records.items() if cell_id not in asked}
    measured = {record.cell.point for record in records.values() if record.ok}
    failed = {i: one.message for i, one in others.items() if not one.ok and one.cell.point not in measured}
    return Others(sum(record.ok for record in others.values()), failed)
