"""How large targets and drafters are, and what a decoding step reads of them. Pure functions of configs, no torch.

Decoding one sequence reads every weight once per forward pass and does next to nothing with it: its speed is that of
the memory. So what a step *reads* is its cost to first order, and what a drafter merely *has* is free. That is PRISM's
idea: its modules are its parameters, one of them is what a draft step reads.

A forward pass reads all weights of its layers and its head, of an embedding table the rows of its tokens alone, and the
keys and values of the context. Activations stay in caches and are not counted. Of a draft head the embedding is the
target's, and so is the head unless it has its own (EAGLE-3): *shared*, read by each draft step, no parameters of the
drafter. Of a shared head a draft step reads the rows of the draft vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from prism_ae.cells import TreeShape
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.records import DRAFT_IDS, layer_shapes, stored_shapes
from prism_ae.models.config import LlamaConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number."""

Model = LlamaConfig | DrafterConfig
"""What drafts: a model of its own ("Standard"), or a draft head."""


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a forward pass reads, in numbers.

    Attributes:
        own: weights of the model itself, without an embedding table.
        shared: weights of the target's head, where a draft head uses it.
        row: of an embedding table per token read.
        key_values: per token of the context.
    """

    own: int
    shared: int
    row: int
    key_values: int


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How it is decoded: ``batch`` sequences together, each with a context of so many tokens, in numbers of so many
    bytes (`BYTES`)."""

    batch: int
    context: float
    number_bytes: int


def parameters(config: Model) -> int:
    """All of a model's own parameters; of a tied head and embedding once."""
    if isinstance(config, DrafterConfig):
        return _count(shape for name, shape in stored_shapes(config).items() if name != DRAFT_IDS)
    table = config.vocab_size * config.hidden_size
    return _body(config) + (table if config.tie_word_embeddings else 2 * table)


def forward_pass(config: Model, step: int = 0) -> Pass:
    """What a forward pass of a target, or draft step ``step`` of a drafter (from 0), reads.

    Step 0 of a drafter that reads auxiliary hidden states runs their projection, too.
    """
    if isinstance(config, LlamaConfig):
        layers, row = config.num_hidden_layers, config.hidden_size
        return Pass(_body(config) + config.vocab_size * row, 0, row, 2 * layers * config.key_value_size)
    layer, module = config.layer, f"modules.{config.module_of(step)}."
    idle = ("modules.", DRAFT_IDS) if step == 0 else ("modules.", DRAFT_IDS, "entry.")
    own = _count(
        shape for name, shape in stored_shapes(config).items() if name.startswith(module) or not name.startswith(idle)
    )
    shared = 0 if config.cell == "eagle3" else config.vocabulary * layer.hidden_size
    return Pass(own, shared, layer.hidden_size, 2 * layer.num_hidden_layers * layer.key_value_size)


def step_bytes(read: Pass, tokens: int, how: Decoding) -> float:
    """Bytes that a forward pass over ``tokens`` tokens of each sequence reads."""
    each = tokens * read.row + how.context * read.key_values
    return how.number_bytes * (read.own + read.shared + how.batch * each)


def draft_bytes(drafter: Model, tree: TreeShape, how: Decoding) -> float:
    """Bytes that the draft steps of a round read: the first has the root to begin with, each later one a beam."""
    widths = [1] + [tree.branch] * (tree.steps - 1)
    return sum(step_bytes(forward_pass(drafter, step), width, how) for step, width in enumerate(widths))


def sizes(target: LlamaConfig, drafter: Model | None, tree: TreeShape | None, how: Decoding) -> dict[str, float]:
    """What is recorded beside a cell whose time is measured.

    Args:
        drafter, tree: None for vanilla decoding.

    Returns:
        Parameters: "target_parameters" and "target_active_parameters", those that a step reads (one row of the
        embedding). Bytes: "target_step_bytes" of a step of vanilla decoding. "context" in tokens.
        With a drafter also "drafter_parameters", "drafter_active_parameters" (of its first draft step, which runs the
        most), "drafter_shared_parameters" (what that step reads of the target: the head unless it has its own, one row
        of the embedding); "draft_step_bytes", the mean over a round's draft steps, and "round_bytes", all of them and
        the target's verification together.
    """
    read = forward_pass(target)
    found: dict[str, float] = {
        "context": round(how.context, 1),
        "target_parameters": parameters(target),
        "target_active_parameters": read.own + read.row,
        "target_step_bytes": step_bytes(read, 1, how),
    }
    if drafter is None or tree is None:
        return found
    first, drafting, alone = forward_pass(drafter), draft_bytes(drafter, tree, how), isinstance(drafter, LlamaConfig)
    return found | {
        "drafter_parameters": parameters(drafter),
        "drafter_active_parameters": first.own + (first.row if alone else 0),
        "drafter_shared_parameters": 0 if alone else first.shared + first.row,
        "draft_step_bytes": drafting / tree.steps,
        "round_bytes": drafting + step_bytes(read, tree.verified, how),
    }


def _body(config: LlamaConfig) -> int:
    """A target's layers and its last norm."""
    layer = layer_shapes(config, input_norm=True, input_size=config.hidden_size)
    return config.num_hidden_layers * _count(layer.values()) + config.hidden_size


def _count(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)
