"""Training one drafter for any Llama-style target, from any conversations: the mini suite's recipes on your data."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.drafters.config import authors_states
from prism_ae.errors import ConfigError, UsageError
from prism_ae.io.digests import file_digest, plain
from prism_ae.io.schema import suggest
from prism_ae.models.weights import open_weights
from prism_ae.prompts.conversation import CONFIG, GENERATION_CONFIG, open_conversation
from prism_ae.prompts.tokenizer import RULES, TOKENIZER
from prism_ae.recipes.file import MINI, decisive, load_recipes
from prism_ae.suites.records import Template
from prism_ae.training.jobs import Report, StepCounter, dtype_of, provenance
from prism_ae.training.jsonl import read_conversations

if TYPE_CHECKING:
    pass


def captured_states(reads: str, layers: int) -> tuple[int, ...]:
    """Hidden states a recipe reads in a target of so many layers: where the authors' drafters read.

    Raises:
        ConfigError: the target has too few layers to tell the places apart.
    """
    if reads == "final":
        return ()
    places = authors_states("eagle" if reads == "capture" else "eagle3", layers)
    if len(set(places)) < 3 or sorted(places) != list(places):
        raise ConfigError(f"a target of {layers} layers is too shallow for a drafter that reads three hidden states")
    return places


@dataclasses.dataclass(frozen=True)
class DrafterOrder:
    """A drafter that is to be trained.

    Attributes:
        name: of the recipe.
        target: folder, Hugging Face layout with ``tokenizer.json``.
        data: file of conversations (`jsonl.read_conversations`).
        out: the drafter's folder; must not exist.
        template, system: how the target is spoken to; never guessed.
        device: torch's name of a device.
    """

    name: str
    target: Path
    data: Path
    out: Path
    template: Template
    system: str
    device: str = "cpu"
    recipe_file: Path = MINI


@dataclasses.dataclass(frozen=True)
class TrainingReports:
    """Who is told.

    Attributes:
        data: once, before the first step, in lines: what of the data is used and what is left out.
        prepared: now and then before the first step: the part (0 to 1) of the target's states that is computed.
        step: after each step: the part done and the loss.
    """

    data: Callable[[Sequence[str]], None] = lambda lines: None
    prepared: Callable[[float], None] = lambda part: None
    step: Report = lambda part, loss: None


NOBODY = TrainingReports()


def train_drafter(order: DrafterOrder, reports: TrainingReports = NOBODY) -> Path:
    """Train a drafter and publish it; a warm start that its recipe asks for is trained before.

    Everything that is needed at the end is read, digested and checked before the first step.

    Returns:
        Its folder: ``out``, or where that was taken meanwhile, ``out`` with a number behind its name.

    Raises:
        UsageError: no such recipe, or ``out`` exists.
        MissingError, CheckpointError: the target cannot be loaded.
        ConfigError: the data cannot be read, hold nothing to learn from, or tokens that the target does not have.
        StoreError: ``out`` cannot be written.
    """
    name, out = order.name, order.out
    recipes = load_recipes(order.recipe_file)
    if name not in recipes.drafters:
        known = ", ".join(recipes.drafters)
        raise UsageError(
            f"there is no recipe for a drafter '{name}'{suggest(name, recipes.drafters)}", f"one of {known}"
        )
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists already", "choose another folder with --out, or delete it")
    began = time.monotonic()
    recipe, training = recipes.drafters[name], recipes.drafter_training
    first = recipes.drafters[recipe.start] if recipe.start else recipe

    import torch

    from prism_ae.drafters.checkpoint import save_drafter
    from prism_ae.models.checkpoints import Manifest, check_place, load_target, publish, read_target_config
    from prism_ae.training.conversations import learnt
    from prism_ae.training.drafter import (
        Data,
        new_drafter,
        train,
        training_steps,
        warm_started,
    )
    from prism_ae.training.features import Features

    config = read_target_config(order.target)
    capture = captured_states(recipe.reads, config.num_hidden_layers)
    check_place(out)
    sums = target_sums(order.target)
    conversation = open_conversation(order.target, order.template, order.system)
    told = read_conversations(order.data)
    found = learnt(told, conversation, config.max_position_embeddings, order.data)
    examples, lines = found.examples, found.lines
    reports.data(lines)
    made = {
        "drafter": decisive(recipe),
        "start": decisive(first) if recipe.start else None,
        "training": decisive(training),
        "data": told.sha256,
        "target": sums,
        "template": plain(order.template),
        "system": order.system,
    }
    target = load_target(order.target, dtype_of(training), torch.device(order.device))
    features = Features(target, examples, capture, tick=reports.prepared)
    data = Data(features, len(examples), list(training.scratch.passes)[-1])

    stages = tuple(dict.fromkeys((first, recipe)))
    counter = StepCounter(sum(training_steps(one, training, data) for one in stages), reports.step)
    drafter = new_drafter(first, target, capture, examples, training.seed)
    check_place(out, sum(parameter.nbytes for parameter in drafter.parameters()) * len(set(recipe.step_mapping)))
    for one in stages:
        drafter = warm_started(one, target, drafter) if one.start else drafter
        train(one, training, data, drafter, counter.tick)
    facts = {"loss": round(counter.loss, 4), "examples": len(examples), "data": lines}
    facts = provenance(time.monotonic() - began, **facts)
    about = Manifest("drafter", name, None, made, provenance=facts)
    for place in _places(out):
        if not place.exists() and not place.is_symlink():
            published = publish(place, about, lambda folder: save_drafter(folder, drafter))
            if published.provenance == facts:  # else another training was there first
                return place
    raise AssertionError("there is no end of places")


def _places(out: Path) -> Iterator[Path]:
    """The drafter's folder, and where it goes if that was taken while it was trained."""
    yield out
    yield from (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))


def target_sums(folder: Path) -> dict[str, str]:
    """File name -> sha256 of what decides what a target says and reads: config, tokenizer, weights of every shard."""
    weights = open_weights(folder)
    texts = (CONFIG, GENERATION_CONFIG, TOKENIZER, RULES)
    files = {folder / name for name in texts if (folder / name).exists()} | {weights.source, *weights.files.values()}
    return {path.name: file_digest(path) for path in sorted(files)}
