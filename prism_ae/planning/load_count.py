"""How often models are loaded while workers take a plan's assignments. Pure.

The assignments are handed out by the very queue of a run. Only time is made up: an assignment counts as long as the
most tokens that it may generate, since how long it really takes is not known before.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Sequence

from prism_ae.engines.protocol import Assignment
from prism_ae.planning.queue import Queue
from prism_ae.suites.compat import server_flags


@dataclasses.dataclass(frozen=True)
class Loads:
    """How often something is loaded, by all workers together.

    Attributes:
        targets: a target is read by an engine that keeps it and swaps drafters.
        drafters: a drafter is read by such an engine, one per assignment that has one.
        starts: an SGLang server is started, with its target and first drafter. At most so often: drafters of one
            architecture share a start, and which do is known when they are read. On a CPU a worker keeps its servers.
    """

    targets: int
    drafters: int
    starts: int


def count_loads(assignments: Sequence[Assignment], workers: int, *, on_cpu: bool) -> Loads:
    """The loads that these assignments, in order of preference, make for so many workers (at least 1)."""
    queue = Queue(assignments, alone=on_cpu)
    held: dict[int, Assignment] = {}
    servers: dict[int, set[tuple[object, ...]]] = {}
    busy: list[tuple[float, int, Assignment]] = []
    idle = list(range(workers))
    now = 0.0
    loads: Counter[str] = Counter()
    while queue.waiting:
        for worker in tuple(idle):
            before = held.get(worker)
            elsewhere = [other.affinity for number, other in held.items() if number != worker]
            taken = queue.take(before.affinity if before else (), elsewhere)
            if taken is None:
                continue
            kept = _kept(taken, on_cpu=on_cpu)
            if not (on_cpu and kept in servers.setdefault(worker, set())):
                loads.update(_loaded(before, taken, on_cpu=on_cpu))
            if taken.cells[0].point.engine == "sglang":
                servers.setdefault(worker, set()).add(kept)
            held[worker] = taken
            idle.remove(worker)
            heapq.heappush(busy, (now + _length(taken), worker, taken))
        now, worker, done = heapq.heappop(busy)
        queue.over(done)
        idle.append(worker)
        idle.sort()
    return Loads(loads["target"], loads["drafter"], loads["start"])


def _loaded(before: Assignment | None, taken: Assignment, *, on_cpu: bool) -> list[str]:
    """What a worker loads for an assignment, after the one that it had before."""
    anew = before is None or _kept(before, on_cpu=on_cpu) != _kept(taken, on_cpu=on_cpu)
    if taken.cells[0].point.engine == "sglang":
        return ["start"] if anew else []
    return [*(["target"] if anew else []), *(["drafter"] if taken.drafter_path is not None else [])]


def _kept(assignment: Assignment, *, on_cpu: bool) -> tuple[object, ...]:
    """What an engine cannot change while it runs: another one is another load. See `sglang_options.Setup.serves`."""
    point = assignment.cells[0].point
    kept = point.engine, assignment.target_path, point.dtype
    if point.engine != "sglang":
        return kept
    captured = () if on_cpu else (point.tree, point.drafting)
    return *kept, server_flags(point.compat), point.drafter, *captured


def _length(assignment: Assignment) -> float:
    return float(sum(cell.point.questions * cell.point.max_new_tokens for cell in assignment.cells))
