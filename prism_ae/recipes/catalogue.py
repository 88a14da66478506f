"""Every model of the mini suite as data: what it is made from, and the folder that holds it.

A folder's name ends in the digest of everything that decides its content, the models it builds on included. A
changed recipe therefore means another folder, and a folder that exists is up to date. No torch here: a plan asks where
models are, and must answer at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from prism_ae.errors import ConfigError
from prism_ae.io.digests import digest, plain
from prism_ae.mini import corpus
from prism_ae.recipes.file import MINI, Recipes, decisive, load_recipes
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

TRAINER_VERSION = 1
"""Raised whenever the trainer's code would make another model of the same recipe."""

SUITE = "mini"
STANDARD = "standard"
"""The drafter that is a small language model of its own."""


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One checkpoint folder.

    Attributes:
        kind: "target", "model" (a small language model) or "draft-head".
        name: recipe name: a target's or a drafter's.
        target: the target it is or belongs to.
        scale: training scale, None where there is only one.
        folder: where it is once it is published.
        recipe: everything that decides its content.
        needs: folders of the artifacts that must exist before.
        variant: trained on request only.
        training_seed: 0 for the suite's own training, s for its s-th repetition from other initial weights and in
            another order. Only drafters are repeated.
    """

    kind: Literal["target", "model", "draft-head"]
    name: str
    target: str
    scale: str | None
    folder: Path
    recipe: dict[str, Any]
    needs: tuple[Path, ...]
    variant: bool = False
    training_seed: int = 0

    @property
    def label(self) -> str:
        """For people: "mini-llama-2", "mini-llama-2 hass 4x", "mini-llama-2 hass 8x seed 1"."""
        parts = [self.target, *([self.name] if self.kind != "target" else []), *([self.scale] if self.scale else [])]
        return " ".join([*parts, *([f"seed {self.training_seed}"] if self.training_seed else [])])

    @property
    def command(self) -> str:
        """What trains it."""
        seeds = f" --seeds {self.training_seed + 1}" if self.training_seed else ""
        return f"prism-ae train mini{seeds}{' --variants' if self.variant else ''}"


@functools.lru_cache(maxsize=64)
def catalogue(models_dir: Path, recipe_file: Path = MINI, training_seed: int = 0) -> tuple[Artifact, ...]:
    """All artifacts of the suite and one training seed, what others need first.

    Args:
        models_dir: the models folder.
        recipe_file: another file's models live beside the suite's own, under their own digests.
        training_seed: of the drafters; targets and small models are the same for all.

    Raises:
        ConfigError: the recipe file is wrong.
    """
    recipes, suite = load_recipes(recipe_file), load_suite(SUITE)
    for key, stage in (("scratch", recipes.drafter_training.scratch), ("extra", recipes.drafter_training.extra)):
        for scale in suite.scales:
            if scale.name not in stage.passes:
                raise ConfigError(f"{recipe_file}: drafter_training.{key}.passes: scale '{scale.name}' is missing")
    found: list[Artifact] = []
    for target in recipes.targets:
        found += _of_target(target, recipes, suite, models_dir, training_seed)
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class SuiteOrder:
    """What of the suite is to be trained.

    Attributes:
        models_dir: the models folder; made if it does not exist.
        recipe_file: the suite's recipes.
        seeds: trainings of each drafter; those behind the first have the scales that the suite names for them.
        variants: the drafters that are trained on request, too.
        drafters: these alone, and what they start from; () is all.
    """

    models_dir: Path
    recipe_file: Path = MINI
    seeds: int = 1
    variants: bool = False
    drafters: tuple[str, ...] = ()

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What others need first. Raises ConfigError: the recipe file is wrong."""
        scales = load_suite(SUITE).seed_scales
        found = list(catalogue(self.models_dir, self.recipe_file))
        for seed in range(1, self.seeds):
            further = catalogue(self.models_dir, self.recipe_file, seed)
            found += [one for one in further if one.training_seed and one.scale in scales]
        if not self.drafters:
            return tuple(one for one in found if self.variants or not one.variant)
        named = {one.folder for one in found if one.kind != "draft-head" or one.name in self.drafters}
        needed = {folder for one in found if one.folder in named for folder in one.needs}
        return tuple(one for one in found if one.folder in named | needed)


