"""What a suite's tables must say about each other. Pure: a suite in, a list of problems out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from prism_ae.io.schema import suggest
from prism_ae.suites.records import DrafterRecord, Hub, PackagedFile, Suite, TargetRecord, Template

T = TypeVar("T", bound=Hashable)

TREES = ("main", "small", "sglang")
"""Trees that the figures and tables ask for."""

_LONGEST_NAME = 255
"""Bytes of a file's name, on every common file system."""

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def problems(suite: Suite) -> list[str]:
    """Every contradiction, as "key: what is wrong and what would be right"; empty for a sound suite."""
    roles = suite.roles
    found = [*_required(suite), *_scales(suite), *_limits(suite)]
    for table, names in (
        ("targets", [(key, record.name) for key, record in suite.targets.items()]),
        ("drafters", [(key, record.name) for key, record in suite.drafters.items()]),
        ("benchmarks", [(key, record.name) for key, record in suite.benchmarks.items()]),
        ("templates", [(key, record.name) for key, record in suite.templates.items()]),
    ):
        found += [f"{table}.{key}.name: '{name}' differs from its key" for key, name in names if key != name]
    for target in suite.targets.values():
        found += [f"targets.{target.name}.{problem}" for problem in _target(target, suite)]
    for role in _repeated(roles):
        found.append(f"targets: role '{role}' is given twice; figures ask for one target by its role")
    for drafter in suite.drafters.values():
        found += [f"drafters.{drafter.name}.{problem}" for problem in _drafter(drafter, suite, roles)]
    for label in _repeated(drafter.label for drafter in suite.drafters.values()):
        found.append(f"drafters: label '{label}' is used twice; a legend could not tell them apart")
    for template in suite.templates.values():
        found += [f"templates.{template.name}.{problem}" for problem in _template(template)]
    for benchmark in suite.benchmarks.values():
        if benchmark.turns < 1:
            found.append(f"benchmarks.{benchmark.name}.turns: must be at least 1, got {benchmark.turns}")
        if problem := _outside(benchmark.file):
            found.append(f"benchmarks.{benchmark.name}.file: {problem}")
    if suite.hub is not None:
        found += [f"hub.{problem}" for problem in _hub(suite.hub, suite)]
    return found


def _required(suite: Suite) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", suite.name):
        yield f"name: '{suite.name}' names folders; use small letters, digits, - and _"
    for table in ("scales", "targets", "drafters", "benchmarks", "templates"):
        if not getattr(suite, table):
            yield f"{table}: must not be empty"
    for tree in TREES:
        if tree not in suite.trees:
            yield f"trees.{tree}: is missing; figures and tables ask for the trees {', '.join(TREES)}"


def _scales(suite: Suite) -> Iterator[str]:
    for number, scale in enumerate(suite.scales):
        if problem := _outside(scale.name) or ("must not be empty" if not scale.name else ""):
            yield f"scales.{number}.name: {problem}"  # {scale} of a folder
    for name in _repeated(scale.name for scale in suite.scales):
        yield f"scales: '{name}' occurs twice"
    names = [scale.name for scale in suite.scales]
    for number, name in enumerate(suite.seed_scales):
        if name not in names:
            yield f"seed_scales.{number}: there is no scale '{name}'{suggest(name, names)}"
    for key in ("repeats", "most_repeats", "repeat_questions"):
        if getattr(suite, key) < 1:
            yield f"{key}: must be at least 1"
    if 1 < suite.most_repeats < suite.repeats:
        yield f"most_repeats: must be at least repeats, {suite.repeats}"
    for name in _repeated(suite.seed_scales):
        yield f"seed_scales: '{name}' occurs twice"
    values = [scale.value for scale in suite.scales]
    for number, (before, after) in enumerate(itertools.pairwise(values), start=1):
        if after <= before:
            yield f"scales.{number}.value: must grow from scale to scale, got {after:g} after {before:g}"
    if values and values[0] <= 0:
        yield f"scales.0.value: must be greater than 0, got {values[0]:g}"


def _limits(suite: Suite) -> Iterator[str]:
    # A file without [serving] is told of [limits] alone.
    serving = {"serving": suite.serving} if suite.serving != suite.limits else {}
    for table, limits in ({"limits": suite.limits} | serving).items():
        for key in ("questions", "max_new_tokens", "turns_max_new_tokens", "max_length"):
            if getattr(limits, key) < 1:
                yield f"{table}.{key}: must be at least 1, got {getattr(limits, key)}"
        if limits.seed < 0:
            yield f"{table}.seed: must not be negative, got {limits.seed}"
        longest = max(limits.max_new_tokens, limits.turns_max_new_tokens)
        if longest >= limits.max_length:
            yield f"{table}.max_length: must leave room for a prompt beside {longest} new tokens"
        for name, tree in suite.trees.items():
            if tree.steps > limits.max_new_tokens >= 1:
                yield f"trees.{name}: {tree.steps} steps are more than {table}.max_new_tokens, {limits.max_new_tokens}"


