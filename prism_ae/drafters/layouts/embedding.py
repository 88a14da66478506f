"""The target's embedding as it lies in a drafter's folder, for readers that take it from there.

No drafter of this project has one of its own: the engines use the target's. The authors' torch code reads the one in
the folder, and starts from random numbers where there is none. So it is found, in the target or in a folder that has
it, and checked to be the target's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.drafters.layouts.table import EMBEDDING, Layout
from prism_ae.errors import CheckpointError, UsageError
from prism_ae.models.checkpoints import check_published
from prism_ae.models.config import EMBEDDING as TARGET_EMBEDDING
from prism_ae.models.weights import open_weights, require_floats

if TYPE_CHECKING:
    from torch import Tensor

    from prism_ae.drafters.config import DrafterConfig

_RELATIVE, _ABSOLUTE = 2.0**-8, 2.0**-24
"""Two copies that were rounded to float16 or bfloat16 on different ways differ by no more."""

_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class Embedding:
    """``tensor`` is [V, H], in the dtype of ``file``, which holds it."""

    tensor: Tensor
    file: Path


def find_embedding(config: DrafterConfig, layout: Layout, drafter: Path, target: Path | None) -> Embedding | None:
    """The embedding to write beside a drafter: the target's, or that of the drafter's folder where no target is named.

    Args:
        config: of the drafter, which was read from ``drafter``.
        layout: to be written.
        target: folder, where it is known.

    Returns:
        None where the layout has no place for it, or may do without and nothing is there.

    Raises:
        UsageError: the layout needs it, and neither folder has it.
        CheckpointError: it has another shape, is quantised, or the drafter's is not the target's.
    """
    theirs = _read(drafter, EMBEDDING, config, needed=False)
    if target is None or (theirs is None and not layout.embedding):
        if layout.embedding == "required" and theirs is None:
            raise UsageError(
                f"{drafter} has no embedding, and those who read the layout {layout.name} take the target's from there",
                "name the drafter's target with --target: its embedding is written beside the drafter",
            )
        return theirs if layout.embedding else None
    check_published(target)
    found = _read(target, TARGET_EMBEDDING, config, needed=True)
    assert found is not None
    if theirs is not None and not _alike(theirs.tensor, found.tensor):
        raise CheckpointError(
            f"{theirs.file}: '{EMBEDDING}' is not the embedding of the target {target}",
            "this drafter belongs to another target",
        )
    return found if layout.embedding else None


def _read(folder: Path, name: str, config: DrafterConfig, *, needed: bool) -> Embedding | None:
    weights = open_weights(folder)
    if name not in weights.files:
        if needed:
            raise CheckpointError(f"{weights.source}: tensor '{name}' is missing", "name the folder of a Llama target")
        return None
    tensor = weights.read_one(name)  # the others may be a whole target
    require_floats({name: tensor}, [name], weights)
    expected = (config.layer.vocab_size, config.layer.hidden_size)
    if tuple(tensor.shape) != expected:
        raise CheckpointError(
            f"{weights.where(name)}: '{name}' has shape {list(tensor.shape)}, expected {list(expected)}"
        )
    return Embedding(tensor, weights.files[name])


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors [V, H] are the same but for rounding to 16 bits; a part at a time, for they are large."""
    import torch

    pairs = zip(one.split(_ROWS), other.split(_ROWS), strict=True)
    return all(torch.allclose(a.float(), b.float(), _RELATIVE, _ABSOLUTE) for a, b in pairs)
