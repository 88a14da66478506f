"""Every model of a suite that is trained here, as data: what it is made from, and the folder that holds it.

A folder's name ends in the digest of everything that decides its content, the models it builds on included. A
changed recipe therefore means another folder, and a folder that exists is up to date. No torch here: a plan asks where
models are, and must answer at once.

A target is trained here too (the mini suite's), or it is a folder that was downloaded: then its fingerprint is part of
what decides its drafters.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prism_ae.errors import ConfigError
from prism_ae.io.digests import digest, plain
from prism_ae.io.schema import suggest
from prism_ae.mini import corpus
from prism_ae.recipes.data import DataRecipe, data_content
from prism_ae.recipes.file import DrafterRecipe, Recipes, decisive, load_recipes
from prism_ae.suites.records import Scale, Suite

TRAINER_VERSION = 1
"""Raised whenever the trainer's code would make another model of the same recipe."""

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
        suite: what ``prism-ae train`` takes for its suite.
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
    suite: str
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
        return f"prism-ae train {self.suite}{seeds}{' --variants' if self.variant else ''}"


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All that is trained here of a suite.

    Attributes:
        suite: one with a recipe file.
        models_dir: the models folder.
        fingerprints: of the downloaded targets that are here, by name; a target without has no artifacts.
        data_sum: sha256 (hex) of the conversations of one's own that drafters learn from; "": the target's.
    """

    suite: Suite
    models_dir: Path
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_sum: str = ""

    @property
    def folder(self) -> Path:
        """Holds everything."""
        return self.models_dir / self.suite.name

    @property
    def recipe_file(self) -> Path:
        """Raises ConfigError: the suite has none."""
        if not self.suite.recipes:
            raise ConfigError(
                f"suite {self.suite.name} has no recipes: its drafters are not trained here",
                'name a recipe file in the suite\'s file, as in recipes = "my.recipes.toml"',
            )
        return Path(self.suite.recipes)

    @functools.cached_property
    def recipes(self) -> Recipes:
        """Raises ConfigError: the file is wrong, or does not fit the suite."""
        recipes, path = load_recipes(self.recipe_file), self.recipe_file
        training = recipes.drafter_training
        for key, stage in (("scratch", training.scratch), ("extra", training.extra)):
            for scale in self.suite.scales:
                if scale.name not in stage.passes:
                    raise ConfigError(f"{path}: drafter_training.{key}.passes: scale '{scale.name}' is missing")
        known = self.suite.targets
        named = [
            ("targets", recipes.targets),
            *((f"drafters.{k}.targets", r.targets) for k, r in recipes.drafters.items()),
        ]
        for key, names in named:
            if unknown := [name for name in names if name not in known]:
                what = f"suite {self.suite.name} has no target '{unknown[0]}'{suggest(unknown[0], known)}"
                raise ConfigError(f"{path}: {key}: {what}")
        return recipes

    def artifacts(self, training_seed: int = 0) -> tuple[Artifact, ...]:
        """Those of one training seed, what others need first. Raises ConfigError: the recipe file is wrong."""
        recipes = self.recipes
        by_start = sorted(recipes.drafters, key=lambda name: bool(recipes.drafters[name].start))
        found: list[Artifact] = []
        for target in self.suite.targets:
            if target in recipes.targets:
                found += [self.target(target), self.small(target)]
            elif target not in self.fingerprints:
                continue
            for name in by_start:
                if self._trains(recipes.drafters[name], target):
                    found += [self.drafter(target, name, scale.name, training_seed) for scale in self.suite.scales]
        return tuple(found)

    def is_downloaded(self, target: str) -> bool:
        """Whether the target is a folder from elsewhere; raises KeyError: it is neither that, nor trained here."""
        if self.suite.targets[target].folder:
            return True
        if target not in self.recipes.targets:
            raise KeyError(target)
        return False

    def target(self, name: str) -> Artifact:
        """A target that is trained here, trained or not; raises KeyError."""
        recipe = self.recipes.targets[name]
        own = {"shape": plain(recipe.shape), "training": plain(recipe.training)}
        return self._language_model("target", name, name, own)

    def small(self, target: str) -> Artifact:
        """The small language model beside a target that is trained here; raises KeyError."""
        recipe = self.recipes.targets[target]
        own = {"shape": plain(recipe.small_shape), "training": plain(recipe.small_training)}
        return self._language_model("model", STANDARD, target, own)

    def drafter(self, target: str, drafter: str, scale: str | None, training_seed: int = 0) -> Artifact:
        """A drafter, trained or not; raises KeyError for names and scales without a recipe."""
        if drafter == STANDARD and scale is None:
            return self.small(target)
        recipes = self.recipes
        recipe, size = recipes.drafters[drafter], {one.name: one for one in self.suite.scales}[scale or ""]
        if not self._trains(recipe, target):
            raise KeyError(target)
        training = recipes.drafter_training.of_seed(training_seed)
        stage = training.stage(recipe)
        shared = {key: value for key, value in decisive(training).items() if key not in ("scratch", "extra")}
        content: dict[str, Any] = {
            "kind": "draft-head",
            "trainer": TRAINER_VERSION,
            **self._learnt_from(target, size),
            "capture": list(self.captured(target, recipe)),
            "training": {
                **shared,
                "learning_rate": stage.learning_rate,
                "decay": stage.decay,
                "passes": stage.passes[size.name],
            },
            "drafter": {
                key: value for key, value in decisive(recipe).items() if key not in ("targets", "start", "variant")
            },
        }
        needs = [] if self.is_downloaded(target) else [self.target(target).folder]
        if recipe.start:
            start = self.drafter(target, recipe.start, scale, training_seed)
            content["start"] = digest(start.recipe)
            needs.append(start.folder)
        seeded = f"-seed{training_seed}" if training_seed else ""
        return Artifact(
            "draft-head",
            drafter,
            target,
            size.name,
            self._place(f"{target}-{drafter}-{size.name}{seeded}", content),
            content,
            tuple(needs),
            self._said,
            recipe.variant,
            training_seed,
        )

    def captured(self, target: str, recipe: DrafterRecipe) -> tuple[int, ...]:
        """The hidden states that a drafter of this recipe reads besides the final ones."""
        record = self.suite.targets[target]
        return {"final": (), "capture": record.capture, "eagle3_capture": record.eagle3_capture}[recipe.reads]

    def data_recipe(self) -> DataRecipe:
        """How a downloaded target's data are written, and how much of any data a scale takes. Raises ConfigError."""
        recipes = self.recipes
        if recipes.data is None:
            raise ConfigError(
                f"{self.recipe_file}: [data] is missing", "a downloaded target's drafters learn from what it writes"
            )
        return recipes.data

    def written_content(self, target: str) -> dict[str, Any]:
        """Everything that decides what a downloaded target writes; raises KeyError: it is not here."""
        suite = self.suite
        template = suite.templates[suite.targets[target].template]
        return data_content(self.data_recipe(), self.fingerprints[target], template, suite.system_prompt)

    def data_folder(self, target: str) -> Path:
        """Where the conversations are that a downloaded target writes; raises KeyError: it is not here."""
        return self._place("data", self.written_content(target))

    def _learnt_from(self, target: str, scale: Scale) -> dict[str, Any]:
        if not self.is_downloaded(target):
            main = digest(self.target(target).recipe)
            return {"target": main, "corpus": {**plain(self.recipes.corpus), "scale": scale.value}}
        suite = self.suite
        data = {"sum": self.data_sum} if self.data_sum else {"written": digest(self.written_content(target))}
        return {
            "target": {
                "fingerprint": self.fingerprints[target],
                "template": plain(suite.templates[suite.targets[target].template]),
                "system": suite.system_prompt,
            },
            "data": {**data, "answer_tokens": self.data_recipe().answer_tokens(scale.value)},
        }

    def _language_model(
        self, kind: Literal["target", "model"], name: str, target: str, own: dict[str, Any]
    ) -> Artifact:
        recipe, suite = self.recipes.targets[target], self.suite
        content = {
            "kind": kind,
            "trainer": TRAINER_VERSION,
            "corpus": corpus.VERSION,
            "tokenizer": plain(recipe.tokenizer),
            "tokenizer_seed": recipe.training.seed,
            "template": plain(suite.templates[suite.targets[target].template]),
            "system": suite.system_prompt,
            **own,
        }
        stem = target if kind == "target" else f"{target}-{name}"
        return Artifact(kind, name, target, None, self._place(stem, content), content, (), self._said)

    def _trains(self, recipe: DrafterRecipe, target: str) -> bool:
        return not recipe.targets or target in recipe.targets

    def _place(self, stem: str, content: dict[str, Any]) -> Path:
        return self.folder / f"{stem}-{digest(content)[:12]}"

    @property
    def _said(self) -> str:
        """The suite on a command line."""
        return shlex.quote(self.suite.source or self.suite.name)


