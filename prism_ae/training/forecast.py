"""What training a suite of a real target will make, take of the disk, and take of the day, before it begins.

No torch: sizes follow from the target's config, times from what the recipe file says was measured on one machine.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from prism_ae.io.words import duration, format_bytes, pluralise
from prism_ae.models.checkpoints import read_target_config
from prism_ae.models.config import LlamaConfig
from prism_ae.recipes.catalogue import Artifact, SuiteOrder
from prism_ae.recipes.file import DrafterRecipe, MeasuredRates
from prism_ae.training.material import target_place
from prism_ae.training.written.shards import Taken

_TEXT_BYTES = 8
"""On the disk per answer token of written data, rather more than less."""


@dataclasses.dataclass(frozen=True)
class TrainingForecast:
    """What is to be done for the targets of an order.

    Attributes:
        missing: drafters to train.
        there: of all that are asked, how many are trained already.
        to_write: answer tokens that are missing of the data; 0 where they are the user's own.
        answer_tokens: of the data, all targets together.
        kept_bytes: of the disk for good; meanwhile_bytes: besides, while it trains.
        write_seconds, state_seconds, train_seconds: on the machine that the recipe file names.
    """

    missing: tuple[Artifact, ...]
    there: int
    to_write: int
    answer_tokens: int
    kept_bytes: int
    meanwhile_bytes: int
    write_seconds: float
    state_seconds: float
    train_seconds: float

    def in_words(self, order: SuiteOrder) -> list[str]:
        """Lines for people."""
        catalogue, rates = order.catalogue, order.catalogue.recipes.measured
        names = list(dict.fromkeys(one.name for one in self.missing))
        scales = list(dict.fromkeys(str(one.scale) for one in self.missing))
        if not self.missing:
            return [
                f"all {pluralise(self.there, 'model')} of suite {catalogue.suite.name} that are asked for are trained"
            ]
        there = f", {self.there:,} are there" if self.there else ""
        lines = [
            f"suite {catalogue.suite.name}: {pluralise(len(self.missing), 'drafter')} to train into "
            f"{catalogue.folder}{there}",
            f"  {', '.join(names)} at {', '.join(scales)}",
        ]
        if order.data is not None:
            lines.append(f"  data: {self.answer_tokens:,} answer tokens of {order.data}")
        elif self.to_write:
            lines.append(f"  data: {self.to_write:,} answer tokens to be written, of {self.answer_tokens:,}")
        else:
            lines.append(f"  data: {self.answer_tokens:,} answer tokens, which are there")
        needed = self.kept_bytes + self.meanwhile_bytes
        lines.append(
            f"  disk: about {format_bytes(self.kept_bytes)} for good, {format_bytes(self.meanwhile_bytes)} meanwhile"
        )
        free = _free(catalogue.folder)
        if free < needed:
            lines.append(f"  only {format_bytes(free)} are free there: choose another --models-dir, or fewer --scales")
        if rates is None:
            lines.append(f"  time: said once it is under way ({catalogue.recipe_file} has no [measured])")
        else:
            parts = [
                (f"{what} {duration(seconds)}")
                for what, seconds in (
                    ("data", self.write_seconds),
                    ("hidden states", self.state_seconds),
                    ("drafters", self.train_seconds),
                )
                if seconds
            ]
            total = self.write_seconds + self.state_seconds + self.train_seconds
            lines.append(f"  time: about {duration(total)} on {rates.machine} ({', '.join(parts)})")
        return lines


def forecast(order: SuiteOrder) -> TrainingForecast:
    """What is to be done; raises MissingError where a target is not here."""
    catalogue, recipes = order.catalogue, order.catalogue.recipes
    artifacts = order.artifacts
    missing = tuple(one for one in artifacts if not one.folder.exists())
    data, rates = catalogue.data_recipe(), recipes.measured
    kept = meanwhile = to_write = all_tokens = 0
    states = 0.0
    for target in order.downloaded_targets:
        mine = [one for one in missing if one.target == target]
        if not mine:
            continue
        config = read_target_config(target_place(catalogue, target))
        wanted = data.answer_tokens(order.largest.value)
        all_tokens += wanted
        if order.data is None:
            to_write += max(0, wanted - _written(catalogue.data_folder(target)))
            kept += wanted * _TEXT_BYTES
        sizes = [_parameters(recipes.drafters[one.name], config) for one in mine]
        kept += 4 * sum(sizes)
        read = wanted * (rates.read_per_answer if rates else 1.0)
        half = recipes.drafter_training.dtype == "bfloat16"
        layers = {
            layer for one in artifacts if one.target == target and one.kind == "draft-head"
            for layer in catalogue.captured(target, recipes.drafters[one.name])
        }  # fmt: skip
        # Hidden states, the target's best token, and one training's weights with both moments.
        meanwhile += round(read * (config.hidden_size * (1 + len(layers)) * (2 if half else 4) + 4)) + 12 * max(sizes)
        states += read
    took = (0.0, 0.0, 0.0)
    if rates is not None:
        drafters = sum(_seconds(one, order, rates) for one in missing)
        took = (to_write / rates.kept / rates.written, states / rates.states, drafters)
    return TrainingForecast(missing, len(artifacts) - len(missing), to_write, all_tokens, kept, meanwhile, *took)


def _seconds(artifact: Artifact, order: SuiteOrder, rates: MeasuredRates) -> float:
    recipe = order.catalogue.recipes.drafters[artifact.name]
    tokens = artifact.recipe["data"]["answer_tokens"] * rates.read_per_answer * artifact.recipe["training"]["passes"]
    return float(tokens / 1000 * (rates.base + rates.forward * recipe.forwards * recipe.layers))


def _parameters(recipe: DrafterRecipe, target: LlamaConfig) -> int:
    """Numbers that a drafter of this recipe has, norms left out."""
    size, read = target.hidden_size, 0 if recipe.reads == "final" else 3
    eagle3 = recipe.cell == "eagle3"
    entered = 2 * size if eagle3 else size
    attention = entered * (size + 2 * target.key_value_size) + size * size
    layer = attention + 3 * size * target.intermediate_size
    module = recipe.layers * layer + (0 if eagle3 else 2 * size * size)
    head = min(recipe.draft_vocabulary or target.vocab_size, target.vocab_size) * size if eagle3 else 0
    return len(set(recipe.step_mapping)) * module + read * size * size + head


def _written(folder: Path) -> int:
    """Answer tokens that are there; what is damaged is refused when it is read."""
    taken = Taken(folder)
    taken.read_on()
    return taken.answer_tokens


def _free(folder: Path) -> int:
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free
