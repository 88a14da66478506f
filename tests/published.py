"""Writes a drafter in each layout that the authors published, as their own code would save it.

Names and configs are spelled out here, apart from the records that read them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prism_ae.drafters.checkpoint import parameter_names, save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, published_state

State = dict[str, Tensor]

CAPTURE = (1, 2, 3)

TARGET = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=64,
)  # fmt: skip
_ONE = dataclasses.replace(TARGET, num_hidden_layers=1)
_TWO = dataclasses.replace(TARGET, num_hidden_layers=2)

DRAFTERS = {
    "eagle2": DrafterConfig("eagle", _ONE),
    "hass2": DrafterConfig("eagle", _TWO),
    "prism": DrafterConfig("eagle", _ONE, 2, (0, 1)),
    "prism_star": DrafterConfig("eagle", _ONE, 2, (0, 1), CAPTURE),
    "prism3": DrafterConfig("eagle", _ONE, 3, (0, 1, 2)),
    "eagle3": DrafterConfig(
        "eagle3", dataclasses.replace(_ONE, rope_theta=10000.0), aux_hidden_layers=CAPTURE, draft_vocab_size=24
    ),
}


def make_target() -> Llama:
    torch.manual_seed(0)
    return Llama(TARGET).eval().requires_grad_(False)


def make_drafter(kind: str, target: Llama) -> Drafter:
    torch.manual_seed(1)
    drafter = Drafter(DRAFTERS[kind], target).eval().requires_grad_(False)
    for parameter in drafter.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # norms and biases too: nothing keeps its initial value
    if kind == "eagle3":
        drafter.draft_ids = torch.randperm(TARGET.vocab_size)[:24].sort().values
    return drafter


def _own_state(drafter: Drafter) -> State:
    return published_state(drafter, parameter_names(drafter.config), drafter.config.layer)


def _llama_fields(config: LlamaConfig) -> dict[str, Any]:
    """As in the authors' configs, which name the old way of everything."""
    fields = dataclasses.asdict(config)
    return fields | {"model_type": "llama", "hidden_act": "silu", "torch_dtype": "float16", "rope_scaling": None}


def _embedding(drafter: Drafter) -> Tensor:
    return drafter._shared[0].weight.clone()


def large_drafter(drafter: Drafter) -> tuple[dict[str, Any], State]:
    """The torch code's: with the embedding, and the first module once more under alias names."""
    config, state = drafter.config, {"embed_tokens.weight": _embedding(drafter)}
    for name, tensor in _own_state(drafter).items():
        if name.startswith("entry."):
            state[f"fusion_layer.{name.removeprefix('entry.')}"] = tensor
            continue
        _, module, part, rest = name.split(".", 3)
        if part == "fusion":
            state[f"stepFCs.{module}.{rest}"] = tensor
            if module == "0":
                state[f"fc.{rest}"] = tensor.clone()
        else:
            layer, leaf = rest.split(".", 1)
            state[f"stepModels.{module}.{layer}.{leaf}"] = tensor
            if module == "0":
                state[f"layers.{layer}.{leaf}"] = tensor.clone()
    steps = max(3, config.modules)  # HASS trains three forwards through its one module
    data = {
        "eagle_config": _llama_fields(config.layer) | {"architectures": ["LlamaForCausalLM"], "bias": False},
        "num_steps": steps,
        "num_step_models": config.modules,
        "step_mapping": {str(step): config.module_of(step) for step in range(steps)},
        "use_adapter": False,
    }
    return data, state


def authors_eagle3(drafter: Drafter) -> tuple[dict[str, Any], State]:
    """With the RoPE base in the config that the authors put beside it, which is not the one it is trained with."""
    data, state = eagle3(drafter)
    return data | {"rope_theta": 500000.0}, state


def eagle3(drafter: Drafter) -> tuple[dict[str, Any], State]:
    """As others publish it, too: their configs say the base it is trained with."""
    config, own = drafter.config, _own_state(drafter)
    assert config.draft_vocab_size is not None
    state = {"fc.weight": own.pop("entry.weight"), "norm.weight": own.pop("norm.weight")}
    state["lm_head.weight"] = own.pop("head.weight")
    state["midlayer.input_layernorm.weight"] = own.pop("modules.0.embedding_norm.weight")
    state |= {f"midlayer.{name.removeprefix('modules.0.')}": tensor for name, tensor in own.items()}
    ids = drafter.draft_ids.tolist()
    state["d2t"] = torch.tensor([token - place for place, token in enumerate(ids)])
    state["t2d"] = torch.tensor([token in ids for token in range(config.layer.vocab_size)])
    data = _llama_fields(config.layer) | {"architectures": ["LlamaForCausalLM"], "bias": False}
    return data | {"draft_vocab_size": config.draft_vocab_size}, state


