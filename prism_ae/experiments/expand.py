"""An experiment, a suite and a user's options make the points to measure. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prism_ae.cells import EXACT, STOCK, Point, TreeShape
from prism_ae.engines.registry import find
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment, SuiteChoice
from prism_ae.io.schema import did_you_mean, suggest
from prism_ae.models.weights import FLOATS
from prism_ae.suites.compat import acceptance_flags, serving_flags
from prism_ae.suites.records import DrafterRecord, Limits, Scale, Suite, TargetRecord

BASELINE = "vanilla"
"""Speed-ups are over this one."""


class UnfilledError(ConfigError):
    """An experiment's own file asks for what the suite has not; no option does.

    Args:
        reason: what that is, a few words for a list of such experiments.
    """

    def __init__(self, what: str, hint: str = "", reason: str = "") -> None:
        super().__init__(what, hint)
        self.reason = reason


_MOST = 1024
"""Sequences in a batch."""
_DRAFTING = (EXACT, STOCK, "both")


def expand(experiment: Experiment, suite: Suite, options: Options) -> tuple[Point, ...]:
    """The points of a figure or table, each once: by target, drafter, scale, training seed, drafting, tree, batch,
    benchmark, temperature, repeat.

    A drafter that does not exist for a target is left out for that target. Vanilla decoding drafts nothing: it has no
    scale, no tree, and counts as "exact".

    Raises:
        UsageError: an option names what the suite does not have, or asks what this experiment cannot draw.
        UnfilledError: the experiment's file asks for something that the suite does not have.
    """
    if options.engine is not None:
        find(options.engine)
    engine = options.engine or experiment.cells.engine
    limits = suite.serving if experiment.timed else suite.limits
    questions = _questions(experiment, suite, options, limits)
    batches = _batches(experiment, suite, options)
    trees = _trees(experiment, suite, options, limits)
    drafting = _drafting(experiment, options, engine)
    if options.dtype is not None:
        _known("--dtype", (options.dtype,), FLOATS)
    dtype = options.dtype or limits.dtype
    seeds = _seeds(experiment, suite, options)
    benchmarks = _benchmarks(experiment, suite, options)
    temperatures = _temperatures(experiment, options)
    repeats = _repeats(experiment, suite, options)
    points = tuple(
        Point(
            suite=suite.name,
            target=target.name,
            drafter=drafter.name,
            scale=scale.name if scale else None,
            benchmark=benchmark,
            temperature=temperature,
            tree=tree,
            engine=by,
            batch=batch,
            questions=_asked(questions, batch, repeat, suite, fixed=options.questions is not None),
            max_new_tokens=limits.new_tokens(suite.benchmarks[benchmark].turns),
            max_length=limits.max_length,
            seed=limits.seed,
            dtype=dtype,
            drafting=drafted,
            compat=_compat(experiment, options, drafter, temperature, suite.benchmarks[benchmark].turns),
            training_seed=training_seed,
            repeat=repeat,
        )
        for target, drafter in _pairs(experiment, suite, options)
        for scale in (_scales(experiment, suite, options) if drafter.scaled else (None,))
        for training_seed in (seeds.get(scale.name, (0,)) if scale and not (drafter.folder or drafter.absent) else (0,))
        for drafted in (drafting if drafter.has_checkpoint else (EXACT,))
        for tree in _drafted(drafter, trees)
        for by in (_engine(experiment, drafter, engine),)
        for batch in (batches if by == engine else (None,))
        for benchmark in benchmarks
        for temperature in temperatures
        for repeat in range(repeats if batch else 1)
    )
    if not points:
        what = f"{experiment.name}: none of the drafters exists for the targets"
        if options.drafters or options.targets:
            raise UsageError(f"{what} that were asked for", "see 'prism-ae ls drafters'")
        raise UnfilledError(
            f"{what} of suite {suite.name}",
            "ask for others with --drafters or --targets",
            "no drafter for the target",
        )
    # A size of the user's own is refused; one of the experiment's file is a missing cell of the plan.
    largest = max(points, key=lambda point: point.batch or 0)
    if options.batch_sizes and (problem := largest.unfilled_batch):
        raise UsageError(
            f"{experiment.name}: {problem}",
            f"ask for more with --questions {batches[-1]}, or for a smaller batch with --batch-size {questions}",
        )
    if options.paper_compat and not any(point.compat for point in points):
        raise UsageError(
            f"--paper-compat: {experiment.name} measures acceptance, where it imitates the RoPE base of EAGLE-3's "
            "config.json alone, and no drafter asked for here is concerned",
            "leave the option out",
        )
    return points


def drawn_targets(experiment: Experiment, suite: Suite, options: Options) -> tuple[TargetRecord, ...]:
    """The targets of a figure, in the suite's order. Raises as `expand`."""
    if options.targets:
        known = [*suite.targets, *suite.roles]
        _known("--targets", options.targets, known)
        return tuple(t for t in suite.targets.values() if {t.name, *t.roles} & set(options.targets))
    found: dict[str, TargetRecord] = {}  # each once, whatever roles it takes
    for role in experiment.cells.roles:
        try:
            target = suite.target_of(role)
        except KeyError:
            raise _lacks(experiment, suite, "cells.roles", role, suite.roles) from None
        found[target.name] = target
    return tuple(found.values())


