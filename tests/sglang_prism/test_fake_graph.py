"""Drafting under CUDA graphs, faked on a CPU: the same texts and the same rounds as the torch engine's.

SGLang's own runners capture, pad, copy and replay; see `fake_graph`. A replay runs no Python of SGLang or of the
plugin, so what is drafted shows that each step's module, and exact drafting's copies, are part of what was captured.
The mistakes that would not be are made on purpose, and noticed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import pytest
import torch
from fake_graph import faults
from fake_graph.harness import TREE, Engines, check_graphs, engines_with_fake_graphs, make_near, padded, rounds, written
from fake_graph.recording import opaque, record
from sglang_models import altered
from torch import Tensor

from prism_ae.cells import TreeShape

needs_sglang = pytest.mark.skipif(
    importlib.util.find_spec("sglang") is None
    or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
    reason="SGLang, or the plugin's entry point, is not installed",
)

BATCHES = (2, 5, 8)
"""Batches of 1, 3, 4, 6 and 7 are padded."""

COPIES = "aten::index_copy_"
"""The operation that gives a branch its ancestors' keys and values; nothing else in a draft loop uses it."""


# --- what is recorded, without SGLang


def test_a_recording_does_again_what_was_done() -> None:
    """With other values in the memory that was read, into the memory that was written."""
    given, kept = torch.arange(6.0).view(2, 3), torch.zeros(2, 3)

    def work() -> tuple[Tensor, Tensor]:
        chosen = given.sort(dim=-1, descending=True).values[:, :2]
        kept.index_copy_(0, torch.zeros(1, dtype=torch.long).add_(1), given[:1] * 2)
        rows = torch.empty(2, 2)
        rows.copy_(chosen.transpose(0, 1).reshape(2, 2))
        return rows, kept.sum(dim=0)

    recording = record(work)
    given.copy_(torch.tensor([[7.0, 9.0, 8.0], [1.0, 2.0, 3.0]]))
    kept.zero_()
    rows, total = recording.replay()
    assert rows is recording.output[0]
    assert rows.tolist() == [[9.0, 3.0], [8.0, 2.0]]
    assert kept.tolist() == [[0.0, 0.0, 0.0], [14.0, 18.0, 16.0]]
    assert total.tolist() == [14.0, 18.0, 16.0]
    assert recording.waits == []
    kept.zero_()
    assert recording.replay(COPIES)[1].tolist() == [0.0, 0.0, 0.0]


def test_python_runs_at_capture_alone() -> None:
    given, choices = torch.ones(2), [2.0, 3.0]
    recording = record(lambda: given * choices.pop(0))
    given.fill_(5.0)
    assert recording.replay().tolist() == [10.0, 10.0]
    assert choices == [3.0]


def test_what_is_opaque_is_called_again() -> None:
    given, lengths = torch.ones(2), [1]

    def kernel() -> Tensor:
        return (given * lengths[0]).clone()

    recording = record(lambda: opaque(kernel, lambda: kernel) + 1)
    assert [node.name for node in recording.nodes] == ["call", "aten::add"]
    lengths[0] = 7
    assert recording.replay().tolist() == [8.0, 8.0]
    assert opaque(kernel, lambda: kernel).tolist() == [7.0, 7.0]  # nothing is being recorded


