"""The forecast of ``plan``, in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from prism_ae.cli.summary import causes_in_words, causes_of, not_measurable
from prism_ae.devices.slots import Slot
from prism_ae.engines.protocol import Assignment
from prism_ae.io.words import duration, format_bytes, pluralise, table, wrapped
from prism_ae.planning.forecast import Forecast, Work
from prism_ae.planning.load_count import Loads
from prism_ae.planning.plan import Plan, TimeEstimate

_SHOWN, _NAMED = 12, 40
"""Assignments and folders in the text; --json has all."""


def in_words(forecast: Forecast, models_dir: str) -> list[str]:
    """The lines below the one that names suite and experiments."""
    now, complete = forecast.now, forecast.complete
    lines = _cells(now.plan)
    lines += _models(forecast, models_dir)
    if now.plan.assignments:
        lines += wrapped(_assigned("", now, forecast.slots))
        lines += _work(now, forecast, "  ")
    if complete is not None:
        cells = pluralise(complete.plan.to_measure, "cell")
        lines += wrapped(_assigned(f"with everything here: {cells} in ", complete, forecast.slots))
        lines += _work(complete, forecast, "    ")
    if not all(slot.here for slot in forecast.slots):
        absent = _labels(slot for slot in forecast.slots if not slot.here)
        lines += wrapped(f"{absent} not here: this plan assumes a worker on each, 'prism-ae run' would refuse")
        for why in dict.fromkeys(slot.why for slot in forecast.slots if slot.why):
            lines += wrapped(why, "    ")
    if (complete or now).plan.estimate.unknown:
        for text, names in forecast.authors_times.items():
            lines += wrapped(f"the authors' time for {', '.join(names)}: {text}; not an estimate for this plan")
    return lines + _first(now.plan.assignments)


def _cells(plan: Plan) -> list[str]:
    """How many there are, and why some cannot be measured."""
    lines = [
        f"  {pluralise(plan.total, 'cell')}: {len(plan.done):,} measured, {plan.to_measure:,} to measure, "
        f"{len(plan.missing):,} that cannot be measured now"
    ]
    if plan.failed:
        lines.append(f"  {pluralise(len(plan.failed), 'cell')} failed before and would be tried again")
    return lines + causes_in_words(causes_of(not_measurable(plan.missing)))


def _models(forecast: Forecast, models_dir: str) -> list[str]:
    """Which models are here, and the disk space they take."""
    inventory = forecast.inventory
    checkpoints = f"{pluralise(inventory.targets, 'target')}, {pluralise(inventory.drafters, 'drafter checkpoint')}"
    count = pluralise(inventory.folders, "folder")
    here = f"all {count}" if not inventory.absent else f"{len(inventory.here):,} of {count}"
    lines = wrapped(f"models: {checkpoints}; {here} here") if inventory.folders else []
    if inventory.absent and inventory.here:
        lines += wrapped(f"not here: {_some(inventory.absent)}", "    ")
    if inventory.questions:
        lines += wrapped(f"question files that are not here: {', '.join(inventory.questions)}", "    ")
    taken = f"the models here take {format_bytes(inventory.size)}, " if inventory.here else ""
    lines += wrapped(f"disk: {taken}{format_bytes(inventory.free)} are free for the folder {models_dir}")
    if inventory.absent and forecast.download is not None:
        lines += wrapped(f"'{forecast.download} --dry-run' shows the size of the missing files", "    ")
        if forecast.size_note:
            lines += wrapped(f"the authors say: {forecast.size_note}", "    ")
    return lines


def _some(folders: Sequence[str]) -> str:
    """ "drafters: a, b; c": names below one folder stand together."""
    below: dict[str, list[str]] = {}
    for folder in folders[:_NAMED]:
        # A reason in words is no path, even where it names one.
        parent, _, name = folder.rpartition("/") if " " not in folder else ("", "", folder)
        below.setdefault(parent, []).append(name)
    text = "; ".join(f"{parent}: {', '.join(names)}" if parent else ", ".join(names) for parent, names in below.items())
    more = f"; … and {len(folders) - _NAMED:,} more (--json lists all)" if len(folders) > _NAMED else ""
    return text + more


def _assigned(before: str, work: Work, slots: Sequence[Slot]) -> str:
    used = slots[: work.used]
    names = "; ".join(
        f"{_labels(list(group))}: {name}" for name, group in itertools.groupby(used, key=lambda slot: slot.name)
    )
    assignments = pluralise(len(work.plan.assignments), "assignment")
    return f"{before}{assignments} for {pluralise(work.used, 'worker')} ({names})"


def _labels(slots: Iterable[Slot]) -> str:
    """ "gpu 0 to 3, 6": a row of neighbours by its ends."""
    kinds = [slot.label.rpartition(" ") for slot in slots]
    numbers = sorted(int(number) for _, _, number in kinds)
    rows: list[list[int]] = []
    for number in numbers:
        if rows and number == rows[-1][-1] + 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    parts = [f"{row[0]} to {row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in rows]
    return f"{kinds[0][0]} {', '.join(parts)}"


def _work(work: Work, forecast: Forecast, indent: str) -> list[str]:
    """Loads, time and disk space of a plan's assignments."""
    plan, on_cpu = work.plan, forecast.on_cpu
    lines = []
    timed = sum(assignment.timed for assignment in plan.assignments)
    if timed and on_cpu:
        lines.append(f"{indent}of these {timed:,} measure throughput, one at a time and alone")
    lines += wrapped(f"targets to load: {', '.join(plan.targets)}", indent)
    lines += wrapped(f"loads: {loads_in_words(work.loads, on_cpu=on_cpu)}", indent)
    lines += wrapped(f"expected time: {expected_time(plan.estimate, work.used, on_cpu=on_cpu)}", indent)
    if others := set(plan.estimate.devices) - {slot.name for slot in forecast.slots}:
        lines += wrapped(
            f"the finished ones were measured on another device ({', '.join(sorted(others))})", f"{indent}  "
        )
    if work.written_cells:
        text = f"the run writes about {format_bytes(work.written)}, by the size of finished cells"
        unknown = plan.to_measure - work.written_cells
        lines += wrapped(f"{text}; unknown for {pluralise(unknown, 'cell')}" if unknown else text, indent)
    return lines


