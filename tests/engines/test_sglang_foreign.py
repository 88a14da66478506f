"""Others' drafters through SGLang: the same acceptance as by the torch engine, whatever their folder says."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from importlib import metadata
from typing import Any

import pytest
import torch
from fitted import make_drafter, written
from published import eagle3, sglang_eagle
from safetensors.torch import save_file
from sglang_prism.sglang_models import LAYER, Place, make_place, save
from torch import Tensor

from prism_ae.drafters.config import DrafterConfig
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.models.checkpoints import load_target
from prism_ae.models.config import Llama3Rope

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, or the plugin's entry point, is not installed",
    ),
]

FIT = 30


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With foreign folders beside its own: every one differs from them in what its config.json says."""
    place = make_place(tmp_path_factory.mktemp("models"), fit=FIT)
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    texts = written(target, 24, 32)

    def write(name: str, data: dict[str, Any], state: dict[str, Tensor]) -> None:
        folder = place.folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(data))
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")

    # Drafters of few positions' turns: at base 7 every position looks different from what base 10000 makes of it.
    layer = dataclasses.replace(LAYER, rope_theta=7.0)
    whole = make_drafter(DrafterConfig("eagle3", layer, 1, (0,), (1, 2, 3), LAYER.vocab_size), target, texts, FIT)
    data, state = eagle3(whole)
    del data["draft_vocab_size"], data["rope_theta"], state["d2t"], state["t2d"]
    data["architectures"] = ["LlamaForCausalLMEagle3"]
    data["rope_parameters"] = {"rope_type": "default", "rope_theta": 7.0}
    data["eagle_config"] = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
    write("eagle3-whole", data, state)

    plain = make_drafter(DrafterConfig("eagle", layer), target, texts, FIT)
    with torch.no_grad():
        plain.modules_[0].fusion.bias.zero_()
    data, state = sglang_eagle(plain)
    del state["fc.bias"]
    write("eagle-plain", data | {"architectures": ["LlamaForCausalLM"], "bias": False}, state)

    stretched = dataclasses.replace(layer, rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 16))
    save(place.folder / "stretched", make_drafter(DrafterConfig("eagle", stretched), target, texts, FIT))
    record = dataclasses.replace(place.suite.targets["mini-llama-2"], eagle3_capture=(1, 2, 3))
    return Place(dataclasses.replace(place.suite, targets={record.name: record}), place.folder)


@pytest.mark.parametrize(
    ("folder", "kind"), [("eagle3-whole", "eagle3"), ("eagle-plain", "eagle2"), ("stretched", "eagle2")]
)
def test_sglang_drafts_what_the_torch_engine_does(place: Place, folder: str, kind: str) -> None:
    cells = [place.cell(kind, "4,2,8", benchmark=name) for name in place.suite.benchmarks]
    expected = place.measure(TorchEngine(place.suite, place.folder, "cpu", 1), cells, folder)
    engine = SGLangEngine(place.suite, place.folder, "cpu", 1)
    try:
        found = place.measure(engine, cells, folder)
    finally:
        engine.close()
    samples, references = ([one for result in results for one in result.samples] for results in (found, expected))
    for one, other in zip(samples, references, strict=True):
        assert (one.output_sha256, one.histogram) == (other.output_sha256, other.histogram)
    assert sum(sum(sample.histogram[2:]) for sample in samples) > 0  # several steps had something to do with it
    for key in ("target_rope_theta", "drafter_rope_theta", "drafter_config_rope_theta"):
        assert found[0].settings.to_json()[key] == expected[0].settings.to_json()[key]
    assert found[0].settings.to_json()["drafter_rope_theta"] == 7.0


def test_the_base_is_part_of_what_is_measured(place: Place) -> None:
    """The same weights with another base are accepted otherwise: the comparison above would see a base that is lost."""
    folder = place.folder / "eagle3-10000"
    folder.mkdir()
    data = json.loads((place.folder / "eagle3-whole" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"rope_parameters": {"rope_theta": 10000.0}}))
    (folder / "model.safetensors").symlink_to(place.folder / "eagle3-whole" / "model.safetensors")
    cells = [place.cell("eagle3", "4,2,8", benchmark=name) for name in place.suite.benchmarks]
    found = [
        [sample.histogram for result in place.measure(TorchEngine(place.suite, place.folder, "cpu", 1), cells, name)
         for sample in result.samples]
        for name in ("eagle3-whole", "eagle3-10000")
    ]  # fmt: skip
    assert found[0] != found[1]