def _target(target: TargetRecord, suite: Suite) -> Iterator[str]:
    if not target.roles:
        yield "roles: must not be empty; figures ask for targets by their roles"
    if target.template not in suite.templates:
        yield f"template: there is no template '{target.template}'{suggest(target.template, suite.templates)}"
    for key in ("capture", "eagle3_capture"):
        states: tuple[int, ...] = getattr(target, key)
        if not states or min(states) < 0 or list(states) != sorted(set(states)):
            yield f"{key}: must be growing numbers of hidden states, 0 being the embedding, got {list(states)}"
    for key in ("folder", "drafter_folder", "small_folder"):
        if problem := _outside(getattr(target, key)):
            yield f"{key}: {problem}"


def _drafter(drafter: DrafterRecord, suite: Suite, roles: Sequence[str]) -> Iterator[str]:
    if not drafter.roles:
        yield "roles: must not be empty"
    for role in drafter.roles:
        if role not in roles:
            yield f"roles: no target has the role '{role}'{suggest(role, roles)}"
    for role in _repeated(drafter.roles):
        yield f"roles: '{role}' occurs twice"
    if (drafter.kind == "vanilla") != (drafter.name == "vanilla"):
        yield "kind: 'vanilla' is the kind of the drafter 'vanilla' and of no other"
    what = "vanilla decoding" if drafter.kind == "vanilla" else "prompt lookup"
    if drafter.scaled and not drafter.has_checkpoint:
        yield f"scaled: {what} is not trained, write false"
    if not drafter.has_checkpoint and (drafter.folder or drafter.absent):
        yield f"folder: {what} has no checkpoint, leave 'folder' and 'absent' out"
    if drafter.kind == "lookup" and not 1 <= drafter.min_ngram <= drafter.max_ngram:
        yield f"min_ngram: must be at least 1 and at most max_ngram, {drafter.max_ngram}, got {drafter.min_ngram}"
    if drafter.kind != "lookup" and (drafter.min_ngram or drafter.max_ngram):
        yield "min_ngram: min_ngram and max_ngram belong to the kind 'lookup'"
    if drafter.folder and drafter.absent:
        yield "absent: a drafter has a folder or a reason why there is none, not both"
    if problem := _outside(drafter.folder):
        yield f"folder: {problem}"
    folder = drafter.folder or ""
    for name in re.findall(r"\{(.*?)\}", folder):
        if name not in ("drafters", "small", "scale"):
            yield f"folder: {{{name}}} is unknown; {{drafters}}, {{small}} and {{scale}} are replaced"
            break
    else:
        if re.search(r"[{}]", re.sub(r"\{\w+\}", "", folder)):
            yield f"folder: '{folder}' has another brace than those of {{drafters}}, {{small}}, {{scale}}"
    if folder and drafter.scaled != ("{scale}" in folder):
        yield f"folder: must {'contain' if drafter.scaled else 'not contain'} {{scale}}, because of 'scaled'"
    yield from _served(drafter, suite)
    for target in suite.targets.values():
        if not drafter.exists_for(target):
            continue
        for name, key in (("{drafters}", "drafter_folder"), ("{small}", "small_folder")):
            if name in folder and not getattr(target, key):
                yield f"folder: {name} is empty for target '{target.name}'; give it a '{key}'"
        is_found = drafter.folder or drafter.absent or suite.recipes or not target.folder
        if drafter.has_checkpoint and not is_found:
            yield f"folder: is missing, and target '{target.name}' is not trained here; name a folder, or say 'absent'"


