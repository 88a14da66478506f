"""``prism-ae tune``: the best draft tree on this device, as options of a server."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.analysis.results import Results
    from prism_ae.cells import Point
    from prism_ae.devices.slots import Slot
    from prism_ae.planning.plan import Resolved
    from prism_ae.store import Store
    from prism_ae.suites.records import Suite
    from prism_ae.tuning.points import Setting
    from prism_ae.tuning.tune import Effort, Tuned

TargetName = Annotated[str, typer.Argument(help="A target of the suite, by name or role.", metavar="TARGET")]
DrafterName = Annotated[str, typer.Argument(help="A draft head of the suite.", metavar="DRAFTER")]


@dataclasses.dataclass(frozen=True)
class TuneOptions:
    """What is tuned for, and how much is measured for it."""

    suite: o.SuiteName = "paper"
    scale: Annotated[
        str | None, typer.Option(help="Training scale of the drafter; default: the largest.", metavar="NAME")
    ] = None
    engine: Annotated[
        str, typer.Option(help="Engine whose time counts: sglang, which serves, or torch.", metavar="NAME")
    ] = "sglang"
    batch: Annotated[int, typer.Option(help="Batch size that the tree is chosen for.", metavar="N")] = 1
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option("--batch-size", help="Batch sizes of the curve; default: 1, 2, 4 … 32.", metavar="N"),
    ] = None
    temperature: Annotated[float, typer.Option(help="Of the sampling; 0 is greedy.", metavar="T")] = 0.0
    benches: Annotated[str | None, typer.Option(help="Only these benchmarks.", metavar="humaneval,qa")] = None
    questions: Annotated[int, typer.Option(help="The first N questions of each benchmark.", metavar="N")] = 4
    dtype: Annotated[
        str | None, typer.Option(help="Compute dtype (default: the suite's).", metavar="float32|bfloat16|float16")
    ] = None
    trees: Annotated[
        list[str] | None,
        typer.Option("--tree", help="Only these draft trees; default: a grid up to 8,10,64.", metavar="6,10,60"),
    ] = None
    finalists: Annotated[
        int, typer.Option(help="Trees that the best is chosen from by time; all of them: no forecast.", metavar="N")
    ] = 6
    repeats: Annotated[int, typer.Option(help="Blocks in which time is compared.", metavar="N")] = 3
    out: Annotated[Path, typer.Option(help="Where the curve and the numbers are written.", metavar="DIR")] = Path(
        "tuned"
    )


def tune(
    target: TargetName,
    drafter: DrafterName,
    tuning: TuneOptions,
    devices: o.DeviceOptions,
    folders: o.FolderOptions,
    *,
    as_json: o.Json = False,
) -> None:
    """Find the draft tree that decodes fastest here, and the batch size at which drafting stops paying.

    Trees are compared by tokens per round over the cost of a round. The tokens are measured with the torch engine,
    where the target's text is written once for all trees; the cost with the engine that serves, a few trees and no
    drafts side by side in blocks. Ctrl-C once stops; the same command continues.

    \b
    Examples:
      prism-ae tune mini-llama-2 prism --suite mini
      prism-ae tune llama-3 prism --gpus 0 --benches humaneval,gsm8k
      prism-ae tune mini-llama-3 hass --suite mini --engine torch --batch 8
      prism-ae tune my-llama my-prism --suite mine.toml --gpus 0

    What is measured is kept in the folder 'tune' of the runs folder, apart from figures and tables. Models and
    questions of one's own are named in a suite's file.
    """
    from prism_ae.cells import TreeShape
    from prism_ae.cli.measure import open_store
    from prism_ae.cli.output import flush, note, say, say_json
    from prism_ae.suites.load import load_suite
    from prism_ae.tuning.report import as_data, as_lines, write
    from prism_ae.tuning.space import all_trees
    from prism_ae.tuning.tune import tune as search

    suite = load_suite(tuning.suite)
    setting, effort = _setting(suite, target, drafter, tuning), _effort(tuning)
    trees = tuple(dict.fromkeys(TreeShape.parse(text) for text in tuning.trees or ())) or all_trees()
    slots = devices.slots()
    store = open_store(folders.runs_dir / "tune", suite)
    bench = StoreBench(suite, store, folders.models_dir, slots)
    tuned = search(setting, trees, effort, bench)
    options = _server_options(setting, tuned, bench, slots)
    if as_json:
        say_json(as_data(setting, tuned, options))
    else:
        say(as_lines(setting, tuned, options))
    flush()
    note(str(path) for path in write(tuning.out, setting, tuned, options))


class StoreBench:
    """A `tuning.tune.Bench` whose results are cells of a store, measured by workers as those of a run are."""

    def __init__(self, suite: Suite, store: Store, models_dir: Path, slots: Sequence[Slot]) -> None:
        from prism_ae.planning.lookup import LocalLookup

        self._suite, self._store, self._models_dir, self._slots = suite, store, models_dir, slots
        self._lookup = LocalLookup(suite, models_dir)

    def done(self, points: Sequence[Point]) -> Collection[Point]:
        """See `tuning.tune.Bench`."""
        from prism_ae.planning.plan import make_plan

        return make_plan(self.resolve(points), self._store.records()).done.keys()

    def resolve(self, points: Sequence[Point]) -> Resolved:
        """The points as cells; raises MissingError for one that cannot be measured."""
        from prism_ae.errors import MissingError
        from prism_ae.planning.plan import resolve

        resolved = resolve(points, self._lookup, self._suite.drafters)
        for missing in resolved.missing:
            where = (
                f"{missing.point.drafter} with draft tree {missing.point.tree}" if missing.point.tree else "no drafts"
            )
            raise MissingError(f"cannot measure {where}: {missing.reason}", missing.hint)
        return resolved

    def measure(self, points: Sequence[Point], what: str) -> Results:
        """See `tuning.tune.Bench`."""
        from prism_ae.analysis.results import results_of
        from prism_ae.cli.measure import measure, measured
        from prism_ae.cli.output import note
        from prism_ae.errors import IncompleteError
        from prism_ae.experiments.options import Options
        from prism_ae.experiments.request import Request
        from prism_ae.planning.plan import make_plan

        resolved = self.resolve(points)
        plan = make_plan(resolved, self._store.records())
        if plan.assignments:
            note([what])
            request = Request(self._suite, Options(), (), (), (), {})
            # What is compared by its time is timed on one device.
            slots = self._slots if points[0].batch is None else self._slots[:1]
            _, outcome = measure(request, resolved, self._store, self._models_dir, slots)
            if outcome.interrupted:
                raise KeyboardInterrupt
            if outcome.failed:
                reason = next(iter(outcome.failed.values()))
                raise IncompleteError(f"{what}: {reason}", "the same command tries again")
            plan = make_plan(resolved, self._store.records())
        return results_of(points, measured(plan, self._store))


def _setting(suite: Suite, target: str, drafter: str, tuning: TuneOptions) -> Setting:
    """What is tuned; raises UsageError for a name that the suite does not have, or for options that contradict it."""
    from prism_ae.engines.registry import find
    from prism_ae.errors import UsageError
    from prism_ae.models.weights import FLOATS
    from prism_ae.tuning.points import Setting

    find(tuning.engine)
    roles = {role: name for name, record in suite.targets.items() for role in record.roles}
    o.check_word("TARGET", target, (*suite.targets, *roles))
    drafters = {name: record for name, record in suite.drafters.items() if record.kind == "draft-head"}
    o.check_word("DRAFTER", drafter, drafters)
    scales = [scale.name for scale in suite.scales]
    if tuning.scale is not None:
        o.check_word("--scale", tuning.scale, scales)
        if not drafters[drafter].scaled:
            raise UsageError(f"--scale: {drafter} is not trained at several scales", "leave it out")
    if tuning.dtype is not None:
        o.check_word("--dtype", tuning.dtype, FLOATS)
    benches = o.split_names("--benches", tuning.benches) or tuple(suite.benchmarks)
    for name in benches:
        o.check_word("--benches", name, suite.benchmarks)
    if tuning.temperature < 0:
        raise UsageError(f"--temperature must be at least 0, got {tuning.temperature:g}")
    return Setting(
        suite=suite,
        target=roles.get(target, target),
        drafter=drafter,
        scale=(tuning.scale or scales[-1]) if drafters[drafter].scaled else None,
        engine=tuning.engine,
        # Time is measured on the first: one without second turns, whose prompts hold the first answers.
        benchmarks=tuple(sorted(dict.fromkeys(benches), key=lambda name: suite.benchmarks[name].turns)),
        questions=_at_least_1("--questions", tuning.questions),
        temperature=tuning.temperature,
        dtype=tuning.dtype or suite.serving.dtype,
    )


def _effort(tuning: TuneOptions) -> Effort:
    """How much is measured; raises UsageError for a number below 1."""
    from prism_ae.tuning.tune import Effort

    batches = tuple(sorted(set(tuning.batch_sizes or Effort.batches)))
    for batch in batches:
        _at_least_1("--batch-size", batch)
    return Effort(
        batch=_at_least_1("--batch", tuning.batch),
        batches=batches,
        finalists=_at_least_1("--finalists", tuning.finalists),
        blocks=_at_least_1("--repeats", tuning.repeats),
    )


def _at_least_1(option: str, number: int) -> int:
    from prism_ae.errors import UsageError

    if number < 1:
        raise UsageError(f"{option} must be at least 1, got {number}")
    return number


def _server_options(setting: Setting, tuned: Tuned, bench: StoreBench, slots: tuple[Slot, ...]) -> str:
    """The options of SGLang's server that make it draft with the best tree."""
    from prism_ae.engines.sglang.server import Service, server_options

    (target, drafter) = next(iter(bench.resolve(setting.acceptance(tuned.best.tree)[:1]).folders.values()))
    service = Service(str(target), str(drafter), tuned.best.tree, 30000, setting.dtype, None, slots[:1], 1)
    words = server_options(service)
    pairs = itertools.pairwise(words)
    return " ".join(f"{name} {value}" for name, value in pairs if name.startswith("--speculative-"))
