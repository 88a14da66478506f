"""Stock SGLang's own loader on converted folders: every tensor arrives where it belongs, and a missing one is seen here
as it is not seen there."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from sglang_prism.sglang_models import DRAFTERS, TARGET, altered, save_model
from stand_in_process import needs_sglang, run

from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.records import StoredDrafter
from prism_ae.drafters.layouts.write import in_layout, layout_for, write_files
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import Llama

pytestmark = needs_sglang

CLASSES = {
    "eagle2": "sglang.srt.models.llama_eagle.LlamaForCausalLMEagle",
    "hass2": "sglang.srt.models.llama_eagle.LlamaForCausalLMEagle",
    "eagle3": "sglang.srt.models.llama_eagle3.LlamaForCausalLMEagle3",
}
TARGETS = {
    "eagle2": ["lm_head.weight", "model.embed_tokens.weight"],
    "hass2": ["lm_head.weight", "model.embed_tokens.weight"],
    "eagle3": ["model.embed_tokens.weight"],
}
"""Parameters that SGLang takes from the target once both are loaded."""

THETA = 5e5
"""Not what anybody takes where a config says nothing."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What SGLang made of each folder, and what was in the drafters."""

    found: dict[str, Any]
    stored: dict[str, StoredDrafter]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Of each drafter its folder, and "without": EAGLE-2's and EAGLE-3's with tensors that are missing."""
    place = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    target = Llama(TARGET)
    save_model(place / "target", target)
    folders, stored = {}, {}
    for kind in CLASSES:
        config = DRAFTERS[kind]
        config = dataclasses.replace(config, layer=dataclasses.replace(config.layer, rope_theta=THETA))
        drafter = Drafter(config, target)
        with torch.no_grad():
            for parameter in drafter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))  # norms too: nothing keeps its initial value
        if kind == "eagle3":
            drafter.draft_ids = torch.randperm(TARGET.vocab_size)[: config.draft_vocab_size].sort().values
        (place / kind).mkdir()
        save_drafter(place / kind, drafter)
        stored[kind] = read_drafter(place / kind, None)
        folders[kind] = place / f"{kind}-served"
        folders[kind].mkdir()
        layout = layout_for("sglang", config)
        write_files(folders[kind], *in_layout(config, stored[kind].state, layout, kind))
    without: dict[str, tuple[str, ...]] = {"eagle2": ("fc.bias",), "eagle3": ("d2t", "norm.weight")}
    for kind, names in without.items():
        folder = place / f"{kind}-without"
        folders[f"{kind} without"] = altered(
            folders[kind], folder, lambda state, names=names: [state.pop(name) for name in names]
        )
    asked = {"target": str(place / "target"), "drafters": {name: str(folder) for name, folder in folders.items()}}
    answer = run("stock_weights_oracle.py", json.dumps(asked)).splitlines()[-1]
    return Loaded(json.loads(answer), stored)


STACKED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
STACKED |= {"up_proj": "gate_up_proj"}
"""In this order SGLang puts several tensors into one."""

PREFIXES = {"fusion.": "fc.", "entry.": "fc.", "head.": "lm_head.", "embedding_norm.": "layers.0.input_layernorm."}


def parameter(stored: str) -> str:
    """SGLang's name of what is stored by this one."""
    name = stored.removeprefix("modules.0.")
    name = next((new + name.removeprefix(old) for old, new in PREFIXES.items() if name.startswith(old)), name)
    if not name.startswith(("fc.", "norm.", "lm_head.", "layers.")):
        name = f"layers.0.{name}"  # EAGLE-3's
    *where, part, kind = name.split(".")
    name = ".".join([*where, STACKED.get(part, part), kind])
    return name if name.startswith("lm_head.") else f"model.{name}"


def expected_marks(stored: StoredDrafter) -> dict[str, float]:
    """SGLang's parameter -> `stock_weights_oracle.mark` of what belongs there, in float16."""
    order = list(STACKED)
    parts: dict[str, list[torch.Tensor]] = {}
    names = [name for name in stored.state if name != "draft_ids"]
    for name in sorted(names, key=lambda name: order.index(part) if (part := name.split(".")[-2]) in order else -1):
        parts.setdefault(parameter(name), []).append(stored.state[name].half())
    return {name: mark(torch.cat(tensors)) for name, tensors in parts.items()}


def mark(tensor: torch.Tensor) -> float:
    flat = tensor.double().flatten()
    return float((flat * torch.arange(1, len(flat) + 1)).sum())


@pytest.mark.parametrize("kind", CLASSES)
def test_every_tensor_is_loaded_where_it_belongs(loaded: Loaded, kind: str) -> None:
    found = loaded.found[kind]
    assert found["class"] == CLASSES[kind]
    assert (found["left out"], found["unknown"]) == (TARGETS[kind], [])
    marks = {name: value for name, value in found["marks"].items() if name not in TARGETS[kind]}
    assert marks == pytest.approx(expected_marks(loaded.stored[kind]), rel=1e-9)
    assert found["dtype"] == "torch.float16"  # what SGLang makes of float32 where it is not told --dtype
    assert found["rope"] == [THETA]


def test_the_draft_vocabulary_is_the_drafters(loaded: Loaded) -> None:
    assert loaded.found["eagle3"]["draft ids"] == loaded.stored["eagle3"].state["draft_ids"].tolist()
    assert loaded.found["eagle2"]["draft ids"] is None


def test_a_missing_tensor_would_be_passed_over_in_silence(loaded: Loaded) -> None:
    """So it is this project that has to see to it that none is."""
    eagle2, eagle3 = loaded.found["eagle2 without"], loaded.found["eagle3 without"]
    assert eagle2["left out"] == sorted([*TARGETS["eagle2"], "model.fc.bias"])
    assert eagle3["left out"] == sorted([*TARGETS["eagle3"], "model.norm.weight"])
    assert eagle3["draft ids"] is None
    assert eagle2["unknown"] == eagle3["unknown"] == []
