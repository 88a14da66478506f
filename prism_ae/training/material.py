"""What drafters of a downloaded target learn from: what it wrote, or a file of one's own; how much at each scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.errors import ConfigError, MissingError
from prism_ae.io.words import pluralise
from prism_ae.models.checkpoints import read_target_config
from prism_ae.models.locate import Absent, locate_target
from prism_ae.prompts.conversation import Conversation, open_conversation
from prism_ae.recipes.catalogue import Catalogue, SuiteOrder
from prism_ae.training.jsonl import read_conversations

if TYPE_CHECKING:
    from prism_ae.training.examples import Example


@dataclasses.dataclass(frozen=True)
class TrainingMaterial:
    """Examples of the largest scale, which begin with those of every smaller one.

    Attributes:
        target: its folder.
        counts: scale -> how many of the examples are its own.
        lines: for people, about what is used and what is not.
    """

    target: Path
    examples: list[Example]
    counts: Mapping[str, int]
    lines: list[str]


def target_place(catalogue: Catalogue, name: str) -> Path:
    """A downloaded target's folder; raises MissingError."""
    found = locate_target(catalogue.suite, name, catalogue.models_dir)
    if isinstance(found, Absent):
        raise MissingError(found.reason, found.hint)
    return found.path


def talk(catalogue: Catalogue, name: str) -> Conversation:
    """The conversation with a downloaded target."""
    suite = catalogue.suite
    template = suite.templates[suite.targets[name].template]
    return open_conversation(target_place(catalogue, name), template, suite.system_prompt)


def material(order: SuiteOrder, name: str) -> TrainingMaterial:
    """What the drafters that are asked for a target learn from.

    Raises:
        MissingError: the data are not written yet, or the file is not there.
        ConfigError: they are damaged, or too few for a scale.
    """
    from prism_ae.training.conversations import learnt
    from prism_ae.training.written.shards import read_data

    catalogue = order.catalogue
    folder, recipe = target_place(catalogue, name), catalogue.data_recipe()
    longest = read_target_config(folder).max_position_embeddings
    scales = {one.name: one.value for one in catalogue.suite.scales if not order.scales or one.name in order.scales}
    tokens = {scale: recipe.answer_tokens(value) for scale, value in scales.items()}
    conversation, counts = talk(catalogue, name), dict[str, int]()
    if order.data is not None:
        told = read_conversations(order.data)
        if told.sha256 != catalogue.data_sum:
            raise ConfigError(f"{order.data} changed while drafters were trained on it", "run again")
        found = learnt(told, conversation, longest, order.data)
        for scale, asked in tokens.items():
            count = found.first(asked)
            if count is None:
                have = found.answer_tokens
                enough = [one for one, needed in tokens.items() if needed <= have]
                fewer = f"--scales {','.join(enough)}, or " if enough else ""
                raise ConfigError(
                    f"{order.data} has {have:,} answer tokens, and scale {scale} learns from {asked:,}",
                    f"take {fewer}more conversations, or a smaller data.unit in {catalogue.recipe_file}",
                )
            counts[scale] = count
    else:
        source = catalogue.data_folder(name)
        counts = {scale: len(read_data(source, asked).conversations) for scale, asked in tokens.items()}
        found = learnt(read_data(source, max(tokens.values())), conversation, longest, source)
    groups = found.groups[: max(counts.values())]
    ends = {scale: sum(map(len, groups[:count])) for scale, count in counts.items()}
    used = [f"{scale} learns from {pluralise(count, 'conversation')}" for scale, count in counts.items()]
    return TrainingMaterial(folder, [one for group in groups for one in group], ends, [*found.lines, "; ".join(used)])
