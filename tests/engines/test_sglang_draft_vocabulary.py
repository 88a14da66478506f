"""Drafters that draft among some of the target's tokens: the same rounds by SGLang with the plugin and by torch."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from importlib import metadata

import pytest
import torch
from fitted import make_drafter, written
from sglang_prism.sglang_models import DRAFTERS, QUESTIONS, Place, altered, make_place, save

from prism_ae.cells import Result
from prism_ae.engines.protocol import Engine
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.checkpoints import load_target

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, or the plugin's entry point, is not installed",
    ),
]

FIT, SIZE = 30, 24
KINDS = ("eagle2", "prism", "prism_star")
"""The last one runs in SGLang's branch for EAGLE-3, the others do not."""


@dataclasses.dataclass
class Engines:
    place: Place
    sglang: SGLangEngine
    torch: TorchEngine

    def measure(self, engine: Engine, kind: str, folder: str) -> list[Result]:
        return self.place.measure(engine, [self.place.cell(kind, "4,3,10", benchmark=one) for one in QUESTIONS], folder)


def outcome(results: list[Result]) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    """Text and accepted drafts, round for round."""
    assert not any(sample.problem() for result in results for sample in result.samples)
    return [(sample.output_sha256, sample.accepted) for result in results for sample in result.samples]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    place = make_place(tmp_path_factory.mktemp("models"), fit=FIT)
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    texts = written(target, 24, 32)
    for kind in KINDS:
        config = dataclasses.replace(DRAFTERS[kind], draft_vocab_size=SIZE)
        save(place.folder / f"{kind}-part", make_drafter(config, target, texts, FIT))
        other = torch.randperm(target.config.vocab_size)[:SIZE].sort().values
        altered(
            place.folder / f"{kind}-part",
            place.folder / f"{kind}-other",
            lambda state, ids=other: state.update(draft_ids=ids),
        )
    found = Engines(
        place, SGLangEngine(place.suite, place.folder, "cpu", 1), TorchEngine(place.suite, place.folder, "cpu", 1)
    )
    yield found
    found.sglang.close()


@pytest.mark.parametrize("kind", KINDS)
def test_sglang_drafts_what_the_torch_engine_does(engines: Engines, kind: str) -> None:
    """The second drafter is swapped in by its weights: it brings other ids, and other rows of the head."""
    vanilla = [text for text, _ in outcome(engines.place.measure(
        engines.torch, [engines.place.cell("vanilla", None, benchmark=one) for one in QUESTIONS]))]  # fmt: skip
    found = {}
    for name in ("part", "other", "part"):
        folder = f"{kind}-{name}"
        results = engines.measure(engines.sglang, kind, folder)
        found[name] = outcome(results)
        assert found[name] == outcome(engines.measure(engines.torch, kind, folder))
        assert [text for text, _ in found[name]] == vanilla
        accepted = [sum(counts) for counts in zip(*(s.histogram for r in results for s in r.samples), strict=True)]
        assert sum(accepted[2:]) > 0  # several steps of drafting had something to do with it
    assert found["part"] != found["other"]  # a swap that kept the ids would be seen