@dataclasses.dataclass(frozen=True)
class SuiteOrder:
    """What of a suite is to be trained.

    Attributes:
        seeds: trainings of each drafter; those behind the first have the scales that the suite names for them.
        variants: the drafters that are trained on request, too.
        drafters: these alone, and what they start from; () is all.
        scales: these alone; () is all.
        data: file of the conversations of one's own whose sum the catalogue has.
        state_seconds: between the states that a real target's drafter can go on from.
    """

    catalogue: Catalogue
    seeds: int = 1
    variants: bool = False
    drafters: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    data: Path | None = None
    state_seconds: float = 120.0

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What others need first. Raises ConfigError: the recipe file is wrong."""
        seeded = self.catalogue.suite.seed_scales
        found = list(self.catalogue.artifacts())
        for seed in range(1, self.seeds):
            found += [one for one in self.catalogue.artifacts(seed) if one.training_seed and one.scale in seeded]
        if self.scales:
            found = [one for one in found if one.scale is None or one.scale in self.scales]
        if not self.drafters:
            return tuple(one for one in found if self.variants or not one.variant)
        named = {one.folder for one in found if one.kind != "draft-head" or one.name in self.drafters}
        needed = {folder for one in found if one.folder in named for folder in one.needs}
        return tuple(one for one in found if one.folder in named | needed)

    @property
    def largest(self) -> Scale:
        """The largest of the scales."""
        scales = [one for one in self.catalogue.suite.scales if not self.scales or one.name in self.scales]
        return max(scales, key=lambda scale: scale.value)

    @property
    def downloaded_targets(self) -> tuple[str, ...]:
        """Those downloaded targets for which drafters are asked."""
        wanted = {one.target for one in self.artifacts}
        return tuple(name for name, one in self.catalogue.suite.targets.items() if one.folder and name in wanted)
