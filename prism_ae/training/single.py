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
from prism_ae.prompts.conversation import CONFIG, GENERATION_CONFIG, Conversation, open_conversation
from prism_ae.prompts.json_lines import Problem, listed
from prism_ae.prompts.tokenizer import RULES, TOKENIZER
from prism_ae.recipes.file import MINI, load_recipes
from prism_ae.suites.records import Template
from prism_ae.training.jobs import Report, StepCounter, provenance
from prism_ae.training.jsonl import Told, read_conversations

if TYPE_CHECKING:
    from prism_ae.training.examples import Example


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
    examples, lines = _examples(told, conversation, config.max_position_embeddings, order.data)
    reports.data(lines)
    made = {
        "drafter": dataclasses.asdict(recipe),
        "start": dataclasses.asdict(first) if recipe.start else None,
        "training": plain(training),
        "data": told.sha256,
        "target": sums,
        "template": plain(order.template),
        "system": order.system,
    }
    target = load_target(order.target, torch.float32, torch.device(order.device))
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


def _examples(
    told: Told, conversation: Conversation, max_seq_len: int, data_file: Path
) -> tuple[list[Example], list[str]]:
    """What is trained on, and lines about it; raises ConfigError where there is nothing, or what has no token."""
    from prism_ae.training.examples import encode, joined

    encoded = encode(told.conversations, conversation, max_seq_len, told.cut)
    if encoded.unknown:
        problems = [
            Problem(told.places[row], f"{tokens}, beyond the target's vocabulary")
            for row, tokens in sorted(encoded.unknown.items())
        ]
        raise ConfigError(
            listed(data_file, problems), f"use the tokenizer that belongs to {conversation.folder}, or leave these out"
        )
    examples = [example for turns in encoded.turns for example in joined(turns)]
    lines = told.in_words()
    if encoded.left_out:
        lines.append(f"  {encoded.left_out:,} answers left out: behind the target's {max_seq_len:,} tokens")
    if encoded.cut:
        lines.append(f"  {encoded.cut:,} answers cut at the target's {max_seq_len:,} tokens")
    if not any(len(example.ids) - example.start > 1 for example in examples):
        raise ConfigError(
            f"{data_file} holds no answer that fits into the target's {max_seq_len} tokens",
            f"the system prompt alone has {len(conversation.system_prompt):,} letters; shorten it, or the texts",
        )
    return examples, lines