def test_memory_that_nobody_filled_holds_nothing() -> None:
    recording = record(lambda: torch.empty(2) * 0)
    assert recording.replay().isnan().all()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: int(x.sum()),
        lambda x: bool(x[0] > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
        lambda x: x[x > 1],
        lambda x: x.masked_select(x > 1),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: x.index_put_((x > 1,), torch.zeros(())),
        lambda x: torch.where(x > 1),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_waiting_for_the_device_is_noticed(wait: Callable[[Tensor], Any]) -> None:
    assert record(lambda: wait(torch.arange(3.0) + 1)).waits


def test_working_on_the_device_alone_is_no_waiting() -> None:
    rows = torch.arange(6.0).view(3, 2)
    place = torch.tensor([2, 0])

    def work() -> Tensor:
        found = rows[place].topk(1).indices.repeat_interleave(2, dim=0) + rows.argmax()
        return found.where(found > 1, 0)

    assert record(work).waits == []


# --- SGLang


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with engines_with_fake_graphs(tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def texts(engines: Engines) -> list[list[str]]:
    return written(engines.expected("vanilla"))


def check(engines: Engines, texts: list[list[str]], drafter: str, folder: str | None = None) -> None:
    """Under graphs and eagerly: the target's texts, the torch engine's rounds, and the same trees token for token."""
    expected = rounds(engines.expected(drafter, folder))
    reports = []
    for batches in (BATCHES, ()):
        engines.order(batches)
        found = engines.measure(drafter, folder)
        assert written(found) == texts
        assert rounds(found) == expected
        reports.append(engines.report())
        if batches:
            check_graphs(reports[-1], found, BATCHES)
            assert padded(reports[-1]) == set(reports[-1].captured)
    assert not reports[1].replays
    assert reports[0].trees == reports[1].trees


# --- PRISM with three modules, of which two take turns in the draft loop


@pytest.fixture(scope="module")
def near(engines: Engines) -> str:
    return make_near(engines.place)


def changed(engines: Engines, near: str, name: str, change: Callable[[dict[str, Tensor]], None]) -> str:
    return altered(engines.place.folder / near, engines.place.folder / name, change).name


@needs_sglang
def test_prism_drafts_under_graphs_as_without(engines: Engines, texts: list[list[str]], near: str) -> None:
    check(engines, texts, "prism", near)


def _reversed(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("modules.0.")]:
        other = name.replace("modules.0.", "modules.2.")
        state[name], state[other] = state[other], state[name]


@needs_sglang
def test_another_drafter_is_loaded_into_captured_graphs(engines: Engines, texts: list[list[str]], near: str) -> None:
    """An engine on a GPU swaps drafters of one architecture, and captures nothing anew."""
    other = changed(engines, near, "reversed", _reversed)
    engines.order(BATCHES)
    before = engines.measure("prism", near), engines.report()
    after = engines.measure("prism", other), engines.report()
    assert written(after[0]) == texts
    assert rounds(after[0]) == rounds(engines.expected("prism", other)) != rounds(before[0])
    assert after[1].captured == before[1].captured
    replays, trees = after[1].replays - before[1].replays, after[1].trees - before[1].trees
    check_graphs(dataclasses.replace(after[1], replays=replays, trees=trees), after[0], BATCHES)


@needs_sglang
def test_exact_drafting_happens_in_the_graph(engines: Engines, texts: list[list[str]], near: str) -> None:
    """Its copies, left out at replay: what remains is SGLang's own drafting."""
    found, trees = {}, {}
    for name, batches, dropped, drafting in (
        ("exact", BATCHES, "", "exact"),
        ("dropped", BATCHES, COPIES, "exact"),
        ("stock graph", BATCHES, "", "stock"),
        ("stock eager", (), "", "stock"),
    ):
        engines.order(batches, dropped=dropped)
        results = engines.measure("prism", near, drafting=drafting)
        report = engines.report()
        found[name], trees[name] = rounds(results), report.trees
        assert written(results) == texts
        assert bool(report.replays) == bool(batches)
        assert bool(report.dropped) == bool(dropped)
    assert found["exact"] == rounds(engines.expected("prism", near))
    assert found["dropped"] == found["stock graph"] == found["stock eager"] != found["exact"]
    assert trees["dropped"] == trees["stock graph"] == trees["stock eager"]
    assert different(trees["exact"], trees["dropped"]) > 0.1


def different(some: Counter[str], other: Counter[str]) -> float:
    """Which part of some trees is not among others."""
    return (some - other).total() / some.total()


def _last_everywhere(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("modules.1.")]:
        state[name] = state[name.replace("modules.1.", "modules.2.")].clone()


@needs_sglang
def test_a_step_that_python_counts_would_be_noticed(engines: Engines, near: str) -> None:
    """It is right with any test of eager drafting; in a graph the last module drafts at every step."""
    engines.order(())
    right = engines.measure("prism", near), engines.report()
    engines.order((), fault=faults.COUNTED)
    eager = engines.measure("prism", near), engines.report()
    assert rounds(eager[0]) == rounds(right[0])
    assert eager[1].trees == right[1].trees
    engines.order(BATCHES, fault=faults.COUNTED)
    graph = engines.measure("prism", near), engines.report()
    last = changed(engines, near, "last", _last_everywhere)
    assert rounds(graph[0]) == rounds(engines.expected("prism", last)) != rounds(right[0])
    assert different(right[1].trees, graph[1].trees) > 0.1


@needs_sglang
def test_waiting_for_the_device_would_be_noticed(engines: Engines, near: str) -> None:
    engines.order(BATCHES, fault=faults.ASKED)
    assert rounds(engines.measure("prism", near)) == rounds(engines.expected("prism", near))
    passes = {"draft": TreeShape.parse(TREE).steps - 1, "extend": 1}
    assert Counter(engines.report().waits) == {
        f"{kind} {batch}: aten::_local_scalar_dense": count for kind, count in passes.items() for batch in BATCHES
    }


# --- the others


@needs_sglang
@pytest.mark.parametrize(
    "drafter",
    [
        "prism_star",
        "eagle3",
        *(pytest.param(name, marks=pytest.mark.heavy) for name in ("prism", "eagle2", "hass2")),
    ],
)
def test_other_drafters_draft_under_graphs_as_without(drafter: str, engines: Engines, texts: list[list[str]]) -> None:
    check(engines, texts, drafter)
