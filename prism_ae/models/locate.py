"""Where a suite's models are, and what identifies them. No torch: a plan is made without loading anything.

A checkpoint that this project published says in its manifest what it is. A downloaded folder is identified by the
sums of the files an engine would read; it is never written to, so the sums are kept beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from prism_ae.cells import Point
from prism_ae.errors import CheckpointError
from prism_ae.io.checksums import Watch, cached_sums
from prism_ae.io.digests import digest
from prism_ae.models.checkpoints import MANIFEST, read_manifest
from prism_ae.models.weights import TOKEN_MAP, WEIGHTS, files_in, find_format
from prism_ae.recipes.catalogue import Catalogue
from prism_ae.recipes.own_data import read_own_data
from prism_ae.suites.records import DrafterRecord, Suite


@dataclasses.dataclass(frozen=True)
class Located:
    """A checkpoint folder that is there; ``fingerprint`` (hex) changes whenever its content does."""

    path: Path
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Parameterless:
    """A drafter without a checkpoint; ``fingerprint`` (hex) changes whenever its options or its rule do."""

    fingerprint: str
    path: None = None


@dataclasses.dataclass(frozen=True)
class Absent:
    """A checkpoint that is not there: why, and what to do about it ("" where nothing can be done).

    ``opt_in``: it is trained on request only, and missed by nobody who did not ask for it.
    """

    reason: str
    hint: str
    opt_in: bool = False


def locate_target(suite: Suite, target: str, models_dir: Path, watch: Watch | None = None) -> Located | Absent:
    """A target's folder; raises KeyError for a name the suite does not have. ``watch``: see `cached_sums`."""
    record = suite.targets[target]
    if record.folder:
        return _downloaded(models_dir, record.folder, suite, ("config.json", "tokenizer.json"), watch)
    try:
        artifact = _recipes_of(suite, models_dir).target(target)
    except KeyError:
        return _nameless(f"targets.{target}", f"trains {target}", suite)
    return _trained(artifact.folder, f"target {target} is not trained yet", suite.models_hint)


def catalogue_of(suite: Suite, models_dir: Path, watch: Watch | None = None) -> Catalogue:
    """What is trained here of a suite, for those of its downloaded targets that are here.

    Raises:
        ConfigError: the suite has no recipes, or what its folder says about its data is damaged.
    """
    found = {name: locate_target(suite, name, models_dir, watch) for name, one in suite.targets.items() if one.folder}
    here = {name: one.fingerprint for name, one in found.items() if isinstance(one, Located)}
    return _with_own_data(Catalogue(suite, models_dir, here))


class DrafterKey(NamedTuple):
    """A drafter for a target: names of records, the training scale (None for a drafter that is not trained at scales),
    the engine that would read it, and the training seed (0 where none was chosen)."""

    target: str
    drafter: str
    scale: str | None
    engine: str = "torch"
    training_seed: int = 0

    @classmethod
    def of(cls, point: Point) -> Self:
        """What a point is measured with."""
        return cls(point.target, point.drafter, point.scale, point.engine, point.training_seed)


def locate_drafter(suite: Suite, key: DrafterKey, models_dir: Path, watch: Watch | None = None) -> Located | Absent:
    """The folder of a drafter for a target: that of `Suite.drafter_folder`, or one that is trained here.

    Args:
        suite: of all names.
        models_dir: the models folder.
        watch: see `cached_sums`.

    Raises:
        KeyError: the suite has no such target, drafter or scale.
        ValueError: the drafter is of a kind that has no checkpoint, or ``scale`` does not fit ``Drafter.scaled``.
    """
    target, drafter, scale, engine, training_seed = key
    record, of = suite.drafters[drafter], suite.targets[target]
    if not record.has_checkpoint:
        raise ValueError(f"a drafter of the kind {record.kind} has no checkpoint")
    if record.scaled != (scale is not None):
        raise ValueError(f"drafter {drafter} is {'' if record.scaled else 'not '}trained at scales, got scale {scale}")
    if scale is not None and scale not in {known.name for known in suite.scales}:
        raise KeyError(scale)
    if folder := suite.drafter_folder(target, drafter, scale, engine):
        return _downloaded(models_dir, folder, suite, ("config.json",), watch)
    if record.absent:
        return Absent(record.absent, "")
    if not record.exists_for(of):
        return Absent(f"there is no {record.label} for {of.label}", "")
    at = f" at {scale}" if scale is not None else ""
    seed = f" with training seed {training_seed}" if training_seed else ""
    fingerprints: dict[str, str] = {}
    if of.folder and suite.recipes:
        its = locate_target(suite, target, models_dir, watch)
        if isinstance(its, Absent):
            return Absent(f"{record.label} is trained here for {of.label}, which is missing: {its.reason}", its.hint)
        fingerprints[target] = its.fingerprint
    try:
        artifact = _recipes_of(suite, models_dir, fingerprints).drafter(target, drafter, scale, training_seed)
    except KeyError:
        return _nameless(f"drafters.{drafter}", f"trains {record.label} for {target}{at}", suite)
    hint = f"run '{artifact.command}'" if training_seed or artifact.variant else suite.models_hint
    found = _trained(artifact.folder, f"{record.label} for {of.label}{at}{seed} is not trained yet", hint)
    return dataclasses.replace(found, opt_in=artifact.variant) if isinstance(found, Absent) else found