def target_folder(models_dir: Path, target: str) -> Path:
    """Folder of a target of the suite, trained or not; raises KeyError."""
    return _find(catalogue(models_dir), "target", target, target, None).folder


def drafter_artifact(
    models_dir: Path, target: str, drafter: str, scale: str | None, training_seed: int = 0
) -> Artifact:
    """A drafter of the suite, trained or not; raises KeyError for names and scales without a recipe."""
    kind = "model" if drafter == STANDARD else "draft-head"
    return _find(catalogue(models_dir, training_seed=training_seed), kind, drafter, target, scale)


def _find(artifacts: Iterable[Artifact], kind: str, name: str, target: str, scale: str | None) -> Artifact:
    for one in artifacts:
        if (one.kind, one.name, one.target, one.scale) == (kind, name, target, scale):
            return one
    raise KeyError((target, name, scale))


def _of_target(target: str, recipes: Recipes, suite: Suite, models_dir: Path, training_seed: int) -> list[Artifact]:
    recipe, record = recipes.targets[target], suite.targets[target]
    base = {
        "trainer": TRAINER_VERSION,
        "corpus": corpus.VERSION,
        "tokenizer": plain(recipe.tokenizer),
        "tokenizer_seed": recipe.training.seed,
        "template": plain(suite.templates[record.template]),
        "system": suite.system_prompt,
    }

    def place(stem: str, content: dict[str, Any]) -> Path:
        return models_dir / SUITE / f"{stem}-{digest(content)[:12]}"

    def language_model(kind: Literal["target", "model"], name: str, stem: str, own: dict[str, Any]) -> Artifact:
        content = {"kind": kind, **base, **own}
        return Artifact(kind, name, target, None, place(stem, content), content, ())

    own = {"shape": plain(recipe.shape), "training": plain(recipe.training)}
    main = language_model("target", target, target, own)
    own = {"shape": plain(recipe.small_shape), "training": plain(recipe.small_training)}
    found = [main, language_model("model", STANDARD, f"{target}-{STANDARD}", own)]
    training = recipes.drafter_training.of_seed(training_seed)
    shared = {key: value for key, value in decisive(training).items() if key not in ("scratch", "extra")}
    made: dict[tuple[str, str], Artifact] = {}
    by_start = sorted(recipes.drafters.items(), key=lambda item: bool(item[1].start))
    for name, drafter in by_start:
        if target not in drafter.targets:
            continue
        capture = {"final": (), "capture": record.capture, "eagle3_capture": record.eagle3_capture}[drafter.reads]
        stage = training.stage(drafter)
        for scale in suite.scales:
            content: dict[str, Any] = {
                "kind": "draft-head",
                "trainer": TRAINER_VERSION,
                "target": digest(main.recipe),
                "corpus": {**plain(recipes.corpus), "scale": scale.value},
                "capture": list(capture),
                "training": {
                    **shared,
                    "learning_rate": stage.learning_rate,
                    "decay": stage.decay,
                    "passes": stage.passes[scale.name],
                },
                "drafter": {
                    key: value for key, value in decisive(drafter).items() if key not in ("targets", "start", "variant")
                },
            }
            needs: tuple[Path, ...] = (main.folder,)
            if drafter.start:
                start = made[drafter.start, scale.name]
                content["start"] = digest(start.recipe)
                needs = (main.folder, start.folder)
            seeded = f"-seed{training_seed}" if training_seed else ""
            folder = place(f"{target}-{name}-{scale.name}{seeded}", content)
            made[name, scale.name] = Artifact(
                "draft-head", name, target, scale.name, folder, content, needs, drafter.variant, training_seed
            )
            found.append(made[name, scale.name])
    return found