def sglang_modules(drafter: Drafter) -> tuple[dict[str, Any], State]:
    """What the authors' fork of SGLang serves as LD or PRISM."""
    state: State = {"lm_head.weight": drafter._shared[1].weight.clone()}
    for name, tensor in _own_state(drafter).items():
        if name.startswith("entry."):
            state[name.replace("entry.", "fusion_layer.")] = tensor
        elif ".fusion." in name:
            _, module, _, rest = name.split(".", 3)
            state[f"fc{module}.{rest}"] = tensor
        else:
            _, module, _, _, rest = name.split(".", 4)
            state[f"midlayer.{module}.{rest}"] = tensor
    architecture = "LlamaForCausalLMPRISM" if drafter.config.aux_hidden_layers else "LlamaForCausalLMLD"
    return _llama_fields(drafter.config.layer) | {"architectures": [architecture]}, state


def sglang_eagle(drafter: Drafter) -> tuple[dict[str, Any], State]:
    """What SGLang serves as EAGLE; its config in the newer way: rope_parameters."""
    state: State = {"embed_tokens.weight": _embedding(drafter)}
    for name, tensor in _own_state(drafter).items():
        rest = name.removeprefix("modules.0.")
        state[rest.replace("fusion.", "fc.")] = tensor
    data = _llama_fields(drafter.config.layer) | {"architectures": ["LlamaForCausalLMEagle"]}
    data["rope_parameters"] = {"rope_type": "default", "rope_theta": data.pop("rope_theta")}
    return data, state


Writer = Callable[[Drafter], tuple[dict[str, Any], State]]

WRITERS: dict[str, tuple[str, Writer]] = {
    "torch eagle2": ("eagle2", large_drafter),
    "torch hass2": ("hass2", large_drafter),
    "torch prism": ("prism", large_drafter),
    "torch prism_star": ("prism_star", large_drafter),
    "torch prism3": ("prism3", large_drafter),
    "torch eagle3": ("eagle3", eagle3),
    "sglang prism": ("prism", sglang_modules),
    "sglang prism_star": ("prism_star", sglang_modules),
    "sglang eagle2": ("eagle2", sglang_eagle),
    "sglang hass2": ("hass2", sglang_eagle),
}
"""Case -> kind of drafter, and what writes it."""


AUTHORS_PLACE = Path("Llama-3-8B-drafter") / "Eagle3-800k"
"""By which the authors' EAGLE-3 is known."""


def write(folder: Path, case: str, drafter: Drafter) -> None:
    """A checkpoint folder in one safetensors file; case "own <kind>" is the project's own layout."""
    folder.mkdir(exist_ok=True, parents=True)
    if case.startswith("own "):
        save_drafter(folder, drafter)
        return
    data, state = WRITERS[case][1](drafter)
    (folder / "config.json").write_text(json.dumps(data))
    save_file(state, folder / "model.safetensors")


def read_state(folder: Path) -> State:
    return load_file(folder / "model.safetensors")


def write_state(folder: Path, state: State) -> None:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let ``change`` edit config.json's content, as a dict."""
    file = folder / "config.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def repack(folder: Path, form: str) -> None:
    """Put the same tensors into other files: "pickled", "shards" or "pickled shards"."""
    state = read_state(folder)
    (folder / "model.safetensors").unlink()
    if form == "pickled":
        torch.save(state, folder / "pytorch_model.bin")
        return
    stem, suffix = ("pytorch_model", "bin") if form == "pickled shards" else ("model", "safetensors")
    names, weight_map = sorted(state), {}
    for number in range(3):
        shard = f"{stem}-{number + 1:05d}-of-00003.{suffix}"
        part = {name: state[name] for name in names[number::3]}
        torch.save(part, folder / shard) if suffix == "bin" else save_file(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
