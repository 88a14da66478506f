"""A drafter's folder, described to SGLang as a Hugging Face folder of its own.

The description is a temporary folder: a ``config.json`` that SGLang can read, with the draft model's own settings under
``prism_ae``, and links to the weight files. SGLang only checks that those exist; the model reads them itself, strictly.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from prism_ae.drafters.config import DrafterConfig, authors_states
from prism_ae.drafters.layouts.configs import sglang_capture
from prism_ae.drafters.layouts.read import check_target, read_config, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.errors import CheckpointError
from prism_ae.models.checkpoints import read_json

EAGLE_MODEL, EAGLE3_MODEL = "PrismDraftModel", "PrismEagle3DraftModel"
"""Names of the classes in `models`."""

KEY = "prism_ae"

_PREFIX = "prism-ae-drafter-"
"""Beginning of the names of these folders."""

_DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class ResolvedTarget:
    """A target as SGLang resolved it: what the description of its drafter depends on.

    Attributes:
        name: folder or repository, for messages.
        dtype: in which SGLang runs it, e.g. "bfloat16". The drafter shares its embedding, head and hidden states, so it
            gets the same; otherwise SGLang would choose float16 for the drafter, whatever the target is.
        max_seq_len: most tokens of prompt and answer together. SGLang does not start with a smaller drafter.
    """

    name: str
    sizes: TargetSizes
    dtype: str
    max_seq_len: int


@dataclasses.dataclass(frozen=True)
class Described:
    """``folder`` is the description that SGLang reads, ``drafter`` the drafter's own folder, ``config`` its config."""

    folder: Path
    drafter: Path
    config: DrafterConfig

    @property
    def reads_aux_hidden(self) -> bool:
        """Whether the drafter reads auxiliary hidden states."""
        return bool(self.config.aux_hidden_layers)

    @property
    def summary(self) -> str:
        """One line for the log."""
        config = self.config
        steps = ", ".join(str(module) for module in config.step_mapping)
        reads = (
            f"hidden states {list(config.aux_hidden_layers)}" if config.aux_hidden_layers else "the last hidden state"
        )
        return (
            f"{config.cell} cell, {config.modules} module(s) of {config.layer.num_hidden_layers} layer(s), "
            f"step mapping [{steps}], reads {reads}"
            + (f", drafts among {config.vocabulary} tokens" if config.draft_vocab_size else "")
        )


def describe(drafter: Path, target: ResolvedTarget) -> Described:
    """Describe the drafter in ``drafter`` for a target; the description is deleted when the process ends.

    Raises:
        PrismError: a folder that is missing, malformed or of another target.
    """
    drafter = described_drafter(drafter).absolute()  # not resolved: a folder's own name and place may count
    config = read_for_sglang(drafter, target.sizes)
    remove_old_descriptions(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    text = json.dumps(hugging_face_config(config, drafter, target), indent=1)
    (folder / "config.json").write_text(text + "\n")
    for file in [*drafter.glob("*.safetensors"), *drafter.glob("*.bin")]:
        (folder / file.name).symlink_to(file)
    return Described(folder, drafter, config)


def remove_old_descriptions(place: Path) -> None:
    """Delete this user's descriptions that are older than a day: a killed server leaves its own behind.

    A server does not read its description again once its drafter is loaded.
    """
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > _DAY and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


def described_drafter(folder: Path) -> Path:
    """The drafter's own folder, where ``folder`` is a description of it: some entry points of SGLang resolve their
    arguments twice."""
    if not (folder.name.startswith(_PREFIX) and (folder / "config.json").is_file()):
        return folder
    return Path(read_json(folder / "config.json")[KEY]["drafter"])


def published_capture(layout: str, layers: int) -> tuple[int, ...]:
    """The hidden states that a published drafter of this layout reads, where its folder does not say it."""
    return authors_states("eagle3" if layout == EAGLE3.name else "eagle", layers)


def read_for_sglang(drafter: Path, sizes: TargetSizes) -> DrafterConfig:
    """A drafter's config as SGLang runs it for a target of these sizes.

    Raises:
        PrismError: a folder that is missing, malformed or of another target, or that reads what SGLang cannot capture.
    """
    config = read_config(drafter, published_capture(read_layout(drafter), sizes.num_hidden_layers))
    check_target(config, sizes, drafter)
    check_capturable(config, sizes, drafter)
    return config


def check_capturable(config: DrafterConfig, sizes: TargetSizes, drafter: Path) -> None:
    """Raises CheckpointError for a drafter that reads what SGLang cannot capture."""
    last = sizes.num_hidden_layers - 1
    for state in config.aux_hidden_layers:
        # SGLang captures the inputs of layers, from the second on, and not the output of the last one.
        if not 1 <= state <= last:
            raise CheckpointError(
                f"{drafter}: reads hidden state {state}; SGLang captures 1 to {last} of its target",
                "choose the drafter that was trained for this target",
            )


def hugging_face_config(config: DrafterConfig, drafter: Path, target: ResolvedTarget) -> dict[str, Any]:
    """The config.json for SGLang: sizes under their Hugging Face names; ``prism_ae`` holds the drafter's own."""
    layer = config.layer.fields()
    described = {
        "architectures": [EAGLE3_MODEL if config.cell == "eagle3" else EAGLE_MODEL],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bias": False,  # of attention, as SGLang reads it; the fusion layers have one
        **layer,
        "max_position_embeddings": max(config.layer.max_position_embeddings, target.max_seq_len),
        "head_dim": config.layer.head_dim,
        "torch_dtype": target.dtype,
        "tie_word_embeddings": False,  # embedding and head are the target's, whatever it ties
        "target_hidden_size": config.layer.hidden_size,
        KEY: {
            "drafter": str(drafter),
            "config": config.fields(),
            "target": dataclasses.asdict(target.sizes),
        },
    }
    if config.aux_hidden_layers:
        described["eagle_config"] = sglang_capture(config.aux_hidden_layers)
        described["num_aux_hidden_states"] = len(config.aux_hidden_layers)
    if config.draft_vocab_size is not None:
        described["draft_vocab_size"] = config.draft_vocab_size
    return described
