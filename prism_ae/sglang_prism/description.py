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

from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.read import read_config, read_layout
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
        )


def describe(drafter: Path, target: ResolvedTarget) -> Described:
    """Describe the drafter in ``drafter`` for a target; the description is deleted when the process ends.

    Raises:
        PrismError: a folder that is missing, malformed or of another target.
    """
    drafter = described_drafter(drafter).absolute()  # not resolved: a folder's own name and place may count
    config = read_config(drafter, published_capture(read_layout(drafter), target.sizes.num_hidden_layers))
    check_fits(config, target.sizes, drafter, target.name)
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
    """The hidden states that a published drafter reads, which its folder does not say: Hugging Face's numbering.

    The authors' SGLang fork captures PRISM*'s at [3, n // 2 + 1, n - 2] of n layers; EAGLE-3 reads [2, n // 2, n - 3],
    the places that SGLang itself takes.
    """
    return (2, layers // 2, layers - 3) if layout == EAGLE3.name else (3, layers // 2 + 1, layers - 2)


def check_fits(config: DrafterConfig, sizes: TargetSizes, drafter: Path, target: str) -> None:
    """Raises CheckpointError when a drafter does not fit this target, or reads states that SGLang cannot provide."""
    other = "choose the drafter that was trained for this target"
    for key in ("vocab_size", "hidden_size"):
        ours, theirs = getattr(config.layer, key), getattr(sizes, key)
        if ours != theirs:
            raise CheckpointError(f"{drafter}: {key} is {ours}, that of the target {target} is {theirs}", other)
    last = sizes.num_hidden_layers - 1
    for state in config.aux_hidden_layers:
        # SGLang captures the inputs of layers, from the second on, and not the output of the last one.
        if not 1 <= state <= last:
            raise CheckpointError(
                f"{drafter}: reads hidden state {state}; SGLang captures 1 to {last} of the target {target}", other
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
        # SGLang counts layers from 0 and captures their outputs: hidden state n is the output of layer n - 1.
        layers = [state - 1 for state in config.aux_hidden_layers]
        described["eagle_config"] = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": layers}
        described["num_aux_hidden_states"] = len(layers)
    if config.draft_vocab_size is not None:
        described["draft_vocab_size"] = config.draft_vocab_size
    return described
