"""``prism-ae plan``: what a run would do. Takes no device and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.execution.devices import Slot
    from prism_ae.plan import Estimate, Plan

_SHOWN = 12
"""Assignments and reasons in the text; --json has all."""


def plan(
    experiments: o.Experiments,
    suite: o.SuiteName = "paper",
    benches: o.Benches = None,
    scales: o.Scales = None,
    targets: o.Targets = None,
    drafters: o.Drafters = None,
    temperatures: o.Temperatures = None,
    questions: o.Questions = None,
    tree: o.Trees = None,
    batch_size: o.BatchSizes = None,
    drafting: o.Drafting = None,
    engine: o.Engine = None,
    controls: o.Controls = False,
    paper_compat: o.PaperCompat = False,
    gpus: o.Gpus = None,
    workers: o.Workers = None,
    models_dir: o.ModelsDir = o.MODELS,
    runs_dir: o.RunsDir = o.RUNS,
    json: o.Json = False,
) -> None:
    """Show what would be measured, in which order, and what is missing. Takes no device.

    \b
    Examples:
      prism-ae plan figure4 --suite mini
      prism-ae plan figure1 figure10 --gpus 0,1
      prism-ae plan figure7 --suite mini --batch-size 4 --drafting both
      prism-ae plan all --suite mini --json
    """
    from prism_ae.cli.lookup import LocalLookup
    from prism_ae.cli.measure import open_store, slots
    from prism_ae.cli.output import say, say_json
    from prism_ae.cli.request import make_request
    from prism_ae.plan import make_plan, resolve

    request = make_request(
        experiments,
        suite,
        benches,
        scales,
        targets,
        drafters,
        temperatures,
        questions,
        tree,
        engine,
        controls,
        batch_size,
        drafting,
        paper_compat,
    )
    where = slots(gpus, workers)
    records = open_store(runs_dir, request.suite).records()
    made = make_plan(
        resolve(request.all_points, LocalLookup(request.suite, models_dir), request.suite.drafters), records
    )
    if json:
        say_json(as_json(made, where))
    else:
        names = ", ".join(experiment.name for experiment in request.experiments)
        say([f"suite {request.suite.name}: {names}", *summary(made, where)])


def summary(plan: Plan, slots: tuple[Slot, ...]) -> list[str]:
    """A plan in words."""
    from prism_ae.cli.output import number_of, table

    lines = [
        f"  {number_of(plan.total, 'cell')}: {len(plan.done):,} measured, {plan.to_measure:,} to measure, "
        f"{len(plan.holes):,} that cannot be measured now"
    ]
    if plan.failed:
        lines.append(f"  {number_of(len(plan.failed), 'cell')} failed before and would be tried again")
    for reason, hint, count in plan.missing()[:_SHOWN]:
        lines.append(f"  missing for {number_of(count, 'cell')}: {reason}{f'; {hint}' if hint else ''}")
    if len(plan.missing()) > _SHOWN:
        lines.append(f"  … and {len(plan.missing()) - _SHOWN} more reasons (--json lists all)")
    if not plan.assignments:
        return lines
    used = min(len(slots), len(plan.assignments))
    lines.append(
        f"  {number_of(len(plan.assignments), 'assignment')} for {number_of(used, 'worker')} "
        f"({', '.join(slot.label for slot in slots[:used])}: {slots[0].name})"
    )
    timed, on_cpu = sum(assignment.timed for assignment in plan.assignments), slots[0].device == "cpu"
    if timed and on_cpu:
        lines.append(f"  of these {timed:,} measure time, one after the other, with nothing beside them")
    lines.append(f"  targets to load: {', '.join(plan.targets)}")
    lines.append(f"  expected time: {expected_time(plan.estimate, used, on_cpu)}")
    rows = []
    for assignment in plan.assignments[:_SHOWN]:
        point = assignment.cells[0].point
        tree = f"tree {point.tree}" if point.tree else "no tree"
        batch = "" if point.batch is None else f"batch {point.batch}"
        how = point.engine if point.drafting == "exact" else f"{point.engine} ({point.drafting} drafting)"
        cells = number_of(len(assignment.cells), "cell")
        rows.append((point.target, point.drafter, point.scale or "", tree, batch, how, point.dtype, cells))
    lines += ["  first assignments:", *table(rows, indent="    ")]
    if len(plan.assignments) > _SHOWN:
        lines.append(f"    … and {len(plan.assignments) - _SHOWN} more")
    return lines


def expected_time(estimate: Estimate, workers: int, on_cpu: bool) -> str:
    """From finished cells of the same kind; said to be unknown where there are none. On a CPU only the cells whose time
    is not measured are shared by the workers."""
    from prism_ae.cli.output import number_of
    from prism_ae.execution.progress import duration

    if not estimate.known:
        return "unknown, no cell like these has been measured here yet"
    one_by_one = estimate.timed if on_cpu else 0.0
    seconds = (estimate.seconds - one_by_one) / workers + one_by_one
    text = f"about {duration(seconds)} for {number_of(estimate.known, 'cell')}, from finished ones"
    return f"{text}; unknown for the other {estimate.unknown:,}" if estimate.unknown else text


def as_json(plan: Plan, slots: tuple[Slot, ...]) -> dict[str, Any]:
    """A plan as data."""
    from prism_ae.fingerprint import plain

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
        "workers": [{"label": slot.label, "name": slot.name, "threads": slot.threads} for slot in slots],
        "expected_worker_seconds": plan.estimate.seconds if plan.estimate.known else None,
        "cells_of_unknown_time": plan.estimate.unknown,
    }