def drawn_drafters(experiment: Experiment, suite: Suite, options: Options) -> tuple[DrafterRecord, ...]:
    """The drafters of a figure, in drawing order, controls last; the baseline comes first where speed-ups are drawn and
    it was not named. Raises as `expand`."""
    if options.drafters:
        _known("--drafters", options.drafters, suite.drafters)
        names = tuple(dict.fromkeys(options.drafters))
    else:
        names = experiment.drafters_for(suite.name)
        names += tuple(name for name in experiment.added if name in suite.drafters)
    by_default = suite.controls and not options.drafters  # who names drafters gets those
    if by_default if options.controls is None else options.controls:
        names += tuple(name for name in experiment.controls_for(suite.name) if name not in names)
    if experiment.needs_vanilla and BASELINE not in names:
        names = (BASELINE, *names)
    for name in names:
        if name not in suite.drafters:
            raise _lacks(experiment, suite, "drafters", name, suite.drafters)
        if reason := experiment.refusal(suite.drafters[name]):
            what = f"{experiment.name} cannot draw '{name}': {reason}"
            if name in options.drafters:
                raise UsageError(f"--drafters: {what}")
            hint = "ask for others with --drafters, or correct the suite's file"
            raise UnfilledError(f"suite {suite.name}: drafters.{name}: {what}", hint, f"'{name}' unfit: {reason}")
    return tuple(suite.drafters[name] for name in names)


def _pairs(experiment: Experiment, suite: Suite, options: Options) -> Iterator[tuple[TargetRecord, DrafterRecord]]:
    drafters = drawn_drafters(experiment, suite, options)
    for target in drawn_targets(experiment, suite, options):
        yield from ((target, drafter) for drafter in drafters if drafter.exists_for(target))


def _scales(experiment: Experiment, suite: Suite, options: Options) -> tuple[Scale, ...]:
    scales = suite.scales
    if options.scales:
        _known("--scales", options.scales, [scale.name for scale in scales])
        scales = tuple(scale for scale in scales if scale.name in options.scales)
    return scales[-1:] if experiment.cells.scales == "largest" else scales


_MOST_SEEDS = 100


def check_seeds(seeds: int) -> None:
    """Raises UsageError for a number of training seeds that is none."""
    if not 1 <= seeds <= _MOST_SEEDS:
        raise UsageError(f"--seeds must be between 1 and {_MOST_SEEDS}, got {seeds}")


