"""What a target and a drafter are together: decided once, by the same rules for every engine, before a device is taken.

A plan asks it of every pair that it would measure, an engine of the pair that it loads, and ``doctor`` of all that are
here. Configs and tensors' names are read, no weights (but pickled ones, and a tied target's head where one is stored).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prism_ae.cells import EngineSettings, TreeShape
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.read import check_capture, check_target, config_rope_theta, read_config, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.errors import CheckpointError, UsageError
from prism_ae.models.checkpoints import check_target_weights, read_json, read_target_config
from prism_ae.prompts.conversation import max_seq_len_of
from prism_ae.sglang_prism.description import check_capturable, published_capture
from prism_ae.suites.records import TargetRecord


@dataclasses.dataclass(frozen=True)
class Pair:
    """A target and what drafts for it.

    Attributes:
        target, drafter: folders; drafter None for vanilla.
        drafter_layout: name of the drafter's layout, "" for vanilla and a separate model.
        sizes: the target's, where a draft head reads it.
        config: of a draft head, else None.
    """

    target: Path
    drafter: Path | None
    drafter_layout: str = ""
    sizes: TargetSizes | None = None
    config: DrafterConfig | None = None

    @property
    def capture(self) -> tuple[int, ...]:
        """The target's hidden states that the drafter reads; () for the last one alone."""
        return self.config.aux_hidden_layers if self.config else ()


def make_pair(record: TargetRecord, target: Path, drafter: Path | None, drafter_kind: str, engine: str) -> Pair:
    """The pair, if this engine can measure it.

    Args:
        record: the target's in the suite: what it says of hidden states counts where a drafter's folder says nothing.
        target, drafter: folders; None for vanilla.
        drafter_kind: `suites.records.DrafterRecord.kind`.
        engine: its name. The torch engine runs Llamas alone, SGLang knows other architectures of targets.

    Raises:
        MissingError: config.json or weights are not there.
        CheckpointError: one of them is malformed, or the drafter is another target's.
    """
    if engine == "torch":
        read_target_config(target)
    check_target_weights(target)
    max_seq_len_of(1, target)
    if drafter is None:
        return Pair(target, None)
    if drafter_kind == "model":
        _check_vocabularies(drafter, target)
        return Pair(target, drafter)
    where = target / "config.json"
    sizes = TargetSizes.from_hf(read_json(where), str(where))
    layout = read_layout(drafter)
    said = record.eagle3_capture if layout == EAGLE3.name else record.capture
    if layout == EAGLE3.name:
        check_capture(drafter, said, record.name)
    config = read_config(drafter, said, sizes=sizes)
    check_target(config, sizes, drafter)
    if engine == "sglang":
        check_capturable(config, sizes, drafter)
        _check_captured(drafter, record, config, sizes, published_capture(layout, sizes.num_hidden_layers))
    return Pair(target, drafter, layout, sizes, config)


def check_branch(config: DrafterConfig | None, drafter: Path | None, tree: TreeShape | None) -> None:
    """Raises UsageError for a draft tree that is wider than the vocabulary of a draft head."""
    if config and tree and tree.branch > config.vocabulary:
        raise UsageError(
            f"draft tree {tree} is wider than the vocabulary of {drafter}, {config.vocabulary} tokens",
            "use a smaller branch",
        )


def with_ropes(
    settings: EngineSettings, target: float | None, drafter: Path | None, used: float | None
) -> EngineSettings:
    """Settings with RoPE's bases: the target's where it is known, and of a draft head the one that is ``used``."""
    said = config_rope_theta(drafter) if drafter and used else None
    return dataclasses.replace(
        settings, target_rope_theta=target, drafter_rope_theta=used, drafter_config_rope_theta=said
    )


def _check_captured(
    drafter: Path, record: TargetRecord, config: DrafterConfig, sizes: TargetSizes, captured: tuple[int, ...]
) -> None:
    """Raises CheckpointError where a suite says of a drafter's hidden states what is not what SGLang would capture."""
    taken = read_config(drafter, captured, sizes=sizes).aux_hidden_layers
    if taken != config.aux_hidden_layers:
        raise CheckpointError(
            f"{drafter}: the suite says that it reads the hidden states {list(config.aux_hidden_layers)} of target "
            f"{record.name}; where a folder does not say it, the engine sglang captures {list(taken)}",
            "use --engine torch, or a folder that says it: prism-ae convert --to own --capture",
        )


def _check_vocabularies(drafter: Path, target: Path) -> None:
    """A separate model drafts the target's own token ids; raises CheckpointError where it cannot."""
    ours, theirs = (read_json(folder / "config.json").get("vocab_size") for folder in (drafter, target))
    if ours != theirs:
        raise CheckpointError(
            f"{drafter}: its vocabulary has {ours} tokens, that of the target {target} has {theirs}",
            "choose a small model with the target's tokenizer",
        )
