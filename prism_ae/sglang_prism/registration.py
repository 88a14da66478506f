"""Hooks that let SGLang find the drafter's checkpoint and its model class.

SGLang reads a draft folder's ``config.json`` as a Hugging Face config before it looks at the algorithm. So the folder
or repository that the user named is first checked against the target and described to SGLang by a folder of our own: a
Hugging Face config, and links to the weights. The user's folder is never written to.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.cells import TreeShape
from prism_ae.models.weights import TOKEN_MAP
from prism_ae.sglang_prism.algorithm import NAMES, PRISM, PRISM_CAPTURED

if TYPE_CHECKING:
    from sglang.srt.server_args import ServerArgs

    from prism_ae.drafters.config import DrafterConfig
    from prism_ae.sglang_prism.description import Described, ResolvedTarget

_UNQUANTISED = "unquant"
"""SGLang's value for a drafter that is not quantised, whatever the target is."""

WEIGHTS_AND_CONFIGS = ("*.json", "*.safetensors", "*.bin", TOKEN_MAP)
"""The files that are downloaded from a drafter's repository: never code."""


def is_ours(server_args: ServerArgs) -> bool:
    """Whether a server drafts with PRISM, before or after its arguments were resolved."""
    return (server_args.speculative_algorithm or "").upper() in NAMES


def keep_the_drafter_unquantised(server_args: ServerArgs) -> None:
    """Before SGLang fills in defaults: it would give the drafter the target's ``--quantization``.

    A drafter's checkpoint is not quantised, and its layers are a small part of the work; users can still quantise it
    with ``--speculative-draft-model-quantization``.
    """
    if is_ours(server_args) and server_args.speculative_draft_model_quantization is None:
        server_args.speculative_draft_model_quantization = _UNQUANTISED


def describe_drafter(server_args: ServerArgs) -> None:
    """Before SGLang reads the draft folder: replace it by its description, and choose the algorithm that fits it.

    Raises:
        ValueError: an option that PRISM cannot serve; a draft folder that is missing, malformed or for another target.
    """
    if not is_ours(server_args):
        return
    from prism_ae.errors import PrismError
    from prism_ae.sglang_prism.description import describe
    from prism_ae.sglang_prism.refusals import refused_options, warn_of_environment

    if problem := refused_options(server_args):
        raise ValueError(problem)
    warn_of_environment()
    if not server_args.speculative_draft_model_path:
        raise ValueError("--speculative-algorithm PRISM needs --speculative-draft-model-path, a drafter's folder")
    target = resolved_target(server_args)
    try:
        described = describe(drafter_folder(server_args), target)
    except PrismError as error:
        raise ValueError(str(error)) from error
    if problem := _tree_problem(server_args, described.config.vocabulary):
        raise ValueError(problem)
    if problem := _vocabulary_problem(server_args, described.config):
        raise ValueError(problem)
    _log(server_args, described, target)
    server_args.speculative_draft_model_path = str(described.folder)
    server_args.speculative_draft_model_revision = None  # of the repository; the description is a folder
    server_args.speculative_algorithm = PRISM_CAPTURED if described.reads_aux_hidden else PRISM


def _log(server_args: ServerArgs, described: Described, target: ResolvedTarget) -> None:
    """Log the drafter, and what a user may not expect of it."""
    layer = described.config.layer
    log = logging.getLogger(__name__)
    log.info("PRISM drafts with %s: %s", described.drafter, described.summary)
    if layer.max_position_embeddings < target.max_seq_len:
        log.warning(
            "The drafter was trained for %d tokens, the target for %d: beyond that fewer drafts may be accepted",
            layer.max_position_embeddings,
            target.max_seq_len,
        )
    if server_args.speculative_draft_window_size is not None and described.config.cell == "eagle3":
        log.info(
            "This drafter keeps to --speculative-draft-window-size, whatever is said of the algorithm's name below"
        )


