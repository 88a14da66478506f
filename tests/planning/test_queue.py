"""The queue: what is loaded stays loaded, a death costs only the cells that it concerns, and what is timed on a CPU is
alone."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment
from prism_ae.planning.queue import Queue
from prism_ae.processes import DEATHS


def assignment(target: str, *seeds: int, batch: int | None = None, affinity: tuple[str, ...] = ()) -> Assignment:
    cells = tuple(
        Cell(
            Point("s", target, "prism", None, "qa", 0.0, None, "fake", batch, 1, 1, 1, seed, "float32"),
            Fingerprints("", None, "", "", ""),
        )
        for seed in seeds
    )
    return Assignment(cells, Path(target), None, affinity or ("fake", target))


A1, A2, B1, B2 = assignment("a", 1, 2), assignment("a", 3), assignment("b", 4, 5), assignment("b", 6)
A, B = ("fake", "a"), ("fake", "b")


def parallel(*assignments: Assignment) -> Queue:
    return Queue(assignments, alone=False)


def test_a_worker_keeps_its_target_and_a_new_one_takes_another() -> None:
    queue = parallel(A1, A2, B1, B2)
    assert queue.take((), []) is A1
    assert queue.take((), [A]) is B1
    assert queue.take(B, [A]) is B2
    assert queue.take(B, [A]) is A2  # nothing of its own is left
    assert queue.take(B, []) is None


def test_what_nobody_holds_comes_before_what_others_hold() -> None:
    c = assignment("c", 7)
    queue = parallel(A1, c)
    assert queue.take(B, [A]) is c
    assert queue.take(B, [A]) is A1


def test_the_order_is_kept_within_a_target() -> None:
    queue = parallel(B2, A1, A2, B1)
    assert [queue.take(A, []) for _ in range(4)] == [A1, A2, B2, B1]


def test_the_longest_common_beginning_decides() -> None:
    def server(number: int, *affinity: str) -> Assignment:
        return assignment("a", number, batch=1, affinity=affinity)

    other_engine = server(1, "torch", "a")
    other_target = server(2, "sglang", "b", "float32", "", "prism", "exact")
    other_flags = server(3, "sglang", "a", "float32", "warm-cache", "prism", "exact")
    other_drafter = server(4, "sglang", "a", "float32", "", "hass", "exact")
    other_drafting = server(5, "sglang", "a", "float32", "", "prism", "stock")
    same = server(6, "sglang", "a", "float32", "", "prism", "exact")
    order = [same, other_drafting, other_drafter, other_flags, other_target, other_engine]
    for shuffled in itertools.permutations(order):
        queue = parallel(*shuffled)
        assert [queue.take(same.affinity, []) for _ in order] == order


def test_a_part_in_the_middle_is_nothing_in_common() -> None:
    """A drafter of the same name on another target has to be loaded all the same."""
    first = assignment("c", 1, affinity=("sglang", "c", "x"))
    second = assignment("b", 2, affinity=("sglang", "b", "prism"))
    assert parallel(first, second).take(("sglang", "a", "prism"), []) is first


def test_a_cell_counts_once() -> None:
    queue = parallel(A1)
    assert queue.unfinished == 2
    assert queue.finished(A1.cells[0].id)
    assert not queue.finished(A1.cells[0].id)
    assert queue.unfinished == 1


def test_after_a_death_the_unfinished_cells_wait_alone_and_last() -> None:
    queue = parallel(A1, B1)
    taken = queue.take((), [])
    assert taken is A1
    queue.finished(A1.cells[0].id)
    assert queue.died(taken) == ()
    assert queue.take((), []) is B1
    again = queue.take((), [])
    assert again is not None
    assert again == dataclasses.replace(A1, cells=(A1.cells[1],))


def test_a_cell_at_two_deaths_is_given_up_and_its_neighbours_are_not() -> None:
    queue = parallel(A1)
    first = queue.take((), [])
    assert first is not None
    queue.died(first)
    alone = [queue.take((), []), queue.take((), [])]
    assert alone[0] is not None
    assert queue.died(alone[0]) == (A1.cells[0],)
    assert queue.unfinished == 1
    assert queue.waiting == 0


def test_what_was_not_begun_comes_next() -> None:
    queue = parallel(A1, B1)
    taken = queue.take((), [])
    assert taken is not None
    queue.put_back(taken)
    assert queue.take((), []) is A1


T1, T2, T3 = (
    assignment("a", 11, batch=1, affinity=("sglang", "a", "vanilla")),
    assignment("a", 12, batch=2, affinity=("sglang", "a", "prism")),
    assignment("b", 13, batch=1, affinity=("sglang", "b", "prism")),
)


def test_on_a_cpu_what_is_timed_waits_for_everybody_and_everybody_for_it() -> None:
    queue = Queue([A1, T1, B1, T2], alone=True)
    assert queue.take((), []) is A1
    assert queue.take((), [A]) is B1
    assert queue.take(A, [B]) is None, "the other worker is still busy"
    queue.over(B1)
    assert queue.take(B, [A]) is None, "so is the first"
    queue.over(A1)
    assert queue.take(A, [B], quiet=False) is None, "somebody starts or leaves"
    assert queue.take(A, [B]) is T1
    assert queue.take(B, [T1.affinity]) is None
    queue.over(T1)
    assert queue.take(B, [T1.affinity]) is None, "the other has the engine"
    assert queue.take(T1.affinity, [B]) is T2


def test_what_is_not_timed_waits_for_what_is() -> None:
    queue = Queue([T1, A1], alone=True)
    assert queue.take((), []) is A1, "not timed first: workers can share it"
    queue.died(A1)
    queue = Queue([T1], alone=True)
    assert queue.take((), []) is T1
    assert queue.died(T1) == ()
    assert queue.take((), []) == T1


def test_on_gpus_everything_runs_side_by_side() -> None:
    queue = parallel(A1, T1, T3, B1)
    taken = [queue.take(held, []) for held in (A, ("sglang", "a"), ("sglang", "b"), B)]
    assert taken == [A1, T1, T3, B1]


def test_a_worker_is_started_only_for_what_it_may_do() -> None:
    queue = Queue([A1, B1, T1], alone=True)
    assert queue.wants_worker(5)
    assert queue.take((), []) is A1
    assert queue.take((), [A]) is B1
    assert not queue.wants_worker(2), "one of the two will do what is timed"
    assert queue.wants_worker(0)
    queue.over(A1)
    queue.over(B1)
    assert queue.take(A, [B]) is T1
    queue.died(T1)
    assert queue.wants_worker(0)
    assert queue.take((), []) == T1
    assert not queue.wants_worker(0)
    assert parallel(T1, T2).wants_worker(1)
    assert not parallel().wants_worker(0)


def _random_assignments(choice: random.Random) -> list[Assignment]:
    numbers = itertools.count()
    return [
        assignment(
            target := choice.choice("ab"),
            *(next(numbers) for _ in range(choice.randint(1, 3))),
            batch=choice.choice([None, 1]),
            affinity=(choice.choice(["torch", "sglang"]), target, *choice.choice([(), ("prism",), ("hass",)])),
        )
        for _ in range(choice.randint(1, 8))
    ]


class _Worker:
    """Where a worker of the simulation stands."""

    state = "off"
    held: tuple[str, ...] = ()
    task: Assignment | None = None


@pytest.mark.parametrize("alone", [True, False])
@given(choice=st.randoms(use_true_random=False), count=st.integers(1, 4))
def test_whatever_happens_everything_is_done_and_what_is_timed_is_alone(
    alone: bool, choice: random.Random, count: int
) -> None:
    """Workers start, finish, die, refuse and leave in any order; the parent asks for them in turn, as `Run` does."""
    waiting = _random_assignments(choice)
    queue = Queue(waiting, alone=alone)
    workers = [_Worker() for _ in range(count)]
    given_up: list[str] = []
    done: list[str] = []
    for _ in range(2000):
        if not queue.unfinished:
            break
        for worker in workers:
            others = [other for other in workers if other is not worker and other.state != "off"]
            if worker.state == "off" and queue.wants_worker(len(others)):
                assert not alone or not any(other.task and other.task.timed for other in others)
                worker.state, worker.held = "starting", ()
            if worker.state == "idle":
                elsewhere = [other.held for other in others if other.state in ("idle", "busy")]
                quiet = not any(other.state in ("starting", "leaving") for other in others)
                worker.task = queue.take(worker.held, elsewhere, quiet=quiet)
                if worker.task is not None:
                    worker.state, worker.held = "busy", worker.task.affinity
            busy = [other.task for other in workers if other.task is not None]
            if alone and any(task.timed for task in busy):
                assert len(busy) == 1
                assert all(other.state in ("idle", "busy", "off") for other in workers)
        moving = [worker for worker in workers if worker.state in ("starting", "busy", "leaving")]
        assert moving, "nobody works although something is left"
        worker = choice.choice(moving)
        event = choice.choice(["done", "done", "done", "died", "refused", "leaving"])
        if worker.state == "starting":
            worker.state = "off" if event == "died" else "idle"
        elif worker.state == "leaving":
            worker.state = "off"
        else:
            assert worker.task is not None
            cells = [cell.id for cell in worker.task.cells]
            if event == "died":
                for cell_id in cells[: choice.randint(0, len(cells))]:
                    assert queue.finished(cell_id)
                    done.append(cell_id)
                given_up += [cell.id for cell in queue.died(worker.task)]
                worker.state = "off"
            elif event == "refused":
                queue.put_back(worker.task)
                worker.state = "leaving"
            else:
                for cell_id in cells:
                    assert queue.finished(cell_id)
                    done.append(cell_id)
                queue.over(worker.task)
                worker.state = "idle" if event == "done" else "leaving"
            worker.task = None
    assert queue.unfinished == 0
    everything = [cell.id for one in waiting for cell in one.cells]
    assert sorted(done + given_up) == sorted(everything), "each cell once"
    assert DEATHS == 2


def test_on_a_cpu_one_worker_keeps_the_engine_through_everything_timed() -> None:
    """Three workers ask in turn, each first as often as the others: the engine is started once."""
    timed = [assignment("a", number, batch=1, affinity=("sglang", "a", str(number % 3))) for number in range(9)]
    queue = Queue(timed, alone=True)
    held: list[tuple[str, ...]] = [("torch", "a"), ("torch", "b"), ()]
    owners = []
    for turn in range(9):
        for worker in (turn % 3, (turn + 1) % 3, (turn + 2) % 3):
            elsewhere = [held[other] for other in range(3) if other != worker]
            if taken := queue.take(held[worker], elsewhere):
                owners.append(worker)
                held[worker] = taken.affinity
                queue.over(taken)
                break
    assert len(owners) == 9
    assert len(set(owners)) == 1
    assert queue.waiting == 0


def test_assignments_that_are_added_are_the_next_and_count() -> None:
    timed, later = assignment("a", 8, batch=1), assignment("a", 9, batch=1)
    queue = Queue([timed, B1], alone=False)
    assert queue.waits_for_times("a")
    assert not queue.waits_for_times("b")
    queue.finished(timed.cells[0].id)
    assert not queue.waits_for_times("a")
    assert queue.add([later]) == 1
    assert queue.waits_for_times("a")
    assert queue.unfinished == 3
    assert queue.take((), []) is later
