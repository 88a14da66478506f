"""Hooks that let SGLang find the drafter's checkpoint and its model class.

SGLang reads a draft folder's ``config.json`` as a Hugging Face config before any algorithm is asked. So, as the
first thing, the folder that the user named is checked against the target and described to SGLang by a folder of our
own: a Hugging Face config, and links to the weights. The user's folder is never written to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED
from prism_ae.sglang_prism.hooks import Hook

if TYPE_CHECKING:
    from sglang.srt.server_args import ServerArgs


def describe_drafter(server_args: ServerArgs) -> None:
    """Before SGLang reads the draft folder: replace it by its description, and choose the algorithm that fits it.

    Raises:
        ValueError: no draft folder, a malformed one, or one of another target; the message says which and why.
    """
    if (server_args.speculative_algorithm or "").upper() != PRISM:
        return
    from prism_ae.errors import PrismError
    from prism_ae.sglang_prism.description import describe

    if not server_args.speculative_draft_model_path:
        raise ValueError("--speculative-algorithm PRISM needs --speculative-draft-model-path, a drafter's folder")
    try:
        described = describe(Path(server_args.speculative_draft_model_path), Path(server_args.model_path))
    except PrismError as error:
        raise ValueError(str(error)) from error
    server_args.speculative_draft_model_path = str(described.folder)
    server_args.speculative_algorithm = PRISM_CAPTURED if described.captures else PRISM


def register_models(*args: Any, **options: Any) -> None:
    """Before SGLang looks up a model class: add ours to its registry."""
    from sglang.srt.models.registry import ModelRegistry

    from prism_ae.sglang_prism.models import EntryClass

    for model in EntryClass:
        ModelRegistry.models[model.__name__] = model


HOOKS: list[Hook] = [
    ("sglang.srt.arg_groups.speculative_hook.handle_speculative_decoding", describe_drafter, "before"),
    ("sglang.srt.model_loader.utils.get_model_architecture", register_models, "before"),
]
