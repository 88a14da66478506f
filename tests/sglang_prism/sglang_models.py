"""A folder of tiny random models that accept each other's drafts by chance, and cells to measure them with.

The target's hidden state is mostly its last token's embedding, and the drafters' fusion layers pass that embedding on:
so drafts are often, but not always, right, without training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fitted import FIT, make_drafter, make_small, scale_layers, written
from tokenizers import Tokenizer, decoders, models
from torch import Tensor

from prism_ae.cells import Cell, Fingerprints, Point, Result, TreeShape
from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.engines.protocol import Assignment, Engine, EngineCapacity
from prism_ae.models.checkpoints import save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Benchmark, Suite

LETTERS = "abcdefghijklmnopqrstuvwxyz "
TARGET = LlamaConfig(len(LETTERS) + 3, 32, 48, 4, 4, 2, 1e-5, 10000.0, 256)
LAYER = dataclasses.replace(TARGET, num_hidden_layers=1)
DRAFTERS = {
    "eagle2": DrafterConfig("eagle", LAYER),
    "prism": DrafterConfig("eagle", LAYER, 2, (0, 1)),
    "prism_star": DrafterConfig("eagle", LAYER, 2, (0, 1), (1, 2, 3)),
    "eagle3": DrafterConfig("eagle3", LAYER, 1, (0,), (1, 2, 3), 24),
    "hass2": DrafterConfig("eagle", dataclasses.replace(TARGET, num_hidden_layers=2)),
}
"""The suite's names of drafters -> what they are here."""

QUESTIONS = {
    "talk": [["ab", "cd"], ["e f", "g"], ["h", "ij k"], ["lmn", "o"]],
    "one": [["lm"], ["n"], ["o p q"], ["r"], ["stuv w"], ["xyz"], ["a quick fox"], ["jumps"]],
}
CAPACITY = EngineCapacity(64, 6, 5, 24, 200)
"""One start of an engine serves every test."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with a suite of random models: ``target``, and a folder per drafter."""

    suite: Suite
    folder: Path

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def cell(self, drafter: str, tree: str | None, **changes: Any) -> Cell:
        """A cell; ``changes`` are fields of `Point`."""
        point = Point(
            suite="mini",
            target="mini-llama-2",
            drafter=drafter,
            scale=None,
            benchmark="one",
            temperature=0.0,
            tree=TreeShape.parse(tree) if tree else None,
            engine="sglang",
            batch=None,
            questions=8,
            max_new_tokens=32,
            max_length=200,
            seed=1,
            dtype="float32",
        )
        point = dataclasses.replace(point, **changes)
        count = min(point.questions, len(QUESTIONS[point.benchmark]))
        return Cell(dataclasses.replace(point, questions=count), Fingerprints("t", "d", "p", "e", "v"))

    def assignment(
        self, cells: Sequence[Cell], folder: str | None = None, capacity: EngineCapacity = CAPACITY
    ) -> Assignment:
        """For cells of one drafter and tree; ``folder`` is the drafter's, if it is not named like it."""
        point = cells[0].point
        drafter = None if point.drafter == "vanilla" else self.folder / (folder or point.drafter)
        if point.drafter == "vanilla":
            capacity = dataclasses.replace(capacity, max_steps=0, max_branch=0, max_verified=0)
        return Assignment(tuple(cells), self.target, drafter, (), capacity)

    def measure(self, engine: Engine, cells: Sequence[Cell], folder: str | None = None) -> list[Result]:
        """The results in the order of the cells."""
        found = dict(engine.measure(self.assignment(cells, folder), lambda: False))
        return [found[cell] for cell in cells]


def make_place(folder: Path, fit: int = FIT) -> Place:
    """Write the models and questions into ``folder``; drafters are fitted in ``fit`` steps."""
    benchmarks = {name: Benchmark(name, name, len(asked[0]), f"{name}.jsonl") for name, asked in QUESTIONS.items()}
    (folder / "benchmarks").mkdir()
    for name, asked in QUESTIONS.items():
        lines = [json.dumps({"question_id": n, "turns": turns}) for n, turns in enumerate(asked)]
        (folder / "benchmarks" / f"{name}.jsonl").write_text("\n".join(lines))
    torch.manual_seed(0)
    target = Llama(TARGET)
    scale_layers(target, 2.2)
    order = torch.randperm(TARGET.vocab_size - 1) + 1
    with torch.no_grad():
        target.embedding.weight.normal_()
        target.head.weight.normal_()
        # A letter's likeliest successor is the next in a random order: no letter repeats itself.
        target.head.weight[order.roll(-1)] += target.embedding.weight[order]
        target.head.weight[2] *= 0.8  # answers should end, but not soon
    save_model(folder / "target", target)
    texts = written(target, 24, 32)
    for name, config in DRAFTERS.items():
        save(folder / name, make_drafter(config, target, texts, fit))
    save_model(folder / "standard", make_small(target, layers=2))
    return Place(dataclasses.replace(load_suite("mini"), benchmarks=benchmarks), folder)


def save_model(folder: Path, model: Llama) -> None:
    """A target, or a small model, with a tokenizer of letters; what is no letter is one unknown token."""
    vocabulary = {letter: number for number, letter in enumerate(["<unk>", "<s>", "</s>", *LETTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir()
    save_target(folder, model, {"bos_token_id": 1, "eos_token_id": 2})
    tokenizer.save(str(folder / "tokenizer.json"))


def save(folder: Path, drafter: Drafter) -> Path:
    folder.mkdir()
    save_drafter(folder, drafter)
    return folder


def altered(source: Path, folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of a drafter's folder whose tensors were changed."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    state = load_file(source / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder
