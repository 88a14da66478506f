"""``prism-ae ls``: the names that other commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prism_ae.cli.options import Json, SuiteName

KINDS = ("experiments", "targets", "drafters", "benchmarks", "scales", "trees", "suites")


def ls(
    kind: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(KINDS)}.", metavar="[KIND]")] = None,
    suite: SuiteName = "paper",
    *,
    json: Json = False,
) -> None:
    """List experiments, targets, drafters, benchmarks, scales, trees and suites.

    \b
    Examples:
      prism-ae ls
      prism-ae ls drafters --suite mini
      prism-ae ls experiments --json
    """
    from prism_ae.cli.output import say, say_json
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import did_you_mean
    from prism_ae.io.words import table
    from prism_ae.suites.load import load_suite

    if kind is not None and kind not in KINDS:
        raise UsageError(f"there is no kind '{kind}' to list{did_you_mean(kind, KINDS)}", f"kinds: {', '.join(KINDS)}")
    loaded = load_suite(suite)
    found = {one: _entries(one, loaded) for one in ([kind] if kind else KINDS)}
    if json:
        say_json(
            {"suite": loaded.name} | {one: [{"name": n, "about": a} for n, a in rows] for one, rows in found.items()}
        )
        return
    for number, (one, rows) in enumerate(found.items()):
        if kind is None:
            of = "" if one in ("experiments", "suites") else f" of suite {loaded.name}"
            say([*([""] if number else []), f"{one}{of}"])
        say(table(rows, indent="" if kind else "  "))


def _entries(kind: str, suite: Any) -> list[tuple[str, str]]:
    """Names and what they are."""
    from prism_ae.experiments.load import experiment_names, load_experiment
    from prism_ae.suites.load import load_suite, suite_names

    match kind:
        case "experiments":
            return [(name, load_experiment(name).title) for name in experiment_names()]
        case "targets":
            return [
                (name, f"{target.label} (role {' and '.join(target.roles)})") for name, target in suite.targets.items()
            ]
        case "drafters":
            return [(name, _drafter(drafter)) for name, drafter in suite.drafters.items()]
        case "benchmarks":
            return [(name, benchmark.label) for name, benchmark in suite.benchmarks.items()]
        case "scales":
            return [(scale.name, f"{scale.value:g} ({suite.scale_axis})") for scale in suite.scales]
        case "trees":
            return [(name, f"{tree} (steps, branch, verified tokens)") for name, tree in suite.trees.items()]
        case _:
            return [(name, load_suite(name).title) for name in suite_names()]


def _drafter(drafter: Any) -> str:
    parts = [drafter.label, f"for {', '.join(drafter.roles)}"]
    if drafter.absent:
        parts.append(f"no checkpoint: {drafter.absent}")
    return "; ".join(parts)
