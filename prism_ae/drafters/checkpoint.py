"""Drafters as checkpoints: written in the project's own layout, loaded from any that `layouts.table` knows.

The own layout: ``config.json`` is a `DrafterConfig` as JSON with ``"format": "prism-ae-drafter-1"``;
``model.safetensors`` holds the tensors by the names that `layouts.records` explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.records import DRAFT_IDS, TargetSizes
from prism_ae.drafters.layouts.table import OWN
from prism_ae.drafters.layouts.write import in_layout, write_files
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import LAYER_NAMES, Llama, fill, published_state, unfilled

if TYPE_CHECKING:
    import torch


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
    if config.aux_hidden_layers:
        names["hidden_proj.weight"] = "entry.weight"
        if config.cell == "eagle":
            names["hidden_proj.bias"] = "entry.bias"
    if config.cell == "eagle3":
        names |= {"norm.weight": "norm.weight", "own_head.weight": "head.weight"}
    return names


def save_drafter(folder: Path, drafter: Drafter) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
    config = drafter.config
    state = published_state(drafter, parameter_names(config), config.layer)
    if config.draft_vocab_size is not None:
        state[DRAFT_IDS] = drafter.draft_ids.cpu()
    write_files(folder, *in_layout(config, state, OWN, str(folder)))


def load_drafter(
    folder: Path,
    target: Llama,
    dtype: torch.dtype,
    device: torch.device,
    capture: Sequence[int] = (),
    *,
    rope_theta: float | None = None,
) -> Drafter:
    """A drafter for ``target``, frozen, in evaluation mode; other arguments and errors as `read_drafter`."""
    stored = read_drafter(folder, TargetSizes.of(target.config), capture, rope_theta)
    drafter = unfilled(lambda: Drafter(stored.config, target), dtype, device)
    if DRAFT_IDS in stored.state:
        drafter.draft_ids = stored.state.pop(DRAFT_IDS).to(device)
    fill(drafter, stored.state, parameter_names(stored.config), stored.config.layer)  # all of it was checked
    return drafter.eval().requires_grad_(requires_grad=False)
