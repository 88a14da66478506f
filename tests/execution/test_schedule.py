"""The queue: targets stay where they are loaded, and a death costs only the cells that it concerns."""

from __future__ import annotations

from pathlib import Path

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.engines.protocol import Assignment
from prism_ae.execution.schedule import Queue


def assignment(target: str, *seeds: int) -> Assignment:
    cells = tuple(
        Cell(
            Point("s", target, "prism", None, "qa", 0.0, None, "fake", None, 1, 1, 1, seed, "float32"),
            Fingerprints("", None, "", "", ""),
        )
        for seed in seeds
    )
    return Assignment(cells, Path(target), None, None)


A1, A2, B1, B2 = assignment("a", 1, 2), assignment("a", 3), assignment("b", 4, 5), assignment("b", 6)


def test_a_worker_keeps_its_target_and_a_new_one_takes_another() -> None:
    queue = Queue([A1, A2, B1, B2])
    assert queue.take(None, set()) is A1
    assert queue.take(None, {Path("a")}) is B1
    assert queue.take(Path("b"), {Path("a")}) is B2
    assert queue.take(Path("b"), {Path("a")}) is A2  # nothing of its own is left
    assert queue.take(Path("b"), set()) is None


def test_the_order_is_kept_within_a_target() -> None:
    queue = Queue([B2, A1, A2, B1])
    assert [queue.take(Path("a"), set()) for _ in range(4)] == [A1, A2, B2, B1]


def test_a_cell_counts_once() -> None:
    queue = Queue([A1])
    assert queue.unfinished == 2
    assert queue.finished(A1.cells[0].id)
    assert not queue.finished(A1.cells[0].id)
    assert queue.unfinished == 1


def test_after_a_death_the_unfinished_cells_wait_alone_and_last() -> None:
    queue = Queue([A1, B1])
    taken = queue.take(None, set())
    assert taken is A1
    queue.finished(A1.cells[0].id)
    assert queue.died(taken) == ()
    assert queue.take(None, set()) is B1
    again = queue.take(None, set())
    assert again is not None
    assert again.cells == (A1.cells[1],)
    assert again.target_path == A1.target_path


def test_a_cell_at_two_deaths_is_given_up_and_its_neighbours_are_not() -> None:
    queue = Queue([A1])
    first = queue.take(None, set())
    assert first is not None
    queue.died(first)
    alone = [queue.take(None, set()), queue.take(None, set())]
    assert alone[0] is not None
    assert queue.died(alone[0]) == (A1.cells[0],)
    assert queue.unfinished == 1
    assert queue.waiting == 0


def test_what_was_not_begun_comes_next() -> None:
    queue = Queue([A1, B1])
    taken = queue.take(None, set())
    assert taken is not None
    queue.put_back(taken)
    assert queue.take(None, set()) is A1
