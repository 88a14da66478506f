"""A drafter's folder, described to SGLang as a Hugging Face folder of its own.

The description is a temporary folder: a ``config.json`` that SGLang's own config reading understands, with what the
draft model needs to know under ``prism_ae``, and links to the weight files, which SGLang looks for but never reads:
the model reads them itself, strictly.
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
"""Of the names of described folders."""

_DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Target:
    """What of a target its drafter is described by, as SGLang resolved it.

    Attributes:
        name: folder or repository, for messages.
        dtype: in which SGLang runs it, "bfloat16". The drafter shares its embedding, head and hidden states, so it is
            given the same; without it SGLang would choose float16 for the drafter, whatever the target is.
        context: tokens of prompt and answer together at most. The drafter is given no less, or SGLang would not start.
    """

    name: str
    sizes: TargetSizes
    dtype: str
    context: int


@dataclasses.dataclass(frozen=True)
class Described:
    """``folder`` is what SGLang is given; ``drafter`` the drafter's own, and ``config`` what it is."""

    folder: Path
    drafter: Path
    config: DrafterConfig

    @property
    def captures(self) -> bool:
        """Whether the drafter reads captured hidden states."""
        return bool(self.config.capture)

    @property
    def summary(self) -> str:
        """One line for the log."""
        config = self.config
        steps = ", ".join(str(module) for module in config.step_mapping)
        reads = f"hidden states {list(config.capture)}" if config.capture else "the last hidden state"
        return (
            f"{config.cell} cell, {config.modules} module(s) of {config.layer.num_hidden_layers} layer(s), "
            f"step mapping [{steps}], reads {reads}"
        )


def describe(drafter: Path, target: Target) -> Described:
    """Describe the drafter in ``drafter`` for a target; the description goes when the process ends.

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
    """Delete this user's descriptions of more than a day ago: a server that is ended by force leaves its own behind.

    None is read any more once its server has loaded its drafter.
    """
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > _DAY and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


def described_drafter(folder: Path) -> Path:
    """The drafter's own folder, where ``folder`` is a description of it: SGLang builds its arguments from themselves
    again in some of its entrances."""
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
    for state in config.capture:
        # SGLang captures what enters a layer from the second on, not what leaves the last one.
        if not 1 <= state <= last:
            raise CheckpointError(
                f"{drafter}: reads hidden state {state}; SGLang captures 1 to {last} of its target",
                "choose the drafter that was trained for this target",
            )


def hugging_face_config(config: DrafterConfig, drafter: Path, target: Target) -> dict[str, Any]:
    """What SGLang reads: sizes under their Hugging Face names; ``prism_ae`` holds the drafter's own."""
    layer = config.layer.fields()
    described = {
        "architectures": [EAGLE3_MODEL if config.cell == "eagle3" else EAGLE_MODEL],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bias": False,  # of attention, as SGLang reads it; the fusion layers have one
        **layer,
        "max_position_embeddings": max(config.layer.max_position_embeddings, target.context),
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
    if config.capture:
        described["eagle_config"] = sglang_capture(config.capture)
        described["num_aux_hidden_states"] = len(config.capture)
    if config.draft_vocab_size is not None:
        described["draft_vocab_size"] = config.draft_vocab_size
    return described
