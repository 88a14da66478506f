"""The parts of the sglang engine that need no SGLang: what it asks for, what it checks, how it counts and explains."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from raising import raises

from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, TreeShape
from prism_ae.engines.protocol import Assignment
from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang.engine import _explained, _sample
from prism_ae.engines.sglang.options import EngineSetup
from prism_ae.engines.sglang.process import HostDied
from prism_ae.errors import DeviceError
from prism_ae.io.digests import digest
from prism_ae.sglang_prism.host import EngineHost, _added, _cut
from prism_ae.sglang_prism.messages import Answered, Configure, Serve
from prism_ae.sglang_prism.stages import KEY as STAGES_KEY
from prism_ae.suites.compat import GRAPHS_BATCH_1
from prism_ae.suites.records import Template

TREE = TreeShape(6, 4, 16)
SETUP = EngineSetup(
    target=Path("target"),
    drafter=Path("prism"),
    architecture="{}",
    tree=TREE,
    batch=8,
    max_seq_len=512,
    dtype="float32",
    seed=42,
    drafting="exact",
    device="cpu",
    server_flags=(),
)
STATE = {
    "tree": [6, 4, 16],
    "drafting": "exact",
    "dtype": "float32",
    "drafter": "prism",
    "largest_batch": 8,
    "cuda_graphs": "eager",
}


def _changes(state: dict[str, Any], *more: Any) -> Configure:
    return sglang_engine._changes(EngineSettings.from_json(state), *more)


def _check_state(state: dict[str, Any], *more: Any) -> None:
    sglang_engine._check_state(EngineSettings.from_json(state), *more)


def assignment(tree: TreeShape | None = TREE, drafter: str | None = "prism") -> Assignment:
    point = Point("mini", "t", "d", None, "b", 0.0, tree, "sglang", None, 1, 16, 512, 42, "float32")
    cell = Cell(point, Fingerprints("", "", "", "", ""))
    return Assignment((cell,), Path("target"), Path(drafter) if drafter else None)


@pytest.mark.parametrize(
    ("state", "asked", "changes"),
    [
        ({}, {}, Configure()),
        ({"drafter": "hass"}, {}, Configure(drafter="prism")),
        ({"drafter": None}, {}, Configure()),  # a separate model is not swapped
        ({"tree": [6, 10, 60]}, {}, Configure(tree="6,4,16")),
        ({"drafting": "stock"}, {}, Configure(drafting="exact")),
        (
            {"drafter": "hass", "tree": [8, 10, 64], "drafting": "stock"},
            {},
            Configure("prism", "6,4,16", "exact"),
        ),
        ({"drafter": None, "tree": None, "drafting": None}, {"tree": None, "drafter": None}, Configure()),
    ],
)
def test_only_what_differs_is_changed(state: dict[str, Any], asked: dict[str, Any], changes: Configure) -> None:
    assert _changes(STATE | state, assignment(**asked), SETUP) == changes


@pytest.mark.parametrize(
    ("state", "subjects"),
    [
        ({"tree": [6, 10, 60]}, "tree 6,10,60 6,4,16"),
        ({"tree": None}, "tree None 6,4,16"),
        ({"drafting": "stock"}, "drafting stock exact"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 float32"),
        ({"drafter": "hass"}, "drafter hass prism"),
        ({"largest_batch": 4}, " 4 8"),
        ({"dtype": "float16", "drafting": "stock"}, "drafting stock exact dtype float16 float32"),
    ],
)
def test_every_disagreement_is_named(state: dict[str, Any], subjects: str) -> None:
    _check_state(STATE, assignment(), SETUP)
    with raises(DeviceError, *subjects.split()):
        _check_state(STATE | state, assignment(), SETUP)


def test_graphs_of_drafting_cover_the_batch_on_a_gpu() -> None:
    """Where SGLang captured none, or smaller ones, drafting would run eagerly and be measured in silence."""
    gpu = dataclasses.replace(SETUP, device="cuda:0")
    captured: list[int] = [1, 2, 4, 8]
    state = STATE | {"cuda_graphs": captured, "draft_cuda_graphs": captured, "extend_cuda_graphs": captured}
    _check_state(state, assignment(), gpu)
    for key, found, says in (
        ("draft_cuda_graphs", "eager", "draft loop.* 0 .* 8"),
        ("extend_cuda_graphs", [1, 2], "first step.* 2 .* 8"),
    ):
        with pytest.raises(DeviceError, match=says):
            _check_state(state | {key: found}, assignment(), gpu)
    chain = assignment(TreeShape(1, 1, 2))
    _check_state(state | {"tree": [1, 1, 2], "draft_cuda_graphs": "eager"}, chain, gpu)  # it has no loop


@pytest.mark.parametrize(
    ("graphs", "flags", "says"),
    [
        ([1, 2, 4, 8], (), ""),
        ([1, 2, 4], (), "CUDA graphs.* 4 .* 8"),
        ("eager", (), "CUDA graphs.* 0 .* 8"),
        ([1], (GRAPHS_BATCH_1,), ""),
    ],
)
def test_graphs_smaller_than_the_batch_are_noticed_on_a_gpu(graphs: Any, flags: tuple[str, ...], says: str) -> None:
    gpu = dataclasses.replace(SETUP, device="cuda:0", server_flags=flags)
    covering = [1, 2, 4, 8]
    state = STATE | {"cuda_graphs": graphs, "draft_cuda_graphs": covering, "extend_cuda_graphs": covering}
    _check_state(state, assignment(), SETUP)  # a CPU has none
    if not says:
        _check_state(state, assignment(), gpu)
        return
    with pytest.raises(DeviceError, match=says):
        _check_state(state, assignment(), gpu)


def test_vanilla_drafts_nothing() -> None:
    vanilla = dataclasses.replace(SETUP, drafter=None, architecture="", tree=None)
    state = STATE | {"tree": None, "drafting": None, "drafter": None}
    _check_state(state, assignment(None, None), vanilla)
    with raises(DeviceError, "6,4,16", None):
        _check_state(STATE, assignment(None, None), vanilla)


def test_a_separate_model_is_not_ours_to_name() -> None:
    _check_state(STATE | {"drafter": None}, assignment(), dataclasses.replace(SETUP, architecture="standard"))


@pytest.mark.parametrize(
    "words",
    [
        "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\nbye",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: Out of memory\n",
    ],
)
def test_out_of_memory_is_explained(words: str) -> None:
    error = _explained(HostDied("signal SIGQUIT", words))
    assert isinstance(error.__cause__, MemoryError)
    assert "out of memory" in error.what
    assert "Error: " in error.what
    assert "--batch-size" in error.hint


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("a\nValueError: no such thing\n  at b\nbye\n", "ValueError: no such thing"),
        ("only this\n\n", "only this"),
        ("", ""),
    ],
)
def test_other_deaths_are_explained_by_the_last_error(words: str, last: str) -> None:
    error = _explained(HostDied("signal SIGKILL", words))
    assert error.__cause__ is None
    assert " 2 " in error.what
    assert "SIGKILL" in error.what
    assert error.what.endswith(last)


@pytest.mark.parametrize(
    ("tokens", "most", "left"),
    [
        ([5, 6, 7], 8, (5, 6, 7)),
        ([5, 6, 2], 8, (5, 6, 2)),
        ([5, 2, 7], 8, (5, 2)),  # a round that goes on after the end
        ([5, 2, 2], 8, (5, 2)),
        ([5, 6, 7, 2], 3, (5, 6, 7)),  # one too many, where the end comes just behind the limit
        ([5, 6, 2, 7], 3, (5, 6, 2)),
        ([9, 2], 8, (9,)),
    ],
)
def test_nothing_after_an_end_or_the_limit(tokens: list[int], most: int, left: tuple[int, ...]) -> None:
    assert _cut(tokens, frozenset({2, 9}), most) == left


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [([], [], []), ([], [1, 2], [1, 2]), ([1, 2, 3], [4], [5, 2, 3]), ([0, 1], [2, 0, 5], [2, 1, 5])],
)
def test_histograms_of_turns_are_added(one: list[int], other: list[int], total: list[int]) -> None:
    assert _added(one, other) == total == _added(other, one)


def test_a_sample_of_two_turns() -> None:
    stages = (0.5, 1.0, 0.125, 0.25)
    answered = Answered(3, ((5, 6), (7,)), 40, (1, 2), ((1,), (0, 1)), ("end", "length"), 0.5, 2.0, stages)
    drafted = assignment().cells[0].point
    sample = _sample("talk/7", answered, drafted)
    assert dataclasses.asdict(sample) == {
        "question_id": "talk/7",
        "turns": 2,
        "prompt_tokens": 40,
        "generated_tokens": 3,
        "histogram": (1, 2, 0, 0, 0, 0, 0),  # as long as a round can be
        "stops": ("end", "length"),
        "prefill_seconds": 0.5,
        "decode_seconds": 2.0,
        "output_sha256": digest([[5, 6], [7]]),
        "accepted": ((1,), (0, 1)),
        "turn_tokens": (2, 1),
        "near_ties": (),
        "faults": None,
        "stage_seconds": (),
    }
    assert _sample("talk/7", answered, dataclasses.replace(drafted, batch=1)).stage_seconds == stages
    assert sample.rounds == 3
    assert sample.output_sha256 != _sample("talk/7", dataclasses.replace(answered, answers=((5,), (6, 7))), drafted)
    vanilla = _sample("talk/7", dataclasses.replace(answered, histogram=()), dataclasses.replace(drafted, tree=None))
    assert (vanilla.rounds, vanilla.histogram, vanilla.accepted) == (0, (), ())


class _Engine:
    """Answers each request with given tokens, and remembers what it was asked."""

    def __init__(self, answers: list[tuple[list[int], list[int]]]) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[list[int], dict[str, Any]]] = []

    async def async_generate(self, input_ids: list[int], sampling_params: dict[str, Any], stream: bool) -> Any:
        self.asked.append((input_ids, sampling_params))
        tokens, histogram = next(self._answers)

        async def chunks() -> AsyncIterator[dict[str, Any]]:
            done = {"finish_reason": None}
            yield {"output_ids": tokens[:1], "meta_info": done}
            done = {"finish_reason": {"type": "length"}, "spec_correct_drafts_histogram": histogram}
            done |= {STAGES_KEY: [(1.0, 2.0), None, (1.5, 2.0 + len(tokens)), None]}
            yield {"output_ids": tokens, "meta_info": done}

        return chunks()


def _answer(engine: _Engine, users: tuple[str, ...], max_seq_len: int, tokens: int) -> Answered:
    host = EngineHost.__new__(EngineHost)
    host._engine = engine
    # A prompt of ten tokens per user turn, and the answers before.
    conversation: Any = SimpleNamespace(
        prompt=lambda users, answers: [1] * (10 * (len(answers) + 1) + sum(map(len, answers))),
        end_ids=frozenset({2}),
    )
    template = Template("plain", "", "", "", ("</s>",))
    asked = Serve(Path("target"), template, "", (users,), 0.0, tokens, max_seq_len, 1, True)
    return asyncio.run(host._answer(0, users, conversation, asked))


def test_turns_end_for_three_reasons() -> None:
    engine = _Engine([([5, 6, 2, 8], [1, 1]), ([5] * 4, [0, 0, 1]), ([5] * 2, [3])])
    answered = _answer(engine, ("a", "b", "c", "d"), 39, 4)
    assert answered.answers == ((5, 6, 2), (5, 5, 5, 5), (5, 5))
    assert answered.stops == ("end", "length", "window", "window")
    assert [len(prompt) for prompt, _ in engine.asked] == [10, 23, 37]
    assert [parameters["max_new_tokens"] for _, parameters in engine.asked] == [4, 4, 2]
    # The prompt of the fourth turn, which is too long for an answer, counts as the torch engine counts it.
    assert answered.prompt_tokens == 10 + 23 + 37 + 49
    assert answered.histogram == (4, 1, 1)
    assert answered.stage_seconds == (1.5, 10.0)
