"""Who reads a published layout, and what they take from elsewhere than the drafter's folder: what its user has to know.

As in the authors' artifact (its torch code in PRISM, PRISM_legacy and Eagle3, its fork of SGLang), the EAGLE
repository, and the pinned stock SGLang.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_ae.drafters.config import authors_states
from prism_ae.drafters.layouts import table
from prism_ae.models.weights import TOKEN_MAP

if TYPE_CHECKING:
    from prism_ae.drafters.config import DrafterConfig

_READERS = {
    table.EAGLE3.name: "the authors' Eagle3 code and EAGLE's",
    table.SGLANG_LD.name: "the authors' fork of SGLang: --speculative-algorithm LD",
    table.SGLANG_PRISM.name: "the authors' fork of SGLang: --speculative-algorithm PRISM",
    table.SGLANG_EAGLE.name: "stock SGLang: --speculative-algorithm EAGLE",
    table.SGLANG_EAGLE3.name: "stock SGLang: --speculative-algorithm EAGLE3",
}


def reader_notes(config: DrafterConfig, layout: table.Layout, *, embedded: bool, layers: int | None) -> list[str]:
    """Sentences about a drafter that was written in a layout; none for the project's own.

    Args:
        embedded: whether the target's embedding is in the folder.
        layers: of the target, None where it is not known.
    """
    if layout is table.OWN:
        return []
    code = "PRISM" if config.aux_hidden_layers else "PRISM_legacy"
    reader = _READERS.get(layout.name, f"the authors' {code} code")
    if layout is table.SGLANG_EAGLE and config.draft_vocab_size is not None:
        reader += f", with --speculative-token-map <this folder>/{TOKEN_MAP}: else it drafts among all tokens"
    notes = [f"for {reader}"]
    if layout is table.EAGLE3 and not embedded:
        notes.append(
            "they take the embedding from a target in shards (model.safetensors.index.json); --target writes it here"
        )
    fixed = _fixed_states(layout, layers or _plausible_layers(config, layout))
    if config.aux_hidden_layers and fixed and config.aux_hidden_layers != fixed:
        notes.append(
            f"they read the target's hidden states {_STATES[layout.name]}, whatever the folder says; this drafter "
            f"reads {', '.join(map(str, config.aux_hidden_layers))}"
        )
    return notes


_STATES = {
    table.LARGE_DRAFTER.name: "3, 17 and 30",
    table.EAGLE3.name: "2, n // 2 and n - 3 of n layers",
    table.SGLANG_PRISM.name: "3, n // 2 + 1 and n - 2 of n layers",
}
"""Layout -> the hidden states that its readers' code names; the other readers take the folder's, or the last one."""


def _fixed_states(layout: table.Layout, layers: int) -> tuple[int, ...]:
    """The same as numbers, in the numbering of `Llama.forward`; () for the others."""
    return {
        table.LARGE_DRAFTER.name: authors_states("eagle", 32),
        table.EAGLE3.name: authors_states("eagle3", layers),
        table.SGLANG_PRISM.name: authors_states("eagle", layers),
    }.get(layout.name, ())


def _plausible_layers(config: DrafterConfig, layout: table.Layout) -> int:
    """Of the target for which the last hidden state is the one that the readers take."""
    last = config.aux_hidden_layers[-1] if config.aux_hidden_layers else 0
    return last - authors_states(config.cell, 0)[-1]
