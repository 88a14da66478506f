"""A drafter's folder, described to SGLang as a Hugging Face folder of its own.

The description is a temporary folder: a ``config.json`` that SGLang's own config reading understands, with what the
draft model needs to know under ``prism_ae``, and links to the weight files, which SGLang looks for but never reads:
the model reads them itself, strictly.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from prism_ae.checkpoints import read_json
from prism_ae.drafters.layouts.read import read_config, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drafters.model import DrafterConfig
from prism_ae.errors import CheckpointError

EAGLE_MODEL, EAGLE3_MODEL = "PrismDraftModel", "PrismEagle3DraftModel"
"""Names of the classes in `models`."""

KEY = "prism_ae"


@dataclasses.dataclass(frozen=True)
class Described:
    """``folder`` is what SGLang is given; ``captures`` whether the drafter reads captured hidden states."""

    folder: Path
    captures: bool


def describe(drafter: Path, target: Path) -> Described:
    """Describe the drafter in ``drafter`` for the target in ``target``; the description goes when the process ends.

    Raises:
        PrismError: a folder that is missing, malformed or of another target.
    """
    drafter = drafter.resolve()
    sizes = TargetSizes.from_hf(read_json(target / "config.json"), str(target / "config.json"))
    config = read_config(drafter, published_capture(read_layout(drafter), sizes.num_hidden_layers))
    check_fits(config, sizes, drafter, target)
    folder = Path(tempfile.mkdtemp(prefix="prism-ae-drafter-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    text = json.dumps(hugging_face_config(config, drafter, sizes), indent=1)
    (folder / "config.json").write_text(text + "\n")
    for file in [*drafter.glob("*.safetensors"), *drafter.glob("*.bin")]:
        (folder / file.name).symlink_to(file)
    return Described(folder, bool(config.capture))


def published_capture(layout: str, layers: int) -> tuple[int, ...]:
    """The hidden states that a published drafter reads, which its folder does not say: Hugging Face's numbering.

    The authors' SGLang fork captures PRISM*'s at [3, n // 2 + 1, n - 2] of n layers; EAGLE-3 reads [2, n // 2, n - 3],
    the places that SGLang itself takes.
    """
    return (2, layers // 2, layers - 3) if layout == EAGLE3.name else (3, layers // 2 + 1, layers - 2)


def check_fits(config: DrafterConfig, sizes: TargetSizes, drafter: Path, target: Path) -> None:
    """Raises CheckpointError when a drafter cannot read this target, or reads what SGLang cannot capture."""
    other = "choose the drafter that was trained for this target"
    for key in ("vocab_size", "hidden_size"):
        ours, theirs = getattr(config.layer, key), getattr(sizes, key)
        if ours != theirs:
            raise CheckpointError(f"{drafter}: {key} is {ours}, that of the target {target} is {theirs}", other)
    last = sizes.num_hidden_layers - 1
    for state in config.capture:
        # SGLang captures what enters a layer from the second on, not what leaves the last one.
        if not 1 <= state <= last:
            raise CheckpointError(
                f"{drafter}: reads hidden state {state}; SGLang captures 1 to {last} of the target {target}", other
            )


def hugging_face_config(config: DrafterConfig, drafter: Path, target: TargetSizes) -> dict[str, Any]:
    """What SGLang reads: sizes under their Hugging Face names; ``prism_ae`` holds the drafter's own."""
    layer = dataclasses.asdict(config.layer)
    described = {
        "architectures": [EAGLE3_MODEL if config.cell == "eagle3" else EAGLE_MODEL],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bias": False,  # of attention, as SGLang reads it; the fusion layers have one
        **layer,
        "head_dim": config.layer.head_dim,
        "tie_word_embeddings": False,  # embedding and head are the target's, whatever it ties
        "target_hidden_size": config.layer.hidden_size,
        KEY: {
            "drafter": str(drafter),
            "config": json.loads(json.dumps(dataclasses.asdict(config))),
            "target": dataclasses.asdict(target),
        },
    }
    if config.capture:
        # SGLang counts layers from 0 and captures their outputs: hidden state n is the output of layer n - 1.
        layers = [state - 1 for state in config.capture]
        described["eagle_config"] = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": layers}
        described["num_aux_hidden_states"] = len(layers)
    if config.draft_vocab_size is not None:
        described["draft_vocab_size"] = config.draft_vocab_size
    return described
