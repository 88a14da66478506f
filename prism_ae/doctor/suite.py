"""A suite's models, questions and measurements: each is read by its own reader, and what that refuses is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from prism_ae.doctor.findings import Finding, from_error, listed, ok, problem, shown, warning
from prism_ae.engines.pairs import make_pair
from prism_ae.engines.registry import engine_names
from prism_ae.errors import MissingError, PrismError
from prism_ae.experiments.expand import UnfilledError, expand
from prism_ae.experiments.labels import check_labels, undrawable_labels
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.request import runs_folder
from prism_ae.io.checksums import Watch
from prism_ae.io.words import pluralise
from prism_ae.models.locate import Absent, DrafterKey, Located, locate_drafter, locate_target
from prism_ae.prompts.conversation import check_questions, open_conversation
from prism_ae.prompts.questions import load_questions, origin
from prism_ae.store import Store
from prism_ae.suites.records import Suite, TargetRecord

ENGINES = engine_names()


def check_suite(suite: Suite, models_dir: Path, runs_dir: Path) -> Iterator[Finding]:
    """Findings about everything that a run of this suite reads. No model is loaded."""
    for target in suite.targets.values():
        yield from _target(suite, target, models_dir)
    yield from _questions(suite, models_dir)
    yield from _labels(suite)
    yield from _store(suite, runs_dir)


class _Unsummed(Exception):  # noqa: N818 - an event
    """A complete folder whose sums are not known yet: reading all of it would take minutes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder


def _found(locate: Callable[[Watch], Located | Absent]) -> Path | Absent:
    """A checkpoint's folder, complete; it is not read as a whole."""

    def watch(folder: Path, size: int) -> None:
        raise _Unsummed(folder)

    try:
        located = locate(watch)
    except _Unsummed as there:
        return there.folder
    return located if isinstance(located, Absent) else located.path


def _target(suite: Suite, target: TargetRecord, models_dir: Path) -> Iterator[Finding]:
    """A target's files, and its drafters'."""
    name = target.name
    place = _found(partial(locate_target, suite, name, models_dir))
    if isinstance(place, Absent):
        yield _absent(name, place)
        return
    refused = {engine: _refused(name, partial(make_pair, target, place, None, "vanilla", engine)) for engine in ENGINES}
    talk = _refused(name, partial(_conversation, suite, target, place, models_dir))
    findings = list(dict.fromkeys([*for_engines(refused), *talk]))
    yield from findings or [ok(name, f"{place}: config, weights' names, tokenizer and end tokens are in order")]
    yield from _drafters(suite, target, place, models_dir, [engine for engine in ENGINES if not refused[engine]])


def _conversation(suite: Suite, target: TargetRecord, place: Path, models_dir: Path) -> None:
    """The target's tokenizer and ends, and whether it has tokens for every question that is here; raises PrismError."""
    conversation = open_conversation(place, suite.templates[target.template], suite.system_prompt)
    for benchmark in suite.benchmarks:
        try:
            questions = load_questions(suite, benchmark, suite.limits.questions, models_dir)
        except PrismError:
            continue  # a finding about the questions
        check_questions(conversation, questions, origin(suite, benchmark, models_dir))


def _refused(name: str, read: Callable[[], object]) -> list[Finding]:
    """What a reader refuses, as a finding; none where it refuses nothing."""
    try:
        read()
    except PrismError as error:
        return [from_error(name, error)]
    except Exception as error:  # a broken library: what else can be read is still of interest
        what = f"cannot be checked: {type(error).__name__}: {shown(str(error))}"
        return [problem(name, what, "first do what the other findings ask for")]
    return []


def for_engines(refused: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """What the engines refuse: a problem where none of them can do it, a warning where another can. Pure."""
    if all(refused.values()):
        return list(dict.fromkeys(finding for findings in refused.values() for finding in findings))
    return [
        warning(one.name, f"engine {engine}: {one.what}", one.remedy)
        for engine, findings in refused.items()
        for one in findings
    ]


def _absent(name: str, absent: Absent) -> Finding:
    return warning(name, absent.reason, absent.hint or "nothing can be done: it was not published")


def _drafters(
    suite: Suite, target: TargetRecord, place: Path, models_dir: Path, engines: Sequence[str]
) -> Iterator[Finding]:
    """A target's drafters: whether ``engines`` can read them, and they fit. Those that are absent are one finding."""
    name = f"{target.name}'s drafters"
    refused: dict[Path, dict[str, list[Finding]]] = {}
    absent: dict[str, Absent] = {}
    for drafter in suite.drafters.values():
        if not drafter.has_checkpoint:
            continue
        for scale in [scale.name for scale in suite.scales] if drafter.scaled else [None]:
            for engine in engines:
                key = DrafterKey(target.name, drafter.name, scale, engine)
                found = _found(partial(locate_drafter, suite, key, models_dir))
                if isinstance(found, Path):
                    pair = partial(make_pair, target, place, found, drafter.kind, engine)
                    refused.setdefault(found, {})[engine] = _refused(name, pair)
                elif found.hint and not found.opt_in:
                    absent.setdefault(found.reason, found)
    findings = [finding for of_folder in refused.values() for finding in for_engines(of_folder)]
    yield from findings
    if absent:
        first = next(iter(absent.values()))
        yield warning(name, f"{pluralise(len(absent), 'checkpoint')} not here: {listed(absent, most=1)}", first.hint)
    if refused and not findings:
        yield ok(name, f"{pluralise(len(refused), 'checkpoint')} can be read and fit {place}")


def _questions(suite: Suite, models_dir: Path) -> Iterator[Finding]:
    missing, read = [], 0
    for benchmark in suite.benchmarks:
        try:
            load_questions(suite, benchmark, suite.limits.questions, models_dir)
            read += 1
        except MissingError as error:
            missing.append(error)
        except PrismError as error:
            yield from_error(f"questions of {benchmark}", error)
    if missing:
        yield from_error("questions", missing[0], "warning")
    if read:
        yield ok("questions", f"those of {read} of {pluralise(len(suite.benchmarks), 'benchmark')} can be read")


def _labels(suite: Suite) -> Iterator[Finding]:
    """Whether the suite's words can be drawn, in every experiment that it fills."""
    name = "labels"
    wrong: dict[str, Finding] = {}
    for experiment in map(load_experiment, experiment_names()):
        try:
            points = expand(experiment, suite, Options())
        except UnfilledError:
            continue  # the suite has not what the experiment is about
        wrong |= {one.what: one for one in _refused(name, partial(check_labels, experiment, suite, points))}
    yield from wrong.values()
    # What no shipped experiment draws of this suite, one of its own or with other options may.
    others = [error for error in undrawable_labels(suite) if error.what not in wrong]
    yield from (from_error(name, error, "warning") for error in others)
    if not wrong and not others:
        yield ok(name, "all of the suite's labels can be drawn")


def _store(suite: Suite, runs_dir: Path) -> Iterator[Finding]:
    root = runs_folder(runs_dir, suite)
    try:
        store = Store(root, suite.name, suite.version)
        records, damaged = store.records(), store.quarantined
    except PrismError as error:
        yield from_error("measurements", error)
        return
    if damaged:
        lines = listed([str(damage.line) for damage in damaged])
        yield warning(
            "measurements",
            f"{root / 'log.jsonl'}: {pluralise(len(damaged), 'damaged line')} set aside (lines {lines})",
            "run again: what they held is measured again",
        )
    measured = sum(record.ok for record in records.values())
    yield ok("measurements", f"{pluralise(measured, 'measured cell')} in {root}")
