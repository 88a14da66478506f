"""Every model of the mini suite as data: what it is made from, and the folder that holds it.

A folder's name ends in the digest of everything that decides its content, the models it builds on included. A
changed recipe therefore means another folder, and a folder that exists is up to date. No torch here: a plan asks where
models are, and must answer at once.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from prism_ae.io.digests import digest, plain
from prism_ae.mini import corpus
from prism_ae.mini.recipes import MINI, Recipes, load_recipes
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
    """

    kind: Literal["target", "model", "draft-head"]
    name: str
    target: str
    scale: str | None
    folder: Path
    recipe: dict[str, Any]
    needs: tuple[Path, ...]

    @property
    def label(self) -> str:
        """For people: "mini-llama-2", "mini-llama-2 hass 4x"."""
        parts = [self.target, *([self.name] if self.kind != "target" else []), *([self.scale] if self.scale else [])]
        return " ".join(parts)


@functools.lru_cache(maxsize=8)
def catalogue(models_dir: Path, recipe_file: Path = MINI) -> tuple[Artifact, ...]:
    """All artifacts of the suite, what others need first.

    Args:
        models_dir: the models folder.
        recipe_file: another file's models live beside the suite's own, under their own digests.

    Raises:
        ConfigError: the recipe file is wrong.
    """
    recipes, suite = load_recipes(recipe_file), load_suite(SUITE)
    found: list[Artifact] = []
    for target in recipes.targets:
        found += _of_target(target, recipes, suite, models_dir)
    return tuple(found)


def target_folder(models_dir: Path, target: str) -> Path:
    """Folder of a target of the suite, trained or not; raises KeyError."""
    return _folder(models_dir, "target", target, target, None)


def drafter_folder(models_dir: Path, target: str, drafter: str, scale: str | None) -> Path:
    """Folder of a drafter of the suite, trained or not; raises KeyError for names and scales without a recipe."""
    return _folder(models_dir, "model" if drafter == STANDARD else "draft-head", drafter, target, scale)


def _folder(models_dir: Path, kind: str, name: str, target: str, scale: str | None) -> Path:
    for artifact in catalogue(models_dir):
        if (artifact.kind, artifact.name, artifact.target, artifact.scale) == (kind, name, target, scale):
            return artifact.folder
    raise KeyError((target, name, scale))


def _of_target(target: str, recipes: Recipes, suite: Suite, models_dir: Path) -> list[Artifact]:
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
    digests: dict[tuple[str, str], tuple[str, Path]] = {}
    by_start = sorted(recipes.drafters.items(), key=lambda item: bool(item[1].start))
    for name, drafter in by_start:
        if target not in drafter.targets:
            continue
        capture = {"final": (), "capture": record.capture, "eagle3_capture": record.eagle3_capture}[drafter.reads]
        for scale in suite.scales:
            # A scale's recipe names the scales below it: the trunk passed through them.
            below = [other.value for other in suite.scales if other.value <= scale.value]
            content: dict[str, Any] = {
                "kind": "draft-head",
                "trainer": TRAINER_VERSION,
                "target": digest(main.recipe),
                "corpus": {**plain(recipes.corpus), "scales": [scale.value] if drafter.start else below},
                "capture": list(capture),
                "training": plain(recipes.drafter_training),
                "drafter": {
                    key: value for key, value in plain(drafter).items() if key not in ("targets", "drawn", "start")
                },
            }
            needs: tuple[Path, ...] = (main.folder,)
            if drafter.start:
                start_digest, start_folder = digests[drafter.start, scale.name]
                content["start"] = start_digest
                needs = (main.folder, start_folder)
            folder = place(f"{target}-{name}-{scale.name}", content)
            digests[name, scale.name] = (digest(content), folder)
            found.append(Artifact("draft-head", name, target, scale.name, folder, content, needs))
    return found
