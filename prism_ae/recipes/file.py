"""The recipe file: everything that decides what a training yields, as data.

``suites/recipes/`` has those of the suites. No torch here: a plan needs a recipe's digest, not its models.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from prism_ae.errors import ConfigError
from prism_ae.io.digests import plain
from prism_ae.io.schema import check, read_toml, record
from prism_ae.recipes.data import DataRecipe, check_data_recipe

MINI = Path(__file__).parents[1] / "suites" / "recipes" / "mini.toml"


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
class Stage:
    """How long drafters of one kind are trained, and at which rates.

    Attributes:
        learning_rate: highest, of AdamW.
        decay: the last part of all steps, in which the rate falls linearly to 0.
        passes: training scale -> passes over its data; a user's own data are taken as those of the last one.
        authors_epochs: training scale -> the authors' passes, for comparison.
    """

    learning_rate: float
    decay: float
    passes: dict[str, float]
    authors_epochs: dict[str, int]


@record
class DrafterTraining:
    """How every drafter is trained; the same for all of them, so that a figure compares drafters and not settings.

    Attributes:
        rows: examples per step.
        betas, weight_decay: of AdamW.
        warmup: steps in which the rate rises.
        clip: largest gradient norm.
        seed: of initial weights and order.
        scratch, extra: of drafters from scratch, and of those with a warm start.
        dtype: what the drafter's matrix products are computed in. Weights, gradients and the optimiser's state are
            float32 whatever it says.
        tokens: a step has examples of so many tokens together, in place of ``rows`` examples; 0: ``rows``.
        accumulate: parts that a step is computed in, one after the other: less memory, the same gradient.
        positions: most positions whose scores over the vocabulary are held at once, to save memory; 0: all.
    """

    rows: int
    betas: tuple[float, float]
    weight_decay: float
    warmup: int
    clip: float
    seed: int
    scratch: Stage
    extra: Stage
    dtype: Literal["float32", "bfloat16"] = "float32"
    tokens: int = 0
    accumulate: int = 1
    positions: int = 0

    def stage(self, recipe: DrafterRecipe) -> Stage:
        """The one that trains a drafter of this recipe."""
        return self.extra if recipe.start else self.scratch

    def of_seed(self, training_seed: int) -> DrafterTraining:
        """The same with another seed: the ``training_seed``-th further one, 0 being the file's own."""
        return dataclasses.replace(self, seed=self.seed + training_seed)


@record
class DrafterRecipe:
    """One drafter.

    Attributes:
        targets: trained for these; () is all of the suite.
        cell, layers, step_mapping, draft_vocabulary: see `drafters.model.DrafterConfig`; draft_vocabulary 0 is the
            target's.
        reads: hidden states read at step 0: "final", or the suite's "capture" or "eagle3_capture".
        start: name of the recipe whose weights it starts from (its module 0 is copied into every module), or "".
        forwards: draft steps that are unrolled.
        detach: whether a step's input is cut from the step before.
        context: "entry", "own" or "misrouted", see `unroll`.
        feature_weight, soft_weight, top_k_weight, top_k, step_decay: see `losses.LossWeights`.
        variant: trained on request only.
        counted: the tokens that are learnt from: of "answers", or "all", questions and system prompt included.
        layers_from_target: of a drafter without ``start``: its layers begin as the target's last ones, not at random.
    """

    cell: Literal["eagle", "eagle3"]
    layers: int
    step_mapping: tuple[int, ...]
    reads: Literal["final", "capture", "eagle3_capture"]
    forwards: int
    detach: bool
    feature_weight: float
    soft_weight: float
    targets: tuple[str, ...] = ()
    start: str = ""
    context: Literal["entry", "own", "misrouted"] = "entry"
    top_k_weight: float = 0.0
    top_k: int = 10
    step_decay: float = 1.0
    draft_vocabulary: int = 0
    variant: bool = False
    counted: Literal["answers", "all"] = "answers"
    layers_from_target: bool = False


_LATER: dict[type, tuple[str, ...]] = {
    DrafterTraining: ("dtype", "tokens", "accumulate", "positions"),
    DrafterRecipe: ("counted", "layers_from_target"),
}
"""Fields that came after models had been named by the rest."""


def decisive(part: DrafterTraining | DrafterRecipe) -> dict[str, Any]:
    """`plain` of a part of a recipe, for a digest: without a later field that has its default.

    So a new field renames no model whose recipe does not use it.
    """
    later = {field.name: field.default for field in dataclasses.fields(part) if field.name in _LATER[type(part)]}
    return {key: value for key, value in plain(part).items() if key not in later or value != later[key]}


@record
class MeasuredRates:
    """What training took on one machine: for saying beforehand about how long it takes, and for nothing else.

    Attributes:
        machine: which, in words; ``cores`` of it were used.
        written: tokens a second that the target writes, those of what is dropped included.
        kept: the part of them that are answers of the data.
        read_per_answer: tokens of the data, prompts included, per answer token.
        states: tokens a second whose hidden states the target computes.
        base, forward: seconds per 1,000 tokens that a drafter learns from: whatever it is, and per forward and layer.
    """

    machine: str
    cores: int
    written: float
    kept: float
    read_per_answer: float
    states: float
    base: float
    forward: float


