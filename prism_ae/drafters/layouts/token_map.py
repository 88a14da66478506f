"""A draft vocabulary as stock SGLang reads it beside an EAGLE drafter: the file of its ``--speculative-token-map``.

FR-Spec (Zhao et al. 2025) publishes such files: a list of token ids, saved by torch. The n-th is the token of the n-th
row of the head that the drafter reads. The file is a pickle; it is read by torch's restricted loader, which runs
nothing, as SGLang does it, and what is no list of whole numbers is refused.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.errors import CheckpointError, MissingError
from prism_ae.models.file_kinds import refuse_other_kinds
from prism_ae.models.weights import AGAIN

if TYPE_CHECKING:
    from torch import Tensor


def read_token_map(path: Path) -> Tensor:
    """The ids in a file, int64 [draft_vocab], in its order; whether they are a target's is not known here.

    Raises:
        MissingError: it is not there.
        CheckpointError: it is damaged, or holds anything else.
    """
    import torch

    if not path.is_file():
        raise MissingError(f"{path} does not exist", "it lists the tokens that the drafter beside it drafts among")
    refuse_other_kinds(path)
    other = CheckpointError(f"{path} is not a list of token ids; not loaded", AGAIN)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise other from error
    except Exception as error:  # a damaged archive surfaces as whatever the place of the damage raises
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path} is damaged: {reason or type(error).__name__}", AGAIN) from error
    if not isinstance(found, list) or any(type(one) is not int or not 0 <= one < 2**31 for one in found):
        raise other
    return torch.tensor(found, dtype=torch.int64)


def write_token_map(path: Path, ids: Tensor) -> None:
    """Write ids [draft_vocab]; raises OSError."""
    import torch

    saved = io.BytesIO()
    torch.save(ids.tolist(), saved)
    path.write_bytes(saved.getvalue())
