"""Exact drafting against brute force: after every selection each branch holds the values of its true ancestors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prism_ae.cells import EXACT, STOCK
from prism_ae.sglang_prism import drafting
from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED

UNWRITTEN = -1.0
Parents = list[list[list[int]]]
"""[selection, batch, branch]: the branch that each branch continues."""


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_chosen", None)


@st.composite
def loops(draw: st.DrawFn) -> tuple[int, int, int, Parents]:
    """Batch, branch, steps and who continues whom after each selection but the first."""
    batch, branch, steps = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(3, 6))
    row = st.lists(st.integers(0, branch - 1), min_size=branch, max_size=branch)
    beam = st.lists(row, min_size=batch, max_size=batch)
    return batch, branch, steps, draw(st.lists(beam, min_size=steps - 1, max_size=steps - 1))


def select(branch: int, parents: Parents) -> Callable[..., Any]:
    """What is read of SGLang's selection: candidates are numbered through the whole tree."""

    def original(i: int, *args: Any, **options: Any) -> Any:
        if i == 0:
            candidates = torch.arange(-1, branch).expand(len(parents[0]), -1)
        else:
            chosen = torch.tensor(parents[i - 1])
            child = torch.arange(branch) % branch  # any of a parent's children
            candidates = branch + branch * branch * (i - 1) + chosen * branch + child
        return None, None, None, (None, None, candidates)

    return original


def other_branches_tokens(batch: int, branch: int, steps: int, parents: Parents, seed: int = 0) -> int:
    """Run a draft loop under the hooks; the number of values a forward pass would read from a branch that is none of
    its ancestors.

    Each forward pass writes a value of its own per row and branch; the ancestors' values are followed in lists.
    """
    generator = torch.Generator().manual_seed(seed)
    pool = batch * branch * steps + 5
    slots = torch.randperm(pool, generator=generator)[: batch * branch * steps].view(batch, branch, steps)
    shapes = [(pool, 2, 3), (pool, 1, 4), (pool, 2, 3)]
    buffers = [torch.full(shape, UNWRITTEN, dtype=torch.float64) for shape in shapes]
    paths: list[list[list[float]]] = [[[] for _ in range(branch)] for _ in range(batch)]
    wrong, value = 0, 0.0

    def loop(worker: Any, forward_batch: Any) -> str:
        nonlocal wrong, value, paths
        for i in range(steps):
            drafting.around_select(select(branch, parents), i)
            if i > 0:
                paths = [[list(paths[row][parents[i - 1][row][j]]) for j in range(branch)] for row in range(batch)]
            if i == steps - 1:
                break
            for row in range(batch):
                for j in range(branch):
                    for number, buffer in enumerate(buffers):
                        held = buffer[slots[row, j, :i]]
                        expected = torch.tensor(paths[row][j], dtype=torch.float64).view(-1, 1, 1) + number
                        wrong += int((held != expected).any(dim=(1, 2)).sum()) if i else 0
                        buffer[slots[row, j, i]] = value + number
                    paths[row][j].append(value)
                    value += 10
        return "drafted"

    worker = SimpleNamespace(
        speculative_num_steps=steps,
        topk=branch,
        speculative_algorithm=SimpleNamespace(name=PRISM),
        draft_runner=SimpleNamespace(
            page_size=1, token_to_kv_pool=SimpleNamespace(k_buffer=buffers[:2], v_buffer=buffers[2:])
        ),
    )
    forward_batch = SimpleNamespace(
        batch_size=batch, out_cache_loc=slots.flatten(), forward_mode=SimpleNamespace(is_idle=lambda: False)
    )
    assert drafting.around_draft_forward(loop, worker, forward_batch) == "drafted"
    assert drafting._running is None
    unused = sorted(set(range(pool)) - set(slots.flatten().tolist()))
    assert all((buffer[unused] == UNWRITTEN).all() for buffer in buffers)
    return wrong


@settings(max_examples=150, deadline=None)
@given(loops(), st.integers(0, 99))
def test_every_branch_reads_its_own_ancestors(loop: tuple[int, int, int, Parents], seed: int) -> None:
    assert other_branches_tokens(*loop, seed=seed) == 0


SWAP: Parents = [[[1, 0, 0], [2, 2, 1]]] * 3
"""Branches that swap places, one with two heirs and one with none, after each selection of a loop of 4 steps."""


def _one_after_the_other(slots: Tensor, parents: Tensor, depth: int, buffers: list[Tensor]) -> None:
    """Wrong: a branch is overwritten before the one that it is a parent of has read it."""
    for buffer in buffers:
        for row in range(slots.shape[0]):
            for j in range(slots.shape[1]):
                buffer[slots[row, j, :depth]] = buffer[slots[row, parents[row, j], :depth]]


