"""The sglang engine on the trained mini suite, where it has been trained: question for question against the torch
engine, text for text against its own vanilla decoding."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from prism_ae.cells import Cell, Fingerprints, Point, Sample, TreeShape
from prism_ae.engines.protocol import Assignment, Engine, EngineCapacity
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.locate import DrafterKey, Located, locate_drafter, locate_target
from prism_ae.suites.load import load_suite

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(0),
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, or the plugin's entry point, is not installed",
    ),
]

SUITE = load_suite("mini")
MODELS = Path(__file__).parents[2] / "models"
TREES = [TreeShape(6, 4, 16), TreeShape(6, 10, 60)]
CAPACITY = EngineCapacity(8, 6, 10, 60, SUITE.limits.max_length)
QUESTIONS = 16
FEW = 2
"""Questions of each benchmark that are asked one at a time."""


@pytest.fixture
def sglang() -> Iterator[SGLangEngine]:
    engine = SGLangEngine(SUITE, MODELS, "cpu", 1)
    yield engine
    engine.close()


def _samples(
    engine: Engine, target: Path, drafter: Path | None, cell: Cell, tree: TreeShape | None, questions: int
) -> dict[str, Sample]:
    """Of all benchmarks, by question."""
    point = dataclasses.replace(cell.point, tree=tree, questions=questions)
    cells = tuple(
        Cell(dataclasses.replace(point, benchmark=benchmark), cell.fingerprints) for benchmark in SUITE.benchmarks
    )
    capacity = CAPACITY if drafter else EngineCapacity(8, max_seq_len=SUITE.limits.max_length)
    assignment = Assignment(cells, target, drafter, (), capacity)
    results = dict(engine.measure(assignment, lambda: False))
    assert set(results) == set(cells)
    return {sample.question_id: sample for result in results.values() for sample in result.samples}


def _cell(target: str, drafter: str, batch: int | None) -> Cell:
    limits = SUITE.limits
    point = Point(
        suite="mini",
        target=target,
        drafter=drafter,
        scale=None,
        benchmark="",
        temperature=0.0,
        tree=None,
        engine="sglang",
        batch=batch,
        questions=0,
        max_new_tokens=limits.max_new_tokens,
        max_length=limits.max_length,
        seed=limits.seed,
        dtype="float32",
    )
    return Cell(point, Fingerprints("t", "d", "p", "e", "v"))


@pytest.mark.parametrize("target", SUITE.targets)
def test_every_drafter_equals_the_torch_engine(target: str, sglang: SGLangEngine) -> None:
    located = locate_target(SUITE, target, MODELS)
    if not isinstance(located, Located):
        pytest.skip("the mini suite is not trained here")
    torch_engine = TorchEngine(SUITE, MODELS, "cpu", 1)
    texts = {
        batch: _samples(sglang, located.path, None, _cell(target, "vanilla", batch), None, questions)
        for batch, questions in ((8, QUESTIONS), (1, FEW))
    }
    assert all(texts[1][name].output_sha256 == texts[8][name].output_sha256 for name in texts[1])
    different, compared = [], 0
    for record in SUITE.drafters.values():
        if not record.has_checkpoint or not record.exists_for(SUITE.targets[target]):
            continue
        found = locate_drafter(
            SUITE, DrafterKey(target, record.name, "8x" if record.scaled else None, "sglang"), MODELS
        )
        assert isinstance(found, Located), record.name
        for tree in TREES:
            runs = {
                batch: _samples(sglang, located.path, found.path, _cell(target, record.name, batch), tree, questions)
                for batch, questions in ((None, QUESTIONS), (8, QUESTIONS), (1, FEW))
            }
            expected = runs[None]
            if record.kind == "draft-head":
                expected = _samples(
                    torch_engine, located.path, found.path, _cell(target, record.name, None), tree, QUESTIONS
                )
            before = len(different)
            for batch, samples in runs.items():
                for name, sample in samples.items():
                    compared += 1
                    text = sample.output_sha256 == texts[8][name].output_sha256 == expected[name].output_sha256
                    if not text or sample.histogram != expected[name].histogram:
                        how = "histogram" if text else "text"
                        different.append((record.name, str(tree), batch, name, how, sample, expected[name]))
            print(f"{target} {record.name} {tree}: {len(different) - before} differ, {compared} compared so far")
    assert different == []
