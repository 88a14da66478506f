"""Converted EAGLE-2, HASS and EAGLE-3 in stock SGLang: its own algorithms and model classes, on the folder as it is.

On a CPU SGLang drafts only with this project's stand-ins and corrections, which the plugin brings into every SGLang;
draft models, the draft loop and how weights are loaded are SGLang's own here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
import torch
from fitted import make_drafter, written
from sglang_prism.sglang_models import DRAFTERS, QUESTIONS, Place, make_place, save

from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.write import in_layout, layout_for, write_files
from prism_ae.engines.protocol import Engine
from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.checkpoints import load_target
from prism_ae.models.weights import TOKEN_MAP

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sglang") is None
    or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
    reason="SGLang, or the plugin's entry point, is not installed",
)

CHAIN, TREE = "3,1,4", "5,4,16"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("models"))


@contextlib.contextmanager
def stock_engine(place: Place, algorithm: str, **more: Any) -> Iterator[SGLangEngine]:
    """One that takes nothing of the plugin but what a CPU needs; ``more`` are SGLang's options."""
    options = sglang_engine.engine_options
    with pytest.MonkeyPatch.context() as patch:
        # As for a separate model: no drafter of the plugin's is looked for.
        patch.setattr(sglang_engine, "_architecture", lambda pair: "standard")
        patch.setattr(
            sglang_engine, "engine_options", lambda setup: options(setup) | {"speculative_algorithm": algorithm} | more
        )
        with contextlib.closing(SGLangEngine(place.suite, place.folder, "cpu", 1)) as engine:
            yield engine


def outcome(place: Place, engine: Engine, kind: str, tree: str, folder: str, algorithm: str) -> list[Any]:
    """Text and accepted drafts of every request, in stock drafting."""
    cells = [place.cell(kind, tree, benchmark=name, drafting="stock") for name in QUESTIONS]
    results = place.measure(engine, cells, folder)
    assert {result.settings.to_json().get("algorithm", "") for result in results} == {algorithm}
    return [(sample.output_sha256, sample.histogram) for result in results for sample in result.samples]


@pytest.mark.parametrize(
    ("kind", "algorithm", "ours"),
    [
        ("eagle2", "EAGLE", "PRISM"),
        pytest.param("hass2", "EAGLE", "PRISM", marks=pytest.mark.heavy),
        ("eagle3", "EAGLE3", "PRISM_CAPTURED"),
    ],
)
def test_stock_sglang_has_the_rounds_of_this_project(place: Place, kind: str, algorithm: str, ours: str) -> None:
    """The plugin's rounds in stock drafting on the folder before it was converted, and in a chain, where stock drafting
    is exact, the torch engine's."""
    served = place.folder / f"{kind}-served"
    stored = read_drafter(place.folder / kind, None)
    served.mkdir()
    write_files(served, *in_layout(stored.config, stored.state, layout_for("sglang", stored.config), kind))

    with stock_engine(place, algorithm) as engine:
        chain, tree = (outcome(place, engine, kind, shape, served.name, algorithm) for shape in (CHAIN, TREE))
    with contextlib.closing(SGLangEngine(place.suite, place.folder, "cpu", 1)) as engine:
        assert tree == outcome(place, engine, kind, TREE, kind, ours)
    assert chain == outcome(place, TorchEngine(place.suite, place.folder, "cpu", 1), kind, CHAIN, kind, "")
    for rounds in (chain, tree):
        assert sum(sum(histogram[2:]) for _, histogram in rounds) > 0  # several steps had something to do with it


@pytest.mark.heavy
def test_stock_sglang_reads_a_draft_vocabulary(place: Place) -> None:
    """With the file beside the converted drafter it has the torch engine's rounds, without it others."""
    config = dataclasses.replace(DRAFTERS["eagle2"], draft_vocab_size=20)
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    own = save(place.folder / "eagle2-part", make_drafter(config, target, written(target, 24, 32)))
    served = place.folder / "eagle2-part-served"
    stored = read_drafter(own, None)
    served.mkdir()
    write_files(served, *in_layout(stored.config, stored.state, layout_for("sglang", stored.config), "it"))
    expected = outcome(place, TorchEngine(place.suite, place.folder, "cpu", 1), "eagle2", CHAIN, own.name, "")
    found = []
    for options in ({"speculative_token_map": str(served / TOKEN_MAP)}, {}):
        with stock_engine(place, "EAGLE", **options) as engine:
            found.append(outcome(place, engine, "eagle2", CHAIN, served.name, "EAGLE"))
    assert found[0] == expected != found[1]
    assert [text for text, _ in found[0]] == [text for text, _ in found[1]]