def loads_in_words(loads: Loads, *, on_cpu: bool) -> str:
    """Of all workers together; loads that do not occur are not named."""
    parts = []
    if loads.targets:
        parts.append(f"torch loads a target {_times(loads.targets)} and a drafter {_times(loads.drafters)}")
    if loads.starts:
        what = " and drafter architecture" if on_cpu else ", drafter architecture, draft tree and way of drafting"
        parts.append(f"SGLang is started at most {_times(loads.starts)}, each for one target{what}")
    return f"{'; '.join(parts)} (simulated, with time proportional to tokens)"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def expected_time(estimate: TimeEstimate, workers: int, *, on_cpu: bool) -> str:
    """From finished cells of the same kind; said to be unknown where there are none. On a CPU only the cells whose time
    is not measured are shared by the workers."""
    if not estimate.known:
        return "unknown, no cell like these has been measured here yet"
    one_by_one = estimate.timed if on_cpu else 0.0
    seconds = (estimate.seconds - one_by_one) / workers + one_by_one
    text = f"about {duration(seconds)} for {pluralise(estimate.known, 'cell')}, from finished ones"
    return f"{text}; unknown for the other {estimate.unknown:,}" if estimate.unknown else text


def _first(assignments: Sequence[Assignment]) -> list[str]:
    """The assignments that are measured first."""
    if not assignments:
        return []
    rows = []
    for assignment in assignments[:_SHOWN]:
        point = assignment.cells[0].point
        tree = f"tree {point.tree}" if point.tree else "no tree"
        batch = "" if point.batch is None else f"batch {point.batch}"
        how = point.engine if point.drafting == "exact" else f"{point.engine}, {point.drafting}"
        cells = pluralise(len(assignment.cells), "cell")
        rows.append((point.target, point.drafter, point.trained, tree, batch, how, point.dtype, cells))
    lines = ["  first assignments:", *table(rows, indent="    ")]
    if len(assignments) > _SHOWN:
        lines.append(f"    … and {len(assignments) - _SHOWN:,} more")
    return lines
