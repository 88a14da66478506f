"""For tests: SGLang with the plugin, and the torch engine, on the same folder of tiny models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted import written as written_by
from sglang_models import QUESTIONS, TARGET, Place, make_place, save

from fake_graph.orders import VARIABLE, Orders, Report
from prism_ae.cells import Result
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.engines.protocol import EngineCapacity
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.checkpoints import load_target
from prism_ae.models.llama import Llama

TREE = "5,4,16"
"""Every engine starts with the tree that is measured: captured graphs are of one tree."""


class Engines:
    """Both engines, and what is measured.

    Args:
        folder: where orders and reports are.
        benchmarks: names in `QUESTIONS`; ``changes`` are fields of `Point`.
    """

    def __init__(self, place: Place, folder: Path, benchmarks: tuple[str, ...], changes: dict[str, Any]) -> None:
        self.place, self.folder = place, folder
        self.sglang = SGLangEngine(place.suite, place.folder, "cpu", 1)
        self._torch = TorchEngine(place.suite, place.folder, "cpu", 1)
        self._benchmarks, self._changes = benchmarks, changes
        self._expected: dict[tuple[str, str | None], list[Result]] = {}

    def order(self, batches: tuple[int, ...], **orders: str) -> None:
        """What holds for the measurements that follow, see `Orders`."""
        Orders(batches, **orders).write(self.folder)

    def report(self) -> Report:
        return Report.read(self.folder)

    def measure(self, drafter: str, folder: str | None = None, **changes: Any) -> list[Result]:
        """By SGLang; ``folder`` is the drafter's, if it is not named like it."""
        return self._measure(self.sglang, drafter, folder, changes)

    def expected(self, drafter: str, folder: str | None = None) -> list[Result]:
        """By the torch engine."""
        key = drafter, folder
        if key not in self._expected:
            self._expected[key] = self._measure(self._torch, drafter, folder, {})
        return self._expected[key]

    def _measure(self, engine: Any, drafter: str, folder: str | None, changes: dict[str, Any]) -> list[Result]:
        tree = None if drafter == "vanilla" else TREE
        changes = self._changes | changes
        cells = [self.place.cell(drafter, tree, benchmark=name, **changes) for name in self._benchmarks]
        assignment = self.place.assignment(cells, folder, EngineCapacity(8, 5, 4, 16, 200))
        found = dict(engine.measure(assignment, lambda: False))
        return [found[cell] for cell in cells]


@contextmanager
def engines_with_fake_graphs(
    parents: pytest.TempPathFactory, benchmarks: tuple[str, ...] = tuple(QUESTIONS), **changes: Any
) -> Iterator[Engines]:
    """Meanwhile, SGLang's processes find the plugin."""
    folder = parents.mktemp("graphs")
    information = folder / "fake_graph-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-graph\nVersion: 0\n")
    (information / "entry_points.txt").write_text("[sglang.srt.plugins]\nfake-graph = fake_graph.plugin:register\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[1])]))
        patch.setenv(VARIABLE, str(folder))
        engines = Engines(make_place(parents.mktemp("models")), folder, benchmarks, changes)
        try:
            yield engines
        finally:
            engines.sglang.close()


def make_near(place: Place) -> str:
    """The name of a new drafter's folder: modules 0, 1 and 2 at steps 0, 1 and the rest, each nearly the target.

    Its drafts are often right at every depth, and depend on keys and values of the drafts before them.
    """
    torch.manual_seed(3)
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    drafter = Drafter(DrafterConfig("eagle", TARGET, 3, (0, 1, 2)), target)
    for module in drafter.modules_:
        _imitate(module, target)
    return save(place.folder / "near", drafter).name


@torch.no_grad()
def _imitate(module: Any, target: Llama) -> None:
    """Give a module the target's layers, with noise: it reads the embedding, and a little of the hidden state.

    A drafter has no final norm. Its layers write as much less as that norm would take away, or probabilities would be
    so near to 1 that the order of drafts is a matter of rounding.
    """
    texts = written_by(target, 24, 32)
    _, last = target(texts, torch.arange(texts.shape[1])[None], aux_hidden_layers=(TARGET.num_hidden_layers,))
    scale = 1 / last.pow(2).mean(-1).sqrt().mean()
    size = TARGET.hidden_size
    module.fusion.bias.zero_()
    module.fusion.weight.copy_(scale * torch.cat([torch.eye(size), 0.1 * torch.randn(size, size)], dim=1))
    for name, parameter in module.layers.named_parameters():
        value = target.get_parameter(f"layers.{name}")
        parameter.copy_(value + 0.1 * value.std() * torch.randn_like(value) if value.dim() > 1 else value)
        if name.endswith(("attention.o.weight", "mlp.down.weight")):
            parameter *= scale
    module.layers[0].attention.qkv.weight /= scale  # there is no norm in front of it


def written(results: list[Result]) -> list[list[str]]:
    return [[sample.output_sha256 for sample in result.samples] for result in results]


def rounds(results: list[Result]) -> list[list[tuple[int, ...]]]:
    return [[sample.histogram for sample in result.samples] for result in results]


def check_graphs(report: Report, results: list[Result], batches: tuple[int, ...]) -> None:
    """Graphs of these batches drafted every round of every request, and nothing in them waits."""
    assert set(report.captured) == {(kind, batch) for kind in ("draft", "extend") for batch in batches}
    assert min(report.captured.values()) > 0
    assert report.waits == []
    happened = sum(sample.rounds for result in results for sample in result.samples)
    assert report.trees.total() == happened
    for kind in ("draft", "extend"):
        replays = {(batch, graph): count for (of, batch, graph), count in report.replays.items() if of == kind}
        assert sum(batch * count for (batch, _), count in replays.items()) == happened
        assert all(graph == min(size for size in batches if size >= batch) for batch, graph in replays)


def padded(report: Report) -> set[tuple[str, int]]:
    """Kinds and batches of the graphs that were replayed for a smaller batch."""
    return {(kind, graph) for kind, batch, graph in report.replays if batch < graph}
