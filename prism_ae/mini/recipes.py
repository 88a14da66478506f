"""The recipe file: everything that decides what a training yields, as data.

``recipes.toml`` beside this module is the mini suite's. No torch here: a plan needs a recipe's digest, not its models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prism_ae.errors import ConfigError
from prism_ae.io.schema import check, read_toml, record

MINI = Path(__file__).parent / "recipes.toml"


@record
class CorpusRecipe:
    """Training conversations of the drafters: scale s has the first ``s * unit`` of ``conversations(…, seed)``."""

    seed: int
    unit: int


@record
class TokenizerRecipe:
    """`tokenizer.train_tokenizer`, from the first ``conversations`` of the target's."""

    vocabulary: int
    single_digits: bool
    conversations: int


@record
class Shape:
    """Sizes of a model; the vocabulary is the tokenizer's. ``window`` is the longest sequence, in tokens."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    rope_theta: float
    window: int


@record
class TargetTraining:
    """How a target is trained from scratch.

    Attributes:
        conversations: of the corpus, seen once; ``seed`` chooses them, the order and the initial weights.
        rows: examples per step.
        learning_rate: highest, of AdamW; ``matrix_learning_rate`` of Muon, for the layers' matrices.
        warmup: steps; ``decay`` the part of all steps in which the rate falls linearly to 0.
        prompt_weight: weight of a prompt token's loss, an answer's token has 1.
        embedding_std: of the initial embedding.
        clip: largest gradient norm.
    """

    conversations: int
    seed: int
    rows: int
    learning_rate: float
    matrix_learning_rate: float
    warmup: int
    decay: float
    prompt_weight: float
    embedding_std: float
    clip: float


@record
class TargetRecipe:
    """One target and the smaller language model beside it, which shares its tokenizer."""

    tokenizer: TokenizerRecipe
    shape: Shape
    training: TargetTraining
    small_shape: Shape
    small_training: TargetTraining


@record
class DrafterTraining:
    """How every drafter is trained; the same for all of them, so that a figure compares drafters and not settings.

    Attributes:
        rows: examples per step.
        learning_rate: from scratch, highest; AdamW with ``betas`` and ``weight_decay``.
        warmup: steps in which the rate rises.
        decay: a drafter from scratch passes once through all data at a constant rate. At the end of each scale's data a
            branch leaves, for ``decay`` of a pass over that scale's data, and its rate falls linearly to 0.
        extra_learning_rate, extra_passes: of a drafter with a warm start: so many passes over its scale's data, the
            rate falling linearly to 0.
        clip: largest gradient norm.
        seed: of initial weights and order.
    """

    rows: int
    learning_rate: float
    extra_learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup: int
    extra_passes: float
    decay: float
    clip: float
    seed: int


@record
class DrafterRecipe:
    """One drafter.

    Attributes:
        targets: trained for these.
        drawn: a drafter of the suite; false for one that others only start from.
        cell, layers, step_mapping, draft_vocabulary: see `drafters.model.DrafterConfig`; draft_vocabulary 0 is the
            target's.
        reads: hidden states read at step 0: "final", or the suite's "capture" or "eagle3_capture".
        start: name of the recipe whose weights it starts from (its module 0 is copied into every module), or "".
        forwards: draft steps that are unrolled.
        detach: whether a step's input is cut from the step before.
        context: "entry" or "own", see `unroll`.
        feature_weight, soft_weight, top_k_weight, top_k, step_decay: see `losses.LossWeights`.
    """

    targets: tuple[str, ...]
    drawn: bool
    cell: Literal["eagle", "eagle3"]
    layers: int
    step_mapping: tuple[int, ...]
    reads: Literal["final", "capture", "eagle3_capture"]
    forwards: int
    detach: bool
    feature_weight: float
    soft_weight: float
    start: str = ""
    context: Literal["entry", "own"] = "entry"
    top_k_weight: float = 0.0
    top_k: int = 10
    step_decay: float = 1.0
    draft_vocabulary: int = 0


@record
class Recipes:
    """A recipe file."""

    corpus: CorpusRecipe
    targets: dict[str, TargetRecipe]
    drafter_training: DrafterTraining
    drafters: dict[str, DrafterRecipe]


def load_recipes(path: Path = MINI) -> Recipes:
    """Read and check a recipe file; raises ConfigError naming file and key."""
    recipes = check(read_toml(path), Recipes, str(path))
    for name, recipe in recipes.drafters.items():
        if recipe.start and recipe.start not in recipes.drafters:
            known = ", ".join(recipes.drafters)
            raise ConfigError(f"{path}: drafters.{name}.start: no recipe '{recipe.start}'", f"recipes: {known}")
        if unknown := set(recipe.targets) - set(recipes.targets):
            raise ConfigError(f"{path}: drafters.{name}.targets: no target '{min(unknown)}'")
        start = recipes.drafters.get(recipe.start)
        if start is not None and (start.start or set(recipe.targets) - set(start.targets)):
            raise ConfigError(
                f"{path}: drafters.{name}.start: '{recipe.start}' must be trained from scratch, for the same targets"
            )
        if start is not None and (start.cell, start.layers, start.reads) != (recipe.cell, recipe.layers, recipe.reads):
            raise ConfigError(f"{path}: drafters.{name}.start: '{recipe.start}' has another cell, depth or input")
    return recipes


def recipe_summary(drafter: str, recipes: Recipes) -> str:
    """One line for captions, e.g. "prism: 3 forwards, CE 1, from hass". Raises KeyError for an unknown drafter."""
    recipe, training = recipes.drafters[drafter], recipes.drafter_training
    terms = [
        f"{label} {weight:g}"
        for label, weight in (
            ("SmoothL1", recipe.feature_weight),
            ("CE", recipe.soft_weight),
            (f"top-{recipe.top_k} CE", recipe.top_k_weight),
        )
        if weight
    ]
    parts = [
        f"{recipe.forwards} forward{'s' if recipe.forwards > 1 else ''}{', detached' if recipe.detach else ''}",
        " + ".join(terms),
        f"lr {training.extra_learning_rate if recipe.start else training.learning_rate:g}, {training.rows} rows a step",
    ]
    if recipe.step_decay != 1:
        parts.append(f"step weights {recipe.step_decay:g}^j")
    if recipe.start:
        parts.append(f"{training.extra_passes:g} pass with a falling rate, from {recipe.start}'s weights")
    else:
        parts.append(f"1 pass at a constant rate, then {training.decay:g} pass with a falling one")
    if recipe.context == "own" and len(set(recipe.step_mapping)) > 1:
        parts.append("each module over its own keys and values")
    return f"{drafter}: {'; '.join(parts)}"
