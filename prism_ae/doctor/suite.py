"""A suite's models, questions and measurements: each is read by its own reader, and what that refuses is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from prism_ae.checkpoints import check_target_head, read_target_config
from prism_ae.cli.output import number_of
from prism_ae.cli.request import runs_folder
from prism_ae.doctor.findings import Finding, from_error, listed, ok, problem, shown, warning
from prism_ae.drafters.layouts.read import check_capture, check_target, read_config, read_layout
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drawing.labels import check_labels
from prism_ae.errors import CheckpointError, MissingError, PrismError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.prompts.conversation import check_questions, open_conversation, window_of
from prism_ae.prompts.questions import load_questions, origin
from prism_ae.store import Store
from prism_ae.suites.models import Absent, Located, locate_drafter, locate_target
from prism_ae.suites.records import Drafter, Suite, Target
from prism_ae.suites.sums import Watch


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


def _target(suite: Suite, target: Target, models_dir: Path) -> Iterator[Finding]:
    """A target's files, and its drafters'."""
    name = target.name
    place = _found(partial(locate_target, suite, name, models_dir))
    if isinstance(place, Absent):
        yield _absent(name, place)
        return
    readers = (
        lambda: read_target_config(place),
        lambda: check_target_head(place),
        lambda: window_of(1, place),
        lambda: _conversation(suite, target, place, models_dir),
    )
    findings = list(_errors(name, readers))
    yield from findings or [ok(name, f"{place}: config, weights' names, tokenizer and end tokens are in order")]
    yield from _drafters(suite, target, place, models_dir)


def _conversation(suite: Suite, target: Target, place: Path, models_dir: Path) -> None:
    """The target's tokenizer and ends, and whether it has tokens for every question that is here; raises PrismError."""
    conversation = open_conversation(place, suite.templates[target.template], suite.system_prompt)
    for benchmark in suite.benchmarks:
        try:
            questions = load_questions(suite, benchmark, suite.limits.questions, models_dir)
        except PrismError:
            continue  # a finding about the questions
        check_questions(conversation, questions, origin(suite, benchmark, models_dir))


def _errors(name: str, calls: Iterable[Callable[[], object]]) -> Iterator[Finding]:
    """What readers refuse, each once: the second often meets what the first met."""
    found: dict[str, Finding] = {}
    for call in calls:
        try:
            call()
        except PrismError as error:
            found.setdefault(error.what, from_error(name, error))
        except Exception as error:  # a broken library: what else can be read is still of interest
            what = f"cannot be checked: {type(error).__name__}: {shown(str(error))}"
            found.setdefault(what, problem(name, what, "first do what the other findings ask for"))
    yield from found.values()


def _absent(name: str, absent: Absent) -> Finding:
    return warning(name, absent.reason, absent.hint or "nothing can be done: it was not published")


def _drafters(suite: Suite, target: Target, place: Path, models_dir: Path) -> Iterator[Finding]:
    """A target's drafters: config, layout, and whether they fit it. Those that are absent are one finding."""
    folders: dict[Path, Drafter] = {}
    absent: dict[str, Absent] = {}
    for drafter in suite.drafters.values():
        if drafter.kind == "vanilla":
            continue
        for scale in [scale.name for scale in suite.scales] if drafter.scaled else [None]:
            for engine in ("torch", "sglang"):
                found = _found(partial(locate_drafter, suite, target.name, drafter.name, scale, models_dir, engine))
                if isinstance(found, Path):
                    folders.setdefault(found, drafter)
                elif found.hint:
                    absent.setdefault(found.reason, found)
    name = f"{target.name}'s drafters"
    wrong = [
        finding
        for folder, drafter in folders.items()
        for finding in _errors(name, [partial(_fit, target, place, drafter, folder)])
    ]
    yield from wrong
    if absent:
        first = next(iter(absent.values()))
        yield warning(name, f"{number_of(len(absent), 'checkpoint')} not here: {listed(absent, most=1)}", first.hint)
    if folders and not wrong:
        yield ok(name, f"{number_of(len(folders), 'checkpoint')} can be read and fit {place}")


def _fit(target: Target, place: Path, drafter: Drafter, folder: Path) -> None:
    """Raises PrismError for a drafter that cannot be read, or is another target's."""
    ours = read_target_config(place)
    if drafter.kind == "model":
        theirs = read_target_config(folder)
        if theirs.vocab_size != ours.vocab_size:
            raise CheckpointError(
                f"{folder}: vocabulary {theirs.vocab_size} is not that of the target {place}, {ours.vocab_size}",
                "this drafter belongs to another target",
            )
        return
    capture = target.eagle3_capture if read_layout(folder) == EAGLE3.name else target.capture
    check_capture(folder, capture, target.name)
    check_target(read_config(folder, capture), TargetSizes.of(ours), folder)


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
        yield ok("questions", f"those of {read} of {number_of(len(suite.benchmarks), 'benchmark')} can be read")


def _labels(suite: Suite) -> Iterator[Finding]:
    """Whether the suite's words can be drawn, in every experiment that it fills."""
    name = "labels"
    wrong: dict[str, Finding] = {}
    for experiment in map(load_experiment, experiment_names()):
        try:
            points = expand(experiment, suite, Options())
        except PrismError:
            continue  # this suite has not what the experiment is about
        wrong |= {one.what: one for one in _errors(name, [partial(check_labels, experiment, suite, points)])}
    yield from wrong.values() or [ok(name, "all of the suite's labels can be drawn")]


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
            f"{root / 'log.jsonl'}: {number_of(len(damaged), 'damaged line')} set aside (lines {lines})",
            "run again: what they held is measured again",
        )
    measured = sum(record.ok for record in records.values())
    yield ok("measurements", f"{number_of(measured, 'measured cell')} in {root}")