@record
class Recipes:
    """A recipe file.

    Attributes:
        targets: those that are trained here, from ``corpus``; {} where the suite's targets are downloaded.
        corpus: of a suite whose targets are trained here: its drafters learn from the same embedded corpus.
        data: of a suite whose targets are downloaded: its drafters learn from what the target writes.
    """

    drafter_training: DrafterTraining
    drafters: dict[str, DrafterRecipe]
    targets: dict[str, TargetRecipe] = dataclasses.field(default_factory=dict)
    corpus: CorpusRecipe | None = None
    data: DataRecipe | None = None
    measured: MeasuredRates | None = None


@functools.lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> Recipes:
    return check(read_toml(path), Recipes, str(path))


def load_recipes(path: Path = MINI) -> Recipes:
    """Read and check a recipe file; raises ConfigError naming file and key."""
    recipes = _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    _check_data(recipes, path)
    _check_training(recipes.drafter_training, path)
    _check_measured(recipes.measured, path)
    for name, recipe in recipes.drafters.items():
        if recipe.start and recipe.layers_from_target:
            raise ConfigError(f"{path}: drafters.{name}.layers_from_target: it starts from '{recipe.start}' already")
        if recipe.start and recipe.start not in recipes.drafters:
            known = ", ".join(recipes.drafters)
            raise ConfigError(f"{path}: drafters.{name}.start: no recipe '{recipe.start}'", f"recipes: {known}")
        if recipes.targets and (unknown := set(recipe.targets) - set(recipes.targets)):
            raise ConfigError(f"{path}: drafters.{name}.targets: no target '{min(unknown)}'")
        if start := recipes.drafters.get(recipe.start):
            _check_start(name, recipe, start, path)
    return recipes


def _check_data(recipes: Recipes, path: Path) -> None:
    if (recipes.corpus is None) == (recipes.data is None):
        raise ConfigError(
            f"{path}: what drafters learn from: either [corpus] or [data] must be there",
            "[data] for targets that are downloaded and write it themselves, [corpus] for those of [targets]",
        )
    if bool(recipes.targets) != (recipes.corpus is not None):
        raise ConfigError(f"{path}: targets: [targets] and [corpus] belong together: targets that are trained here")
    if recipes.data is not None:
        check_data_recipe(recipes.data, f"{path}: data")


def _check_measured(measured: MeasuredRates | None, path: Path) -> None:
    for field in dataclasses.fields(MeasuredRates) if measured else ():
        value = getattr(measured, field.name)
        if not isinstance(value, str) and value <= 0:
            raise ConfigError(f"{path}: measured.{field.name}: must be above 0, got {value:g}")


def _check_training(training: DrafterTraining, path: Path) -> None:
    for key, stage in (("scratch", training.scratch), ("extra", training.extra)):
        if min(stage.passes.values(), default=0.0) <= 0:
            raise ConfigError(f"{path}: drafter_training.{key}.passes: every scale needs a number above 0")
    for key, least in (("rows", 1), ("tokens", 0), ("accumulate", 1), ("positions", 0)):
        if getattr(training, key) < least:
            raise ConfigError(f"{path}: drafter_training.{key}: must be {least} or more, got {getattr(training, key)}")


def _check_start(name: str, recipe: DrafterRecipe, start: DrafterRecipe, path: Path) -> None:
    fewer = set(start.targets) and (not recipe.targets or set(recipe.targets) - set(start.targets))
    if start.start or fewer:
        raise ConfigError(
            f"{path}: drafters.{name}.start: '{recipe.start}' must be trained from scratch, for the same targets"
        )
    if (start.cell, start.layers, start.reads) != (recipe.cell, recipe.layers, recipe.reads):
        raise ConfigError(f"{path}: drafters.{name}.start: '{recipe.start}' has another cell, depth or input")
    if start.draft_vocabulary != recipe.draft_vocabulary:
        raise ConfigError(f"{path}: drafters.{name}.start: '{recipe.start}' has another draft_vocabulary")


def recipe_summary(drafter: str, recipes: Recipes) -> str:
    """One line for captions, e.g. "prism: 3 forwards; CE 0.1; …, from hass's weights". Raises KeyError for an unknown
    drafter."""
    recipe, training = recipes.drafters[drafter], recipes.drafter_training
    stage = training.stage(recipe)
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
        f"lr {stage.learning_rate:g}",
    ]
    if recipe.step_decay != 1:
        parts.append(f"step weights {recipe.step_decay:g}^j")
    if recipe.start:
        parts.append(f"the extra stage, from {recipe.start}'s weights")
    if len(set(recipe.step_mapping)) > 1:
        whose = "its own" if recipe.context == "own" else "module 0's"
        parts.append(f"each module over {whose} keys and values")
    if recipe.context == "misrouted":
        parts.append("layers wired as in the authors' training")
    return f"{drafter}: {'; '.join(parts)}"


def passes_summary(recipes: Recipes, *, extra: bool) -> str:
    """How long drafters were trained, for captions; ``extra``: some of them had the extra stage, too."""
    training = recipes.drafter_training
    stages = {"from scratch": training.scratch} | ({"extra stage": training.extra} if extra else {})
    said = [
        f"{name} {' '.join(f'{passes:.2g}' for passes in stage.passes.values())} passes over the data "
        f"(the authors: {' '.join(map(str, stage.authors_epochs.values()))} epochs)"
        for name, stage in stages.items()
    ]
    scales = list(training.scratch.passes)
    return f"At {scales[0]} to {scales[-1]}, {training.rows} rows a step: {'; '.join(said)}"