def _seeds(experiment: Experiment, suite: Suite, options: Options) -> Mapping[str, Sequence[int]]:
    """Training scale -> the training seeds of a drafter that is trained here, where there are more than the first.

    What is timed takes the first alone: another training changes how much is accepted, which is measured without time.
    """
    check_seeds(options.seeds)
    if options.seeds == 1:
        return {}
    if not suite.seed_scales:
        raise UsageError(f"--seeds: the drafters of suite {suite.name} have one training each", "leave the option out")
    if options.scales and not set(options.scales) & set(suite.seed_scales):
        known = ", ".join(suite.seed_scales)
        raise UsageError("--seeds: none of --scales is trained with further seeds", f"those are {known}")
    return {} if experiment.timed else {scale: range(options.seeds) for scale in suite.seed_scales}


def _questions(experiment: Experiment, suite: Suite, options: Options, limits: Limits) -> int:
    if options.questions is None:
        own = experiment.suites.get(suite.name, SuiteChoice()).questions
        return limits.questions if own is None else own
    if options.questions < 1:
        raise UsageError(f"--questions must be at least 1, got {options.questions}")
    return options.questions


def _asked(questions: int, batch: int | None, repeat: int, suite: Suite, *, fixed: bool) -> int:
    """Questions of a cell: unless a number was asked for, at least as many as the batch has places, or it would never
    be full. A repeat has fewer where one is answered after the other; beside others it takes as long as with the same.
    """
    every = questions if fixed else max(questions, batch or 1)
    return min(every, suite.repeat_questions) if repeat and batch == 1 else every


_MOST_REPEATS = 100


def _repeats(experiment: Experiment, suite: Suite, options: Options) -> int:
    if options.repeats is not None and not 1 <= options.repeats <= _MOST_REPEATS:
        raise UsageError(f"--repeats must be between 1 and {_MOST_REPEATS}, got {options.repeats}")
    repeats = suite.repeats if options.repeats is None else options.repeats
    return repeats if experiment.timed else 1


def _batches(experiment: Experiment, suite: Suite, options: Options) -> tuple[int | None, ...]:
    """Batch sizes, the smallest first; (None,) where acceptance is measured."""
    if not experiment.timed:
        if options.batch_sizes:
            raise UsageError(
                f"--batch-size: {experiment.name} measures acceptance, which does not depend on the batch",
                "leave the option out",
            )
        return (None,)
    own = experiment.suites.get(suite.name, SuiteChoice()).batches
    sizes = tuple(sorted(set(options.batch_sizes or own or experiment.batches)))
    if not 1 <= sizes[0] <= sizes[-1] <= _MOST:
        wrong = sizes[0] if sizes[0] < 1 else sizes[-1]
        raise UsageError(f"--batch-size must be between 1 and {_MOST}, got {wrong}")
    if not experiment.several_batches and len(sizes) > 1:
        raise UsageError(f"--batch-size: {experiment.name} draws one batch size, got {len(sizes)}", "run once per size")
    return sizes


def _trees(experiment: Experiment, suite: Suite, options: Options, limits: Limits) -> tuple[TreeShape, ...]:
    """The draft trees, each once, in the order asked for."""
    if experiment.tree is not None:
        if len(options.trees) > 1:
            raise UsageError(f"--tree: {experiment.name} draws one tree, got {len(options.trees)}", "run once per tree")
        if experiment.tree not in suite.trees:
            raise _lacks(experiment, suite, "cells.tree", experiment.tree, suite.trees)
    trees = tuple(dict.fromkeys(options.trees or experiment.own_trees(suite)))
    shortest = min(limits.max_new_tokens, limits.turns_max_new_tokens)
    for tree in trees:
        if tree.steps > shortest:
            what = (
                f"draft tree {tree}: {tree.steps} steps reach further than an answer of suite {suite.name}, which has "
                f"at most {shortest} tokens"
            )
            if options.trees:
                raise UsageError(what, f"use at most {shortest} steps")
            hint = f"ask for at most {shortest} steps with --tree"
            raise UnfilledError(f"{experiment.name}: {what}", hint, f"answers are shorter than draft tree {tree}")
    return trees