def _last_only(slots: Tensor, parents: Tensor, depth: int, buffers: list[Tensor]) -> None:
    """Wrong: only the parent's own value comes along, not its ancestors'."""
    INHERIT(slots[:, :, depth - 1 :], parents, 1, buffers)


INHERIT = drafting.inherit


@pytest.mark.parametrize("wrong", [lambda *_: None, _one_after_the_other, _last_only])
def test_a_wrong_repair_is_noticed(wrong: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    assert other_branches_tokens(2, 3, 4, SWAP) == 0
    monkeypatch.setattr(drafting, "inherit", wrong)
    assert other_branches_tokens(2, 3, 4, SWAP) > 0


def test_stock_drafting_reads_tokens_of_other_branches() -> None:
    drafting.set_draft_mode(STOCK)
    assert other_branches_tokens(2, 3, 4, SWAP) > 0
    drafting.set_draft_mode(EXACT)
    assert other_branches_tokens(2, 3, 4, SWAP) == 0


@pytest.mark.parametrize(
    ("chosen", "algorithm", "exact"),
    [
        (None, PRISM, True),
        (None, PRISM_CAPTURED, True),
        (None, "STANDALONE", False),
        (None, "EAGLE", False),
        (EXACT, "STANDALONE", True),
        (STOCK, PRISM, False),
    ],
)
def test_who_drafts_exactly(chosen: str | None, algorithm: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_chosen", chosen)
    assert drafting.is_exact(SimpleNamespace(name=algorithm)) == exact


def _kept(steps: int = 4, branch: int = 3, idle: bool = False, algorithm: str = PRISM) -> Iterator[bool]:
    """Whether the loop's slots are at hand while it runs, and then afterwards."""
    seen = []
    buffers = [torch.zeros(99, 1, 1)]
    worker = SimpleNamespace(
        speculative_num_steps=steps,
        topk=branch,
        speculative_algorithm=SimpleNamespace(name=algorithm),
        draft_runner=SimpleNamespace(page_size=1, token_to_kv_pool=SimpleNamespace(k_buffer=buffers, v_buffer=buffers)),
    )
    forward_batch = SimpleNamespace(
        batch_size=2,
        out_cache_loc=torch.arange(2 * branch * steps),
        forward_mode=SimpleNamespace(is_idle=lambda: idle),
    )
    drafting.around_draft_forward(lambda *_: seen.append(drafting._running is not None), worker, forward_batch)
    return iter([*seen, drafting._running is not None])


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"branch": 1}, False),
        ({"steps": 2}, False),
        ({"steps": 3}, True),
        ({"idle": True}, False),
        ({"algorithm": "EAGLE"}, False),
    ],
)
def test_only_loops_that_can_be_wrong_are_repaired(changes: dict[str, Any], kept: bool) -> None:
    assert list(_kept(**changes)) == [kept, False]


def test_a_loop_that_fails_leaves_nothing_behind() -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no")

    worker = SimpleNamespace(
        speculative_num_steps=4,
        topk=2,
        speculative_algorithm=SimpleNamespace(name=PRISM),
        draft_runner=SimpleNamespace(
            page_size=1, token_to_kv_pool=SimpleNamespace(k_buffer=[torch.zeros(9, 1, 1)], v_buffer=[])
        ),
    )
    forward_batch = SimpleNamespace(
        batch_size=1, out_cache_loc=torch.arange(8), forward_mode=SimpleNamespace(is_idle=lambda: False)
    )
    with pytest.raises(ValueError, match="no"):
        drafting.around_draft_forward(fails, worker, forward_batch)
    assert drafting._running is None


@pytest.mark.parametrize(
    ("page_size", "pool", "says"),
    [
        (16, {"k_buffer": [torch.zeros(9, 1, 1)], "v_buffer": [torch.zeros(9, 1, 1)]}, "page size 1, not 16"),
        (1, {"kv_buffer": [torch.zeros(9, 1, 1)]}, "SimpleNamespace"),
        (1, {"k_buffer": [torch.zeros(9, 1)], "v_buffer": [torch.zeros(9, 1)]}, "SimpleNamespace"),
        (1, {"k_buffer": None, "v_buffer": None}, "SimpleNamespace"),
        (
            1,
            {"k_buffer": [torch.zeros(9, 1, 1)], "v_buffer": [torch.zeros(9, 1, 1)], "k_scale_buffer": [1]},
            "SimpleNamespace",
        ),
    ],
)
def test_an_unknown_pool_is_refused_by_name(page_size: int, pool: dict[str, Any], says: str) -> None:
    runner = SimpleNamespace(page_size=page_size, token_to_kv_pool=SimpleNamespace(**pool))
    with pytest.raises(NotImplementedError, match=says) as caught:
        drafting.draft_buffers(runner)
    assert "PRISM_AE_DRAFTING=stock" in str(caught.value)