def _hub(hub: Hub, suite: Suite) -> Iterator[str]:
    for key in ("modelscope", "huggingface"):
        if not _REPOSITORY.fullmatch(getattr(hub, key)):
            yield f"{key}: '{getattr(hub, key)}' is no repository, write owner/name"
    folders = {one for target in suite.targets.values() for one in (target.folder, target.small_folder) if one}
    for folder, repository in hub.official.items():
        if folder not in folders:
            yield f"official: '{folder}' is the folder of no target and no small LM{suggest(folder, folders)}"
        if not _REPOSITORY.fullmatch(repository):
            yield f"official.{folder}: '{repository}' is no repository, write owner/name"
    if hub.questions.count("{file}") != 1 or re.search(r"[{}]", hub.questions.replace("{file}", "")):
        yield "questions: must contain {file} once, and no other brace"
    files = {name for name, benchmark in suite.benchmarks.items() if benchmark.file}
    for name in sorted(files ^ set(hub.question_sums)):
        yield f"question_sums.{name}: {'is missing' if name in files else 'no benchmark of that name has a file'}"
    sums = {f"question_sums.{name}": total for name, total in hub.question_sums.items()}
    sums |= {f"sums.{name}": total for name, total in hub.sums.items()}
    for key, total in sums.items():
        yield from _sum(key, total)
    if hub.whole is not None and hub.whole not in folders:
        yield f"whole: '{hub.whole}' is the folder of no target and no small LM{suggest(hub.whole, folders)}"
    if hub.whole is None and (hub.sums or hub.revision):
        yield "whole: is missing; 'revision' and 'sums' are of the repository that is one folder"
    if hub.revision and not re.fullmatch(r"[0-9a-f]{40}", hub.revision):
        yield f"revision: '{hub.revision}' is no commit, 40 digits 0-9 and a-f"
    for name, model in hub.packages.items():
        if name not in folders:
            yield f"packages: '{name}' is the folder of no target and no small LM{suggest(name, folders)}"
        if model.folder_size < 1:
            yield f"packages.{name}.folder_size: must be at least 1"
        yield from _packaged(f"packages.{name}.source", model.source)
    for name, questions in hub.packaged_questions.items():
        if name not in hub.question_sums:
            yield f"packaged_questions: '{name}' has no question file{suggest(name, hub.question_sums)}"
        if not questions.order or min(questions.order) < 0 or _repeated(questions.order):
            yield f"packaged_questions.{name}.order: must be numbers of tasks, each once"
        yield from _packaged(f"packaged_questions.{name}.source", questions.source)


def _packaged(key: str, source: PackagedFile) -> Iterator[str]:
    """What could make an option of pip's, or a path outside, of a name."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", source.project):
        yield f"{key}.project: '{source.project}' is no name of a package"
    if not re.fullmatch(r"[0-9][A-Za-z0-9.!+]*", source.version):
        yield f"{key}.version: '{source.version}' is no version"
    if problem := _outside(source.file) or ("must not be empty" if not source.file else ""):
        yield f"{key}.file: {problem}"
    for name in ("wheel_size", "file_size"):
        if getattr(source, name) < 1:
            yield f"{key}.{name}: must be at least 1"
    for name in ("wheel_sum", "file_sum"):
        yield from _sum(f"{key}.{name}", getattr(source, name))


def _sum(key: str, total: str) -> Iterator[str]:
    if not re.fullmatch(r"[0-9a-f]{64}", total):
        yield f"{key}: '{total}' is no sha256, 64 digits 0-9 and a-f"


def _served(drafter: DrafterRecord, suite: Suite) -> Iterator[str]:
    scales = [scale.name for scale in suite.scales]
    if drafter.served and not drafter.scaled:
        yield "served: is for drafters that are trained at scales"
    for number, entry in enumerate(drafter.served):
        if entry.role not in drafter.roles:
            yield f"served.{number}.role: '{entry.role}' is not among roles{suggest(entry.role, drafter.roles)}"
        if entry.scale not in scales:
            yield f"served.{number}.scale: there is no scale '{entry.scale}'{suggest(entry.scale, scales)}"
        if problem := _outside(entry.folder) or ("must not be empty" if not entry.folder else ""):
            yield f"served.{number}.folder: {problem}"
    for role, scale in _repeated((entry.role, entry.scale) for entry in drafter.served):
        yield f"served: role '{role}' has two checkpoints of scale '{scale}'"


def _template(template: Template) -> Iterator[str]:
    pieces = {"first": ("system", "user"), "later": ("user",), "answer": ("answer",)}
    for key, names in pieces.items():
        text = getattr(template, key)
        for name in names:
            if text.count(f"{{{name}}}") != 1:
                yield f"{key}: must contain {{{name}}} once"
        for name in re.findall(r"\{(\w+)\}", text):
            if name not in names:
                yield f"{key}: {{{name}}} does not belong here; only {' and '.join(f'{{{n}}}' for n in names)} do"
    if not template.stop or "" in template.stop:
        yield "stop: name at least one token that ends an answer"


def _outside(folder: str | None) -> str:
    """Why a path of a suite file could leave the models folder, or ""."""
    folder = folder or ""
    parts = folder.split("/")
    if folder and (folder.startswith("/") or "\\" in folder or ".." in parts or "." in parts or "" in parts):
        return f"'{folder}' must be a plain path below the models folder"
    if not folder.isprintable() or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return f"{folder[:40]!r} is no name that a file can have"
    return ""


def _repeated(names: Iterable[T]) -> list[T]:
    listed = list(names)
    return [name for name in dict.fromkeys(listed) if listed.count(name) > 1]