def resolved_target(server_args: ServerArgs) -> ResolvedTarget:
    """The target as SGLang itself resolves it: a folder, a repository and revision, a file of a cache."""
    from prism_ae.drafters.layouts.records import TargetSizes
    from prism_ae.errors import PrismError
    from prism_ae.sglang_prism.description import ResolvedTarget

    config = server_args.get_model_config()
    name = server_args.model_path
    try:
        sizes = TargetSizes.from_hf(config.hf_text_config.to_dict(), f"the target {name}")
    except PrismError as error:
        raise ValueError(str(error)) from error
    return ResolvedTarget(name, sizes, str(config.dtype).removeprefix("torch."), int(config.context_len))


def drafter_folder(server_args: ServerArgs) -> Path:
    """The drafter's folder on this machine; a repository is downloaded, or found in the cache, as SGLang does it.

    Raises:
        ValueError: neither a folder nor a repository that can be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = server_args.speculative_draft_model_path
    assert name is not None
    folder = Path(name).expanduser()
    if folder.exists():
        return folder
    try:
        return Path(
            snapshot_download(
                name,
                revision=server_args.speculative_draft_model_revision,
                cache_dir=server_args.download_dir,
                allow_patterns=list(WEIGHTS_AND_CONFIGS),
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"--speculative-draft-model-path {name}: no such folder, and no repository of that name can be had here "
            f"({reason}); name the folder of a drafter on this machine, or a repository that has one at its top"
        ) from error


def _tree_problem(server_args: ServerArgs, vocabulary: int) -> str:
    """The reason why no engine can build the requested draft tree, or ""; without a request SGLang chooses."""
    given = (
        server_args.speculative_num_steps,
        server_args.speculative_eagle_topk,
        server_args.speculative_num_draft_tokens,
    )
    if all(part is None for part in given):
        return ""
    names = "--speculative-num-steps, --speculative-eagle-topk and --speculative-num-draft-tokens"
    steps, branch, verified = given
    if branch == 1 and steps is not None and verified is None:
        verified = steps + 1  # as SGLang fills it in
    if steps is None or branch is None or verified is None:
        return f"a draft tree takes all of {names}, or none of them"
    if branch == 1:
        verified = steps + 1  # SGLang sets it to that whatever was asked for
    tree = TreeShape(steps, branch, verified)
    if problem := tree.problem():
        return f"draft tree {tree} ({names}): {problem}"
    if branch > vocabulary:
        return f"draft tree {tree} ({names}): branch {branch} of a vocabulary of {vocabulary} tokens"
    return ""


def _vocabulary_problem(server_args: ServerArgs, config: DrafterConfig) -> str:
    """The reason why a drafter's draft vocabulary cannot be served, or ""."""
    if config.draft_vocab_size is None:
        return ""
    if server_args.speculative_token_map is not None:
        return "--speculative-token-map: this drafter's folder says which tokens it drafts among; leave the option out"
    if config.cell == "eagle" and server_args.tp_size > 1:
        return (
            "--tensor-parallel-size: this drafter reads some rows of the target's head, which is divided among "
            f"{server_args.tp_size} processes; serve it with one, or a drafter without draft_vocab_size"
        )
    return ""


def take_draft_vocabulary(result: Any, draft_worker: Any, *args: Any) -> None:
    """After the draft worker took the target's head: give it the drafter's token ids, as SGLang does in its branch for
    EAGLE-3 alone."""
    if draft_worker.speculative_algorithm.name in NAMES and draft_worker.hot_token_id is None:
        draft_worker.hot_token_id = draft_worker.draft_runner.model.hot_token_id


def register_models(*args: Any, **options: Any) -> None:
    """Before SGLang looks up a model class: add ours to its registry."""
    from sglang.srt.models.registry import ModelRegistry

    from prism_ae.sglang_prism.models import EntryClass

    for model in EntryClass:
        ModelRegistry.models[model.__name__] = model


HOOKS = [
    ("sglang.srt.speculative.eagle_worker_v2.EagleDraftWorker.init_lm_head", take_draft_vocabulary, "after"),
    ("sglang.srt.server_args.ServerArgs._handle_missing_default_values", keep_the_drafter_unquantised, "before"),
    ("sglang.srt.arg_groups.speculative_hook.handle_speculative_decoding", describe_drafter, "before"),
    ("sglang.srt.model_loader.utils.get_model_architecture", register_models, "before"),
]
