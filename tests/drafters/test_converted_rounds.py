"""A converted drafter drafts the very same: the torch engine's rounds, there and on the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sglang_prism.sglang_models import QUESTIONS, Place, altered, make_place

from prism_ae.drafters.layouts.read import read_drafter, read_layout
from prism_ae.drafters.layouts.write import in_layout, layout_for, write_files
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.checkpoints import load_target

KINDS = ("eagle2", "hass2", "prism", "prism_star", "eagle3")
TREE = "5,4,16"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(place: Place) -> TorchEngine:
    return TorchEngine(place.suite, place.folder, "cpu", 1)


def rounds(place: Place, engine: TorchEngine, kind: str, folder: str) -> list[Any]:
    """Text and accepted drafts of every question."""
    cells = [place.cell(kind, TREE, benchmark=name, engine="torch") for name in QUESTIONS]
    results = place.measure(engine, cells, folder)
    return [(sample.output_sha256, sample.histogram) for result in results for sample in result.samples]


def converted(place: Place, source: str, form: str, out: str, embedded: bool = False) -> str:
    """The name of the folder that is written."""
    stored = read_drafter(place.folder / source, None)
    embedding = load_target(place.target, torch.float32, torch.device("cpu")).embedding.weight if embedded else None
    (place.folder / out).mkdir()
    layout = layout_for(form, stored.config)
    write_files(place.folder / out, *in_layout(stored.config, stored.state, layout, source, embedding))
    return out


def forms(kind: str) -> list[tuple[str, bool]]:
    """Form, and whether the target's embedding is written: for EAGLE-3 it may be."""
    found = [("own", False), ("sglang", False), ("huggingface", True)]
    return [*found, ("huggingface", False)] if kind == "eagle3" else found


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_drafts_the_same(place: Place, engine: TorchEngine, kind: str) -> None:
    own = rounds(place, engine, kind, kind)
    assert sum(sum(histogram[2:]) for _, histogram in own) > 0  # several steps had something to do with it
    for form, embedded in forms(kind):
        there = converted(place, kind, form, f"{kind}-{form}-{embedded}", embedded)
        assert rounds(place, engine, kind, there) == own
        back = converted(place, there, "own", f"{there}-back")
        assert read_layout(place.folder / back) == "prism-ae-drafter-1"
        assert rounds(place, engine, kind, back) == own


@pytest.mark.parametrize("kind", KINDS)
def test_another_drafter_would_be_noticed(place: Place, engine: TorchEngine, kind: str) -> None:
    """One tensor of the last module's is another, and the rounds are others."""

    def change(state: dict[str, torch.Tensor]) -> None:
        last = max(name for name in state if name.endswith("mlp.down_proj.weight"))
        state[last] *= -1

    there = converted(place, kind, "sglang", f"{kind}-right")
    other = altered(place.folder / there, place.folder / f"{kind}-wrong", change)
    assert rounds(place, engine, kind, other.name) != rounds(place, engine, kind, kind)
