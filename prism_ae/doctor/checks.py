"""All checks, and how they are carried out: side by side, each on its own. One that fails is a finding, no more."""

from __future__ import annotations

import dataclasses
import importlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from prism_ae.doctor.findings import Finding, from_error, problem, shown
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.errors import PrismError, UsageError

PATIENCE = 120.0
"""Seconds after which a check that gives no word is left alone: a dead network disk never answers."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One subject: ``run`` yields at least one finding."""

    name: str
    run: Callable[[Snapshot], Iterable[Finding]]


def _module(name: str) -> Check:
    """The check of a module of this package, imported when it runs: where an import fails, the others go on."""

    def run(snapshot: Snapshot) -> Iterable[Finding]:
        found: Iterable[Finding] = importlib.import_module(f"prism_ae.doctor.{name}").check(snapshot)
        return found

    return Check(name, run)


CHECKS = tuple(
    _module(name)
    for name in (
        "installation",
        "shadows",
        "accelerators",
        "variables",
        "network",
        "places",
        "drawing",
        "process",
    )
)


def suite_check(name: str) -> Check:
    """The check of a suite's models, questions and measurements; ``name`` as ``--suite`` takes it."""

    def run(snapshot: Snapshot) -> Iterable[Finding]:
        from prism_ae.doctor.suite import check_suite
        from prism_ae.suites.load import load_suite

        return check_suite(load_suite(name), snapshot.models_dir, snapshot.runs_dir)

    return Check("suite", run)


def examine(snapshot: Snapshot, checks: Sequence[Check], patience: float = PATIENCE) -> tuple[Finding, ...]:
    """The findings of all checks, in the checks' order.

    Args:
        patience: seconds that all of them have together.

    Raises:
        UsageError: what was typed names nothing; that is no trouble of the environment.
    """
    answers: queue.SimpleQueue[tuple[int, list[Finding] | UsageError]] = queue.SimpleQueue()

    def carry_out(number: int, check: Check) -> None:
        try:
            answers.put((number, guarded(check, snapshot)))
        except UsageError as error:
            answers.put((number, error))

    for number, check in enumerate(checks):
        # Daemons: one that hangs does not keep the program from ending.
        threading.Thread(target=carry_out, args=(number, check), daemon=True).start()
    deadline = time.monotonic() + patience
    found: dict[int, list[Finding]] = {}
    while len(found) < len(checks):
        try:
            number, findings = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(findings, UsageError):
            raise findings
        found[number] = findings
    return tuple(
        finding for number, check in enumerate(checks) for finding in found.get(number, [_silent(check, patience)])
    )


def guarded(check: Check, snapshot: Snapshot) -> list[Finding]:
    """What a check finds, or that it failed; raises UsageError."""
    try:
        return list(check.run(snapshot))
    except UsageError:
        raise
    except PrismError as error:
        return [from_error(check.name, error)]
    except BaseException as error:  # a foreign module may even end the program
        return [
            problem(
                check.name,
                f"this check failed itself: {type(error).__name__}: {shown(str(error))}",
                "remove what the other findings name; if it stays, please report it",
            )
        ]


def _silent(check: Check, patience: float) -> Finding:
    return problem(
        check.name,
        f"this check gave no word for {patience:g} s",
        "look for a disk, a driver or a network that does not answer",
    )
