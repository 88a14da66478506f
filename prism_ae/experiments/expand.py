"""An experiment, a suite and a user's options make the points to measure. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from prism_ae.cells import Point
from prism_ae.engines.registry import find
from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Drafter, Scale, Suite, Target
from prism_ae.toml import closest, meant


def expand(experiment: Experiment, suite: Suite, options: Options) -> tuple[Point, ...]:
    """The points of a figure, each once: by target, drafter, scale, benchmark, temperature.

    A drafter that does not exist for a target is left out for that target.

    Raises:
        UsageError: an option names what the suite does not have, or asks what this figure cannot draw.
        ConfigError: the experiment's file asks for something that the suite does not have.
    """
    if options.batch_sizes:
        raise UsageError(
            f"--batch-size: {experiment.name} measures acceptance, which does not depend on the batch",
            "leave the option out",
        )
    if options.engine is not None:
        find(options.engine)
    limits = suite.limits
    if options.questions is not None and options.questions < 1:
        raise UsageError(f"--questions must be at least 1, got {options.questions}")
    if len(options.trees) > 1:
        raise UsageError(f"--tree: {experiment.name} draws one tree, got {len(options.trees)}", "run once per tree")
    if experiment.cells.tree not in suite.trees:
        raise _lacks(experiment, suite, "cells.tree", "tree", experiment.cells.tree, suite.trees)
    tree = options.trees[0] if options.trees else suite.trees[experiment.cells.tree]
    if tree.steps > limits.max_new_tokens:
        raise UsageError(
            f"draft tree {tree}: {tree.steps} steps reach further than an answer of suite {suite.name}, which has at "
            f"most {limits.max_new_tokens} tokens",
            f"use at most {limits.max_new_tokens} steps",
        )
    benchmarks = _benchmarks(experiment, suite, options)
    temperatures = _temperatures(experiment, options)
    points = tuple(
        Point(
            suite=suite.name,
            target=target.name,
            drafter=drafter.name,
            scale=scale.name if scale else None,
            benchmark=benchmark,
            temperature=temperature,
            tree=tree,
            engine=options.engine or experiment.cells.engine,
            batch=None,
            questions=limits.questions if options.questions is None else options.questions,
            max_new_tokens=limits.max_new_tokens,
            max_length=limits.max_length,
            seed=limits.seed,
            dtype=limits.dtype,
        )
        for target, drafter in _pairs(experiment, suite, options)
        for scale in (_scales(experiment, suite, options) if drafter.scaled else (None,))
        for benchmark in benchmarks
        for temperature in temperatures
    )
    if not points:
        raise UsageError(
            f"{experiment.name}: none of the drafters exists for the targets that were asked for",
            "see 'prism-ae ls drafters'",
        )
    return points


def drawn_targets(experiment: Experiment, suite: Suite, options: Options) -> tuple[Target, ...]:
    """The targets of a figure, in the suite's order. Raises as `expand`."""
    if options.targets:
        known = [*suite.targets, *(target.role for target in suite.targets.values())]
        _known("--targets", options.targets, known)
        return tuple(t for t in suite.targets.values() if t.name in options.targets or t.role in options.targets)
    for role in experiment.cells.roles:
        try:
            suite.target_of(role)
        except KeyError:
            roles = [target.role for target in suite.targets.values()]
            raise _lacks(experiment, suite, "cells.roles", "target", role, roles) from None
    return tuple(suite.target_of(role) for role in experiment.cells.roles)


def drawn_drafters(experiment: Experiment, suite: Suite, options: Options) -> tuple[Drafter, ...]:
    """The drafters of a figure, in drawing order, controls last. Raises as `expand`."""
    if options.drafters:
        _known("--drafters", options.drafters, suite.drafters)
        names = tuple(dict.fromkeys(options.drafters))
    else:
        names = experiment.drafters_for(suite.name)
    if options.controls:
        names += tuple(name for name in experiment.controls_for(suite.name) if name not in names)
    for name in names:
        if name not in suite.drafters:
            raise _lacks(experiment, suite, "drafters", "drafter", name, suite.drafters)
        drafter = suite.drafters[name]
        if drafter.kind == "vanilla" or (experiment.kind != "positions" and not drafter.scaled):
            reason = "it drafts nothing" if drafter.kind == "vanilla" else "it is not trained at several scales"
            raise UsageError(f"--drafters: {experiment.name} cannot draw '{name}': {reason}")
    return tuple(suite.drafters[name] for name in names)


def _pairs(experiment: Experiment, suite: Suite, options: Options) -> Iterator[tuple[Target, Drafter]]:
    drafters = drawn_drafters(experiment, suite, options)
    for target in drawn_targets(experiment, suite, options):
        yield from ((target, drafter) for drafter in drafters if target.role in drafter.roles)


def _scales(experiment: Experiment, suite: Suite, options: Options) -> tuple[Scale, ...]:
    scales = suite.scales
    if options.scales:
        _known("--scales", options.scales, [scale.name for scale in scales])
        scales = tuple(scale for scale in scales if scale.name in options.scales)
    return scales[-1:] if experiment.cells.scales == "largest" else scales


def _benchmarks(experiment: Experiment, suite: Suite, options: Options) -> tuple[str, ...]:
    if options.benches:
        _known("--benches", options.benches, suite.benchmarks)
        return tuple(name for name in suite.benchmarks if name in options.benches)
    for name in experiment.cells.benchmarks:
        if name not in suite.benchmarks:
            raise _lacks(experiment, suite, "cells.benchmarks", "benchmark", name, suite.benchmarks)
    return experiment.cells.benchmarks


def _temperatures(experiment: Experiment, options: Options) -> tuple[float, ...]:
    for temperature in options.temperatures:
        if not (math.isfinite(temperature) and temperature >= 0):
            raise UsageError(f"--temperatures: {temperature:g} is no temperature", "0 is greedy, 1 plain sampling")
    # Floats throughout: a point asked as 0 and one asked as 0.0 must be the same cell.
    asked = options.temperatures or experiment.cells.temperatures
    return tuple(sorted({float(temperature) for temperature in asked}))


def _lacks(experiment: Experiment, suite: Suite, key: str, kind: str, name: str, names: Iterable[str]) -> ConfigError:
    """The experiment's file names what the suite does not have."""
    return ConfigError(
        f"experiment {experiment.name}: {key}: suite {suite.name} has no {kind} '{name}'{closest(name, names)}",
        "correct the experiment's file, or choose another --suite",
    )


def _known(option: str, asked: Iterable[str], names: Iterable[str]) -> None:
    known = list(names)
    for name in asked:
        if name not in known:
            raise UsageError(f"{option}: there is no '{name}'{meant(name, known)}", f"known: {', '.join(known)}")
