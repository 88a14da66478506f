"""Training one drafter for any Llama-style target, from any conversations: the mini suite's recipes on your data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from prism_ae.checkpoints import WEIGHTS
from prism_ae.errors import ConfigError, UsageError
from prism_ae.fingerprint import file_digest, plain
from prism_ae.suites.records import Template
from prism_ae.toml import closest
from prism_ae.training.jobs import Report, StepCounter, provenance
from prism_ae.training.recipes import MINI, DrafterRecipe, load_recipes


def captured_states(reads: str, layers: int) -> tuple[int, ...]:
    """Hidden states a recipe reads in a target of so many layers: the paper's places (3, 17, 30 and 2, 16, 29 of 32).

    Raises:
        ConfigError: the target has too few layers to tell the places apart.
    """
    if reads == "final":
        return ()
    places = (3, layers // 2 + 1, layers - 2) if reads == "capture" else (2, layers // 2, layers - 3)
    if len(set(places)) < 3 or sorted(places) != list(places):
        raise ConfigError(f"a target of {layers} layers is too shallow for a drafter that reads three hidden states")
    return places


def train_drafter(
    name: str,
    target_folder: Path,
    data_file: Path,
    out: Path,
    template: Template,
    system: str,
    report: Report = lambda part, loss: None,
    device: str = "cpu",
    recipe_file: Path = MINI,
) -> Path:
    """Train a drafter by the recipe ``name`` and publish it; a warm start that the recipe asks for is trained before.

    Args:
        target_folder: Hugging Face layout with ``tokenizer.json``.
        data_file: conversations, one JSON object per line (`jsonl.read_jsonl`).
        out: the drafter's folder; must not exist.
        template, system: how the target is spoken to; never guessed.
        report: called after each step with the part done and the loss.
        device: torch's name of a device.

    Returns:
        ``out``.

    Raises:
        UsageError: no such recipe, or ``out`` exists.
        MissingError, CheckpointError: the target cannot be loaded.
        ConfigError: the data cannot be read, or hold nothing to learn from.
        StoreError: ``out`` cannot be written.
    """
    recipes = load_recipes(recipe_file)
    if name not in recipes.drafters:
        known = ", ".join(recipes.drafters)
        raise UsageError(
            f"there is no recipe for a drafter '{name}'{closest(name, recipes.drafters)}", f"one of {known}"
        )
    if out.exists():
        raise UsageError(f"{out} exists already", "choose another folder with --out, or delete it")
    began = time.monotonic()
    recipe, training = recipes.drafters[name], recipes.drafter_training

    import torch

    from prism_ae.checkpoints import load_target, publish
    from prism_ae.drafters.layout import save_drafter
    from prism_ae.training.drafter import (
        Data,
        extra_steps,
        new_drafter,
        train_extra,
        train_trunk,
        trunk_steps,
        warm_started,
    )
    from prism_ae.training.examples import encode
    from prism_ae.training.features import Features
    from prism_ae.training.jsonl import read_jsonl
    from prism_ae.training.tokenizer import load_tokenizer

    target = load_target(target_folder, torch.float32, torch.device(device))
    told = read_jsonl(data_file)
    window = target.config.max_position_embeddings
    turns = encode(told, load_tokenizer(target_folder), template, system, window)
    examples = [example for conversation in turns for example in conversation]
    if not any(len(example.ids) - example.start > 1 for example in examples):
        raise ConfigError(f"{data_file} holds no answer that fits into the target's {window} tokens")
    capture = captured_states(recipe.reads, target.config.num_hidden_layers)
    data = Data(Features(target, examples, capture), (len(examples),))

    first = recipes.drafters[recipe.start] if recipe.start else recipe
    extra = extra_steps(training, len(examples)) if recipe.start else 0
    counter = StepCounter(trunk_steps(training, data.ends) + extra, report)
    drafter = new_drafter(first, target, capture, examples, training.seed)
    (drafter,) = train_trunk(first, training, data, drafter, counter.tick)
    if recipe.start:
        drafter = train_extra(recipe, training, data, warm_started(recipe, target, drafter), counter.tick)
    publish(
        out,
        "drafter",
        name,
        None,
        _recipe(recipe, first, plain(training), data_file, target_folder, template, system),
        provenance(time.monotonic() - began, loss=round(counter.loss, 4), examples=len(examples)),
        lambda folder: save_drafter(folder, drafter),
    )
    return out


def _recipe(
    recipe: DrafterRecipe,
    first: DrafterRecipe,
    training: dict[str, Any],
    data_file: Path,
    target_folder: Path,
    template: Template,
    system: str,
) -> dict[str, Any]:
    return {
        "drafter": dataclasses.asdict(recipe),
        "start": dataclasses.asdict(first) if recipe.start else None,
        "training": training,
        "data": file_digest(data_file),
        "target": {name: file_digest(target_folder / name) for name in ("config.json", WEIGHTS)},
        "template": plain(template),
        "system": system,
    }
