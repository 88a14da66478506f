"""A drafter in another layout: the config.json and the tensors that say the same. Pure, but for `write_files`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.drafters.layouts import table
from prism_ae.drafters.layouts.records import DRAFT_IDS, MASK
from prism_ae.drafters.layouts.token_map import write_token_map
from prism_ae.errors import CheckpointError, UsageError
from prism_ae.models.weights import TOKEN_MAP, write_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prism_ae.drafters.config import DrafterConfig

FORMS = {
    "sglang": "what SGLang serves",
    "huggingface": "what the authors' torch code reads",
    "own": "this project's own layout",
}
"""What can be written -> what it is; which layout that is depends on the drafter (`layout_for`)."""


def layout_for(form: str, config: DrafterConfig) -> table.Layout:
    """The layout of a form for this drafter; raises KeyError for a form that does not exist."""
    if config.cell == "eagle3":
        return {"sglang": table.SGLANG_EAGLE3, "huggingface": table.EAGLE3, "own": table.OWN}[form]
    served = table.SGLANG_PRISM if config.aux_hidden_layers else table.SGLANG_LD
    if config.modules == 1 and not config.aux_hidden_layers:
        served = table.SGLANG_EAGLE
    return {"sglang": served, "huggingface": table.LARGE_DRAFTER, "own": table.OWN}[form]


def in_layout(
    config: DrafterConfig,
    state: Mapping[str, Tensor],
    layout: table.Layout,
    where: str,
    embedding: Tensor | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A drafter as a layout says it.

    Args:
        config, state: of the drafter, complete; stored name -> tensor, as in `records.StoredDrafter`.
        layout: to write in.
        where: the drafter's folder, for messages.
        embedding: the target's [V, H], for a layout that says where it is (``layout.embedding``).

    Returns:
        config.json, and name in the file -> tensor: copies that share no memory, contiguous. The embedding is among
        them where it is given, in the dtype that the config names.

    Raises:
        UsageError: the layout cannot say it, or its readers would do something else.
        CheckpointError: the embedding has values too large for the drafter's dtype.
        ValueError: the layout needs an embedding and none is given, or the reverse.
    """
    if embedding is None and layout.embedding == "required":
        raise ValueError(f"the layout {layout.name} needs the target's embedding")
    if embedding is not None and not layout.embedding:
        raise ValueError(f"the layout {layout.name} has no place for an embedding")
    try:
        dtype = _dtype_name(state)
        data = layout.describe(config, dtype)
        tensors = {layout.published(name): tensor for name, tensor in state.items()}
        if layout.offsets:
            name = layout.published(DRAFT_IDS)
            tensors[name], tensors[MASK] = _offsets(state[DRAFT_IDS], config.layer.vocab_size)
    except ValueError as error:
        hint = "--to own takes every drafter, and this project's plugin for SGLang serves it from there"
        raise UsageError(f"{where} cannot be written in the layout {layout.name}: {error}", hint) from error
    import torch

    if embedding is not None:
        tensors |= cast({table.EMBEDDING: embedding}, getattr(torch, dtype), where)
        if layout.embedding == "optional":
            data["target_hidden_size"] = config.layer.hidden_size  # by this key its readers look for it in the folder
    return data, {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def cast(state: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """Weights in another dtype, rounded to the nearest; token ids stay. CheckpointError where one becomes infinite."""
    changed = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in changed.items():
        if (tensor.isinf() & ~state[name].isinf()).any():
            to = str(dtype).removeprefix("torch.")
            raise CheckpointError(f"{where}: '{name}' has values too large for {to}", "choose bfloat16 or float32")
    return changed


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raises CheckpointError for weights that are no numbers: whoever reads them would draft anything."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{where}: '{name}' has values that are not finite", "its training went wrong")


def write_files(folder: Path, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write ``config.json``, ``model.safetensors``, and the ids of a `TOKEN_MAP`, into an existing folder.

    Raises StoreError where it cannot.
    """
    (folder / "config.json").write_text(json.dumps(data, indent=1) + "\n")
    if TOKEN_MAP in tensors:
        write_token_map(folder / TOKEN_MAP, tensors[TOKEN_MAP])
    write_weights(folder, {name: tensor for name, tensor in tensors.items() if name != TOKEN_MAP})


def _dtype_name(state: Mapping[str, Tensor]) -> str:
    """The dtype that holds every weight without rounding: "float16", "bfloat16" or "float32"."""
    import torch

    dtypes = [tensor.dtype for tensor in state.values() if tensor.is_floating_point()]
    return str(functools.reduce(torch.promote_types, dtypes)).removeprefix("torch.")


def _offsets(ids: Tensor, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Token ids [draft_vocab] as distance from their place, int64, and as a mask, bool [V]."""
    import torch

    if not torch.equal(ids, ids.sort().values):
        raise ValueError("its draft vocabulary is not in ascending order")
    mask = torch.zeros(vocab_size, dtype=torch.bool)
    mask[ids] = True
    return ids - torch.arange(len(ids)), mask
