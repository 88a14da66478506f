"""Reading a drafter's folder in any known layout, strictly: every tensor is used, known to be unused, or an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.drafters.layouts.configs import LAYER_IDS, NOTE, Given, check_sizes, is_authors_eagle3, said_capture
from prism_ae.drafters.layouts.records import DRAFT_IDS, MASK, StoredDrafter, TargetSizes, stored_shapes
from prism_ae.drafters.layouts.table import LAYOUTS, OWN, Layout
from prism_ae.drafters.layouts.token_map import read_token_map
from prism_ae.errors import CheckpointError
from prism_ae.models.checkpoints import check_published, read_json
from prism_ae.models.config import named_rope_theta
from prism_ae.models.weights import TOKEN_MAP, Weights, open_weights, refuse_quantised, require_floats

if TYPE_CHECKING:
    from torch import Tensor

    from prism_ae.drafters.config import DrafterConfig


def read_layout(folder: Path) -> str:
    """The name of the layout of a drafter's folder. Imports no torch (unless the weights are pickled).

    Raises:
        MissingError: config.json or weights are not there.
        CheckpointError: the layout is unknown.
    """
    return find_layout(read_json(folder / "config.json"), open_weights(folder).files, folder).name


def read_config(
    folder: Path, capture: Sequence[int] = (), rope_theta: float | None = None, sizes: TargetSizes | None = None
) -> DrafterConfig:
    """The sizes of a drafter; its tensors are not read (unless they are pickled).

    Args:
        folder: of the checkpoint.
        capture: hidden states of the target that are read at step 0 (numbering: `Llama.forward`); used where
            the drafter reads some and its layout does not say which.
        rope_theta: RoPE base to use instead of the one the drafter was trained with.
        sizes: of its target, where that is known; then a RoPE base that nobody names is refused as by `read_drafter`.

    Raises:
        MissingError: config.json or weights are not there.
        CheckpointError: the layout is unknown, or the folder is not what its layout says.
    """
    return _config(folder, open_weights(folder), sizes, capture, rope_theta, sizes_only=sizes is None)[0]


def read_drafter(
    folder: Path, sizes: TargetSizes | None, capture: Sequence[int] = (), rope_theta: float | None = None
) -> StoredDrafter:
    """A drafter for a target of these sizes, in stored names; arguments and errors as `read_config`.

    Without sizes it is read for whatever target it belongs to; then the RoPE base must be in its folder, or given.

    Every tensor in the folder is read: one that is missing, unexpected, of another shape or dtype than the config
    says, or made for another vocabulary is a CheckpointError that names it and its file.
    """
    check_published(folder)
    weights = open_weights(folder)
    config, layout, data = _config(folder, weights, sizes, capture, rope_theta)
    if sizes:
        check_target(config, sizes, folder)
    shapes = stored_shapes(config)
    names = {stored: layout.published(stored) for stored in shapes}
    required = {names[stored]: shape for stored, shape in shapes.items()}
    if layout.offsets:
        required[MASK] = (config.layer.vocab_size,)
    if absent := layout.absent(config, data, weights.files):
        required = {name: shape for name, shape in required.items() if name not in absent}
    unused = layout.unused(config)
    _check_names(weights, [name for name in required if name != TOKEN_MAP], unused)
    tensors = weights.read()
    if TOKEN_MAP in required:
        tensors[TOKEN_MAP] = read_token_map(folder / TOKEN_MAP)
        weights = dataclasses.replace(weights, files={**weights.files, TOKEN_MAP: folder / TOKEN_MAP})
    for name, tensor in tensors.items():
        expected = required.get(name) or unused[name]
        if tuple(tensor.shape) != expected:
            raise CheckpointError(
                f"{weights.where(name)}: '{name}' has shape {list(tensor.shape)}, expected {list(expected)}"
            )
    ids = {names.get(DRAFT_IDS), MASK}
    require_floats(tensors, [name for name in required if name not in ids], weights)
    state = {stored: tensors[name] for stored, name in names.items() if name in required}
    if DRAFT_IDS in state:
        state[DRAFT_IDS] = _draft_ids(tensors, config, names[DRAFT_IDS], layout, weights)
    state |= {stored: _meant(stored, shapes[stored], state) for stored in shapes if stored not in state}
    return StoredDrafter(config, state, layout.name, tuple(sorted(set(tensors) & set(unused))))


def config_rope_theta(folder: Path) -> float | None:
    """The RoPE base that a drafter's config.json names, None if it names none: not always the one that is used.

    Raises:
        MissingError, CheckpointError: config.json is missing or damaged.
    """
    where = folder / "config.json"
    data = read_json(where)
    inner = [data[key] for key in ("layer", "eagle_config") if "hidden_size" in (data.get(key) or ())]
    return named_rope_theta(inner[0] if inner else data, str(where))


def check_capture(folder: Path, capture: Sequence[int], target: str) -> None:
    """Raises CheckpointError for an EAGLE-3 of others that reads other hidden states than those that a suite says.

    Args:
        capture: what the suite says of EAGLE-3s for this target, () for nothing.
        target: its name in the suite, for the message.
    """
    where = folder / "config.json"
    data = read_json(where)
    said = said_capture(data, str(where)) if NOTE not in data and data.get("format") != OWN.name else ()
    if said and capture and said != tuple(capture):
        raise CheckpointError(
            f"{where}: eagle_config.{LAYER_IDS} says that the drafter reads the hidden states {list(said)}, and the "
            f"suite says {list(capture)} of target {target}",
            f"write eagle3_capture = {list(said)} in the suite's file if the drafter is right",
        )


def find_layout(data: Mapping[str, Any], names: Collection[str], folder: Path) -> Layout:
    """The layout of a folder, from its config.json and the names of its tensors; raises CheckpointError."""
    for layout in LAYOUTS:
        if layout.recognises(data, names):
            return layout
    found = {key: data[key] for key in ("format", "architectures") if key in data}
    some = ", ".join(sorted(names)[:3])
    known = "\n  ".join(f"{layout.name}: {layout.says}" for layout in LAYOUTS)
    raise CheckpointError(
        f"{folder}: unknown drafter layout: config.json says {found or sorted(data)[:8]}, tensors {some} "
        f"({len(names)} in all)",
        f"known are\n  {known}",
    )


def _config(
    folder: Path,
    weights: Weights,
    target: TargetSizes | None,
    capture: Sequence[int],
    rope_theta: float | None,
    *,
    sizes_only: bool = False,
) -> tuple[DrafterConfig, Layout, dict[str, Any]]:
    where = folder / "config.json"
    data = read_json(where)
    layout = find_layout(data, weights.files, folder)
    authors = is_authors_eagle3(folder, data)
    given = Given(weights.files.keys(), tuple(capture), rope_theta, target, str(where), authors, sizes_only)
    try:
        config = layout.config(data, given)
        check_sizes(config)
    except KeyError as error:
        raise CheckpointError(f"{where}: key {error} is missing") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    return config, layout, data


def _meant(stored: str, shape: tuple[int, ...], state: Mapping[str, Tensor]) -> Tensor:
    """A tensor that a folder may leave out (`Layout.absent`), as what its absence means."""
    import torch

    if stored == DRAFT_IDS:
        return torch.arange(*shape)
    return torch.zeros(shape, dtype=next(iter(state.values())).dtype)  # a bias


def check_target(config: DrafterConfig, sizes: TargetSizes, folder: Path) -> None:
    """Raises CheckpointError where a drafter, read from ``folder``, is not for a target of these sizes."""
    layer = config.layer
    hint = "this drafter belongs to another target"
    if (layer.vocab_size, layer.hidden_size) != (sizes.vocab_size, sizes.hidden_size):
        raise CheckpointError(
            f"{folder}: drafter for vocabulary {layer.vocab_size} and hidden size {layer.hidden_size} does not fit a "
            f"target of {sizes.vocab_size} and {sizes.hidden_size}",
            hint,
        )
    for state in config.aux_hidden_layers:
        if not 0 <= state <= sizes.num_hidden_layers:
            raise CheckpointError(f"{folder}: the target has no hidden state {state}", hint)


def _check_names(weights: Weights, required: Collection[str], unused: Collection[str]) -> None:
    refuse_quantised(weights)
    missing = [name for name in required if name not in weights.files]
    if missing:
        raise CheckpointError(f"{weights.source}: tensor '{missing[0]}' is missing ({len(missing)} in all)")
    unexpected = sorted(set(weights.files) - set(required) - set(unused))
    if unexpected:
        name = unexpected[0]
        raise CheckpointError(f"{weights.where(name)}: tensor '{name}' is unexpected ({len(unexpected)} in all)")


def _draft_ids(
    tensors: Mapping[str, Tensor], config: DrafterConfig, name: str, layout: Layout, weights: Weights
) -> Tensor:
    """Target token id of each draft token id, int64 [draft_vocab]."""
    import torch

    stored, where = tensors[name], weights.where(name)
    if stored.dtype != torch.int64:
        raise CheckpointError(f"{where}: '{name}' is {str(stored.dtype).removeprefix('torch.')}, expected int64")
    ids = stored + torch.arange(len(stored)) if layout.offsets else stored
    if ids.min() < 0 or ids.max() >= config.layer.vocab_size or len(ids.unique()) != len(ids):
        raise CheckpointError(f"{where}: '{name}' are not distinct token ids of the target")
    if layout.offsets:
        mask = tensors[MASK]
        if mask.dtype != torch.bool:
            dtype = str(mask.dtype).removeprefix("torch.")
            raise CheckpointError(f"{weights.where(MASK)}: '{MASK}' is {dtype}, expected bool")
        if not torch.equal(mask.nonzero().flatten(), ids):
            raise CheckpointError(f"{weights.where(MASK)}: '{MASK}' is not the draft vocabulary that '{name}' lists")
    return ids