def _recipes_of(suite: Suite, models_dir: Path, fingerprints: Mapping[str, str] | None = None) -> Catalogue:
    """As `catalogue_of`, for targets that were located; raises KeyError where no recipe makes anything of the suite."""
    if not suite.recipes:
        raise KeyError(suite.name)
    return _with_own_data(Catalogue(suite, models_dir, fingerprints or {}))


def _with_own_data(catalogue: Catalogue) -> Catalogue:
    own = read_own_data(catalogue.folder)
    return dataclasses.replace(catalogue, data_sum=own.sum) if own else catalogue


_LOOKUP = "lookup-1"
"""Raised whenever prompt lookup would draft something else of the same text."""


def parameterless(record: DrafterRecord) -> Parameterless | None:
    """A drafter without a checkpoint; None for vanilla decoding, which has no drafter."""
    if record.kind == "vanilla":
        return None
    return Parameterless(digest([_LOOKUP, record.min_ngram, record.max_ngram]))


def _nameless(key: str, trained: str, suite: Suite) -> Absent:
    """What has no folder in a suite of one's own, and is none of the models that are trained here."""
    reason = f"suite {suite.name}: {key}: 'folder' is missing, and no recipe here {trained}"
    return Absent(reason, "name its folder in the suite's file")


def _trained(folder: Path, reason: str, hint: str) -> Located | Absent:
    """A folder that this project published: it exists when it is complete, and its manifest identifies it; ``hint``
    says how to make it."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return Absent(error.what, f"delete {folder}, then {hint}")
    if manifest is None:
        return Absent(reason, hint)
    for name in manifest.files:
        if not (folder / name).is_file():
            return Absent(f"{folder / name} is missing", f"delete {folder}, then {hint}")
    return Located(folder, manifest.fingerprint)


def _downloaded(
    models_dir: Path, below: str, suite: Suite, texts: Sequence[str], watch: Watch | None
) -> Located | Absent:
    """A folder as it was published: identified by its manifest if it has one, else by the files an engine reads:
    ``texts`` and the weights."""
    folder = models_dir / below
    if not folder.is_dir():
        return Absent(f"{folder} does not exist", suite.models_hint)
    if (folder / MANIFEST).exists():
        return _trained(folder, "", suite.models_hint)
    files = [*texts, *_weights(folder), *(name for name in (TOKEN_MAP,) if (folder / name).exists())]
    for name in files:
        if not (folder / name).is_file():
            return Absent(f"{folder / name} is missing", suite.models_hint)
    return Located(folder, digest(cached_sums(folder, files, sums_file(models_dir, below), watch)))


def sums_file(models_dir: Path, folder: str) -> Path:
    """Where the sums of a downloaded folder's files are remembered (`cached_sums`)."""
    return models_dir / ".sums" / f"{folder}.json"


def _weights(folder: Path) -> list[str]:
    """The weight files an engine would read of a folder, those that are missing included."""
    names = files_in(folder)
    found = find_format(names)
    if found is None or found.whole in names:
        return [found.whole if found else WEIGHTS]
    # Every shard's name says how many there are, so a missing one is noticed here: one of the first of them, as many
    # as there are shards, or one more.
    shards = [match for match in map(found.shard.fullmatch, sorted(names)) if match]
    total = shards[0]["total"] if shards and len(shards[0]["total"]) < 10 else "0"
    most = min(int(total), len(shards) + 1)
    return [found.shard_name(number, total) for number in range(1, most + 1)] or [found.whole]
