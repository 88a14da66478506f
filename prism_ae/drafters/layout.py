"""How a drafter's checkpoint maps to its parameters: the project's own layout.

``config.json`` is a `DrafterConfig` as JSON with ``"format": "prism-ae-drafter-1"``; ``model.safetensors`` holds, per
module m and layer l, ``modules.{m}.layers.{l}.<Llama layer names>``, ``modules.{m}.fusion.{weight,bias}``, and
``entry.*`` (PRISM*: 3H -> H with bias; EAGLE-3: without). EAGLE-3 has ``modules.0.{embedding_norm,hidden_norm,…}``,
``norm``, ``head`` and ``draft_ids`` (int64). Embedding and shared head are never stored.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.checkpoints import WEIGHTS, check_published, read_json, read_weights, write_weights
from prism_ae.drafters.model import Drafter, DrafterConfig
from prism_ae.errors import CheckpointError
from prism_ae.llama import LAYER_NAMES, Llama, LlamaConfig, cast_parameters, join_fused, load_strictly, published_state

if TYPE_CHECKING:
    import torch

FORMAT = "prism-ae-drafter-1"
DRAFT_IDS = "draft_ids"


def parameter_names(config: DrafterConfig) -> dict[str, str]:
    """Parameter of `Drafter` -> stored name (fused names kept)."""
    names: dict[str, str] = {}
    for module in range(config.modules):
        ours, stored = f"modules_.{module}", f"modules.{module}"
        if config.cell == "eagle3":
            for part in ("embedding_norm.weight", "hidden_norm.weight"):
                names[f"{ours}.{part}"] = f"{stored}.{part}"
            for part, published in LAYER_NAMES.items():
                if part != "input_norm.weight":
                    names[f"{ours}.{part}"] = f"{stored}.{published}"
            continue
        for part in ("fusion.weight", "fusion.bias"):
            names[f"{ours}.{part}"] = f"{stored}.{part}"
        for layer in range(config.layer.num_hidden_layers):
            for part, published in LAYER_NAMES.items():
                if layer or part != "input_norm.weight":
                    names[f"{ours}.layers.{layer}.{part}"] = f"{stored}.layers.{layer}.{published}"
    if config.capture:
        names["entry.weight"] = "entry.weight"
        if config.cell == "eagle":
            names["entry.bias"] = "entry.bias"
    if config.cell == "eagle3":
        names |= {"norm.weight": "norm.weight", "own_head.weight": "head.weight"}
    return names


def save_drafter(folder: Path, drafter: Drafter) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
    config = drafter.config
    data = {"format": FORMAT, **dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(data, indent=1) + "\n")
    state = published_state(drafter, parameter_names(config), config.layer)
    if config.cell == "eagle3":
        state[DRAFT_IDS] = drafter.draft_ids.cpu().contiguous()
    write_weights(folder, state)


def read_config(folder: Path) -> DrafterConfig:
    """The drafter's sizes; raises MissingError or CheckpointError."""
    where = folder / "config.json"
    data = read_json(where)
    if data.pop("format", None) != FORMAT:
        raise CheckpointError(f"{where}: format is not '{FORMAT}'", "so far only this project's own layout is read")
    try:
        data["layer"] = LlamaConfig(**data["layer"])
        data["step_mapping"] = tuple(data["step_mapping"])
        data["capture"] = tuple(data["capture"])
        return DrafterConfig(**data)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def load_drafter(folder: Path, target: Llama, dtype: torch.dtype, device: torch.device) -> Drafter:
    """A drafter for ``target``, frozen, in evaluation mode; raises MissingError or CheckpointError."""
    import torch

    check_published(folder)
    config, where = read_config(folder), str(folder / WEIGHTS)
    try:
        drafter = Drafter(config, target)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}", "this drafter belongs to another target") from error
    cast_parameters(drafter, dtype)
    state = read_weights(folder)
    if config.cell == "eagle3":
        ids = state.pop(DRAFT_IDS, None)
        if ids is None:
            raise CheckpointError(f"{where}: tensor '{DRAFT_IDS}' is missing")
        if ids.dtype != torch.int64 or ids.shape != drafter.draft_ids.shape:
            raise CheckpointError(
                f"{where}: '{DRAFT_IDS}' is {ids.dtype} {list(ids.shape)}, expected int64 "
                f"{list(drafter.draft_ids.shape)}"
            )
        if ids.min() < 0 or ids.max() >= target.config.vocab_size or len(ids.unique()) != len(ids):
            raise CheckpointError(f"{where}: '{DRAFT_IDS}' are not distinct token ids of the target")
        drafter.draft_ids = ids
    load_strictly(drafter, join_fused(state, config.layer, where), parameter_names(config), where)
    return drafter.to(device).eval().requires_grad_(False)