def _drafted(drafter: DrafterRecord, trees: Sequence[TreeShape]) -> Sequence[TreeShape | None]:
    """What a drafter makes of these trees: vanilla decoding none, prompt lookup chains of their steps."""
    if drafter.kind == "lookup":
        return tuple(dict.fromkeys(TreeShape(tree.steps, 1, tree.steps + 1) for tree in trees))
    return trees if drafter.has_checkpoint else (None,)


def _engine(experiment: Experiment, drafter: DrafterRecord, engine: str) -> str:
    """The one that measures a drafter: not always the experiment's where acceptance without a time says something."""
    return "torch" if experiment.draws_untimed and drafter.kind == "lookup" and engine == "sglang" else engine


def _drafting(experiment: Experiment, options: Options, engine: str) -> tuple[str, ...]:
    if options.drafting is None:
        return experiment.cells.drafting
    _known("--drafting", (options.drafting,), _DRAFTING)
    if engine != "sglang":
        raise UsageError(
            f"--drafting: {experiment.name} is measured with the engine {engine}, which has one way of drafting, exact",
            "leave the option out, or add --engine sglang",
        )
    return (EXACT, STOCK) if options.drafting == "both" else (options.drafting,)


def _compat(
    experiment: Experiment, options: Options, drafter: DrafterRecord, temperature: float, turns: int
) -> tuple[str, ...]:
    if not options.paper_compat:
        return ()
    return serving_flags(temperature, turns) if experiment.timed else acceptance_flags(drafter)


def _benchmarks(experiment: Experiment, suite: Suite, options: Options) -> tuple[str, ...]:
    if options.benches:
        _known("--benches", options.benches, suite.benchmarks)
        return tuple(name for name in suite.benchmarks if name in options.benches)
    for name in experiment.cells.benchmarks:
        if name not in suite.benchmarks:
            raise _lacks(experiment, suite, "cells.benchmarks", name, suite.benchmarks)
    return experiment.cells.benchmarks


_COLDEST = 1e-4
"""Logits divided by less leave the range of float32."""


def _temperatures(experiment: Experiment, options: Options) -> tuple[float, ...]:
    for temperature in options.temperatures:
        if not (math.isfinite(temperature) and (temperature == 0 or temperature >= _COLDEST)):
            raise UsageError(
                f"--temperatures: invalid temperature {temperature:g}",
                f"0 is greedy, 1 plain sampling, anything else from {_COLDEST:g} on",
            )
    # Floats throughout: a point asked as 0 and one asked as 0.0 must be the same cell.
    asked = options.temperatures or experiment.cells.temperatures
    return tuple(sorted({float(temperature) for temperature in asked}))


_OPTIONS = {
    "cells.roles": ("target", "--targets"),
    "drafters": ("drafter", "--drafters"),
    "cells.tree": ("tree", "--tree"),
    "cells.benchmarks": ("benchmark", "--benches"),
}
"""What a key of an experiment's file names, and the option that asks for something else."""


def _lacks(experiment: Experiment, suite: Suite, key: str, name: str, names: Iterable[str]) -> UnfilledError:
    """The experiment's file names what the suite does not have."""
    kind, option = _OPTIONS[key]
    hint = f"ask for what the suite has with {option}, correct the experiment's file, or choose another --suite"
    if name == BASELINE:  # added where it was not named, so that not naming it is no way out
        hint = f"speed-ups are over vanilla decoding: add [drafters.{BASELINE}] to the suite's file"
    return UnfilledError(
        f"experiment {experiment.name}: {key}: suite {suite.name} has no {kind} '{name}'{suggest(name, names)}",
        hint,
        f"no {kind} '{name}'",
    )


def _known(option: str, asked: Iterable[str], names: Iterable[str]) -> None:
    known = list(names)
    for name in asked:
        if name not in known:
            raise UsageError(f"{option}: there is no '{name}'{did_you_mean(name, known)}", f"known: {', '.join(known)}")
