"""What is asked of the writer, and what it says on the way. No torch: the parent of the workers has none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prism_ae.devices.slots import Slot
from prism_ae.io.paths import size_of
from prism_ae.io.words import duration, format_bytes, pluralise
from prism_ae.models.checkpoints import read_target_config
from prism_ae.models.locate import Located
from prism_ae.recipes.data import DataRecipe, data_content
from prism_ae.suites.records import Template
from prism_ae.training.written.shards import Written


@dataclasses.dataclass(frozen=True)
class DataOrder:
    """Conversations that a target is to write.

    Attributes:
        folder: of the data; made if it does not exist. What is there is kept.
        target: its folder, Hugging Face layout with ``tokenizer.json``.
        template, system: how it is spoken to.
        answer_tokens: to have at least.
        slots: at least one; a worker each. On CPUs of one thread each: then it does not matter how many there are.
    """

    folder: Path
    target: Located
    template: Template
    system: str
    recipe: DataRecipe
    answer_tokens: int
    slots: tuple[Slot, ...]

    @property
    def content(self) -> dict[str, Any]:
        """What decides the conversations."""
        return data_content(self.recipe, self.target.fingerprint, self.template, self.system)

    def worker_bytes(self) -> int:
        """Memory that a worker takes at most, rather more than less; raises MissingError or CheckpointError."""
        config, recipe = read_target_config(self.target.path), self.recipe
        size = 4 if recipe.dtype == "float32" else 2
        positions = recipe.user.max_tokens + recipe.answer.max_tokens + _TEMPLATE_TOKENS
        row = 2 * config.num_hidden_layers * config.key_value_size * positions * size + config.vocab_size * (size + 4)
        return _WORKER_BYTES + size_of([self.target.path]) + recipe.rows * row


_WORKER_BYTES, _TEMPLATE_TOKENS = 600_000_000, 100
"""Of Python, torch and a pass over prompts; and what a template and its system prompt are taken for."""


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """A shard to write."""

    number: int
    affinity: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"shard {self.number}"


@dataclasses.dataclass(frozen=True)
class ShardProgress:
    """How far a shard is: tokens written of user turns and of answers; and the worker's process and peak memory."""

    user_tokens: int
    answer_tokens: int
    process: int
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """What there is, and what this run did for it.

    Attributes:
        conversations, answer_tokens: that no earlier shard has.
        cut: answers that end at the limit.
        begun: user turns; ``dropped``: how many of them, by reason.
        written, seconds: tokens of this run, those of what was dropped included, and how long it took.
        peak_bytes: memory of all its processes at most; 0 where nothing had to be written.
        disk_bytes: of the folder.
        examples: the first ten conversations.
    """

    conversations: int
    answer_tokens: int
    shards: int
    cut: int
    begun: int
    dropped: dict[str, int]
    spent: int
    written: int
    seconds: float
    peak_bytes: int
    disk_bytes: int
    examples: tuple[Written, ...]

    def in_words(self) -> list[str]:
        """Lines for people: how much there is, what was dropped and why, what it took."""
        each = self.answer_tokens / max(1, self.conversations)
        lines = [
            f"{self.conversations:,} conversations with {self.answer_tokens:,} answer tokens ({each:.0f} each; "
            f"{self.cut:,} answers cut at the limit), of {self.begun:,} user turns in "
            f"{pluralise(self.shards, 'shard')}",
            *(f"  {count:,} {reason}" for reason, count in self.dropped.items() if count),
        ]
        if self.written:
            lines.append(
                f"  now {self.written:,} tokens in {duration(self.seconds)}, {self.written / self.seconds:,.0f} a "
                f"second; peak memory {format_bytes(self.peak_bytes)}, {format_bytes(self.disk_bytes)} on the disk"
            )
        return lines

    def shown_examples(self) -> list[str]:
        """The examples, two lines each, long texts shortened."""
        return [
            line
            for one in self.examples
            for line in (f"  user: {_shortened(one.user)}", f"  answer: {_shortened(one.answer)}")
        ]


_SHOWN = 160


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
