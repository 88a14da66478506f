"""A drafter's architecture as data. No torch: a plan reads it from a folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

from prism_ae.models.config import LlamaConfig

STORED_NAMES = {"aux_hidden_layers": "capture"}
"""Field -> its name in files, where that is another."""


@dataclasses.dataclass(frozen=True)
class DrafterConfig:
    """A drafter's architecture.

    Attributes:
        cell: "eagle" (the cell that EAGLE-2, HASS and PRISM share) or "eagle3".
        layer: sizes of its layers; vocabulary and hidden size are the target's. ``num_hidden_layers`` is the
            number of stacked layers in one module (1; HASS-2: 2; HASS-3: 3).
        modules: parameter sets (PRISM: 2).
        step_mapping: module of each draft step; later steps use the last entry.
        aux_hidden_layers: target layers whose outputs are read at step 0, in `Llama.forward`'s numbering; () reads the
            last hidden state, after the final norm. ``capture`` in files.
        draft_vocab_size: tokens that it drafts among, None for all of the target's. EAGLE-3 has a head of its own over
            them, the other cell reads their rows of the target's head.
    """

    cell: Literal["eagle", "eagle3"]
    layer: LlamaConfig
    modules: int = 1
    step_mapping: tuple[int, ...] = (0,)
    aux_hidden_layers: tuple[int, ...] = ()
    draft_vocab_size: int | None = None

    def __post_init__(self) -> None:
        if sorted(set(self.step_mapping)) != list(range(self.modules)):
            raise ValueError(f"step_mapping {self.step_mapping} does not use exactly {self.modules} modules")
        one = self.modules == self.layer.num_hidden_layers == 1
        if self.cell == "eagle3" and not (one and self.draft_vocab_size is not None and self.aux_hidden_layers):
            raise ValueError("EAGLE-3 has one module of one layer, auxiliary hidden states and a draft vocabulary")

    @property
    def vocabulary(self) -> int:
        """Tokens that it drafts among: a beam can be no wider."""
        return self.draft_vocab_size or self.layer.vocab_size

    def fields(self) -> dict[str, Any]:
        """Its fields as JSON, in the names of a checkpoint's config.json; ``layer`` as `LlamaConfig.fields`."""
        fields = json.loads(json.dumps(dataclasses.asdict(self) | {"layer": self.layer.fields()}))
        return {STORED_NAMES.get(name, name): value for name, value in fields.items()}

    def module_of(self, step: int) -> int:
        """The module that draft step ``step`` (from 0) runs."""
        return self.step_mapping[min(step, len(self.step_mapping) - 1)]


def authors_states(cell: str, layers: int) -> tuple[int, int, int]:
    """The hidden states that the authors' drafters read in a target of so many layers, which most folders do not say.

    Those of PRISM* in their training and their fork of SGLang, those of EAGLE-3 in its own code, theirs and SGLang.
    Numbers as in `Llama.forward`: 3, 17, 30 and 2, 16, 29 of 32 layers.
    """
    return (2, layers // 2, layers - 3) if cell == "eagle3" else (3, layers // 2 + 1, layers - 2)


def layers_before(states: Sequence[int]) -> list[int]:
    """As SGLang says it, counting layers from 0, whose outputs it captures: state n is the output of layer n - 1."""
    return [state - 1 for state in states]


def states_behind(layers: Sequence[int]) -> tuple[int, ...]:
    """The inverse of `layers_before`."""
    return tuple(layer + 1 for layer in layers)
