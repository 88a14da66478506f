"""A random target and random examples, for trainings of a second; and a training of them as a program of its own.

    python small_world.py NAME '{"tokens": 60}' [state file] [seconds to take per step]

prints the losses and the sum of the drafter's bytes as JSON; several with torchrun's variables train together.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from prism_ae.drafters.model import Drafter
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, cast_parameters
from prism_ae.recipes.file import DrafterRecipe, DrafterTraining, load_recipes
from prism_ae.training.drafter import IN_ONE_GO, Course, Data, new_drafter, train, warm_started
from prism_ae.training.examples import Example
from prism_ae.training.features import IN_MEMORY, FeaturePlace, Features
from prism_ae.training.mapped import content_digest
from prism_ae.training.ranks import ALONE, Ranks, joined_ranks
from prism_ae.training.target import new_target

RECIPES = load_recipes()
CAPTURE = {"final": (), "capture": (2, 3, 4), "eagle3_capture": (1, 2, 3)}
VOCABULARY = 600


@functools.cache
def small_target(dtype: torch.dtype = torch.float32) -> Llama:
    config = LlamaConfig(VOCABULARY, 32, 48, 4, 4, 2, 1e-5, 1000.0, 128)
    target = new_target(config, 0.5, 1).eval().requires_grad_(requires_grad=False)
    cast_parameters(target, dtype)
    return target


def small_examples(count: int = 24) -> list[Example]:
    """Of 8 to 70 tokens, some of them much more frequent than others."""
    chance = random.Random(7)
    weights = [1 / (token + 1) for token in range(VOCABULARY)]
    lengths = [chance.randrange(8, 70) for _ in range(count)]
    return [
        Example(tuple(chance.choices(range(VOCABULARY), weights, k=length)), chance.randrange(2, length - 3))
        for length in lengths
    ]


def small_data(place: FeaturePlace = IN_MEMORY, dtype: torch.dtype = torch.float32, ranks: Ranks = ALONE) -> Data:
    examples = small_examples()
    return Data(Features(small_target(dtype), examples, (1, 2, 3, 4), place, ranks=ranks), len(examples), "2x")


def small_training(**changed: Any) -> DrafterTraining:
    return dataclasses.replace(RECIPES.drafter_training, **{"warmup": 3, **changed})


def small_drafter(recipe: DrafterRecipe, data: Data) -> Drafter:
    """New, or from an untrained drafter of the recipe that it starts from."""
    first = RECIPES.drafters[recipe.start] if recipe.start else recipe
    drafter = new_drafter(first, data.features.target, CAPTURE[recipe.reads], data.examples, 3)
    return warm_started(recipe, data.features.target, drafter) if recipe.start else drafter


def trained_small(
    name: str,
    changed: Mapping[str, Any],
    data: Data,
    course: Course = IN_ONE_GO,
    tick: Callable[[int, float], None] = lambda steps, loss: None,
) -> tuple[Drafter, list[float]]:
    """The drafter and its losses; ``changed`` of the training, or of the recipe."""
    fields = {field.name for field in dataclasses.fields(DrafterTraining)}
    recipe = RECIPES.drafters[name]
    if recipe.draft_vocabulary:
        recipe = dataclasses.replace(recipe, draft_vocabulary=100)
    recipe = dataclasses.replace(recipe, **{key: value for key, value in changed.items() if key not in fields})
    training = small_training(**{key: value for key, value in changed.items() if key in fields})
    drafter, losses = small_drafter(recipe, data), list[float]()

    def heard(steps: int, loss: float) -> None:
        losses.append(loss)
        tick(steps, loss)

    train(recipe, training, data, drafter, heard, course=course)
    return drafter, losses


def bytes_of(drafter: Drafter) -> str:
    return content_digest(drafter.parameters())


def main() -> None:
    name, changed, state, pause = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    with joined_ranks("cpu") as ranks:
        data = small_data(ranks=ranks)
        course = Course(ranks, Path(state) if state else None, every=0.0)
        drafter, losses = trained_small(name, changed, data, course, lambda steps, loss: time.sleep(pause))
    print(json.dumps({"losses": losses, "bytes": bytes_of(drafter)}))


if __name__ == "__main__":
    main()
