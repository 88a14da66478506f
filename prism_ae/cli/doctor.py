"""``prism-ae doctor``: problems of this environment, found before a run is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.doctor.findings import Finding

_MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}

_NARROWEST = 40
"""Columns; a narrower terminal wraps by itself."""


def doctor(
    suite: Annotated[
        str | None,
        typer.Option(help="Also check this suite's models, questions and measurements.", metavar="NAME"),
    ] = None,
    *,
    folders: o.FolderOptions,
    gpus: Annotated[str | None, typer.Option(help="GPUs to be used.", metavar="0,1")] = None,
    json: o.Json = False,
) -> None:
    """Check this environment: Python and packages, GPUs, variables, folders, limits, network settings.

    Changes nothing, loads no model and sends nothing. Each line is ok, a warning (something may go wrong or be slower),
    or a PROBLEM (a command will fail, or measure something else), with one remedy.

    \b
    Exit codes: 0 without problems, 1 with at least one.

    \b
    Examples:
      prism-ae doctor
      prism-ae doctor --suite paper --gpus 0,1
      prism-ae doctor --suite mini --json
    """
    from prism_ae.cli.output import say, say_json
    from prism_ae.doctor import checks
    from prism_ae.doctor.findings import LEVELS, worst
    from prism_ae.doctor.snapshot import take_snapshot
    from prism_ae.io.words import pluralise

    snapshot = take_snapshot(folders.models_dir, folders.runs_dir, gpus)
    # The suite first and alone: an unknown name is refused at once, and drawing changes the folder for a moment.
    of_suite = () if suite is None else checks.examine(snapshot, [checks.suite_check(suite)])
    findings = (*checks.examine(snapshot, checks.CHECKS), *of_suite)
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    if json:
        listed = [
            {"name": one.name, "level": one.level, "what": one.what, "remedy": one.remedy or None} for one in findings
        ]
        say_json({"level": worst(findings), **counts, "findings": listed})
    else:
        width = _width()
        say(line for finding in findings for line in lines(finding, width))
        troubles = f"{pluralise(counts['problem'], 'problem')}, {pluralise(counts['warning'], 'warning')}"
        say([f"{troubles}, {counts['ok']} ok"])
    if counts["problem"]:
        raise typer.Exit(1)


def lines(finding: Finding, width: int | None) -> list[str]:
    """A finding in lines: mark, name and what was found; the remedy indented below it.

    Args:
        width: columns; None puts each part into one line, as programs that filter lines like it.
    """
    import textwrap

    from prism_ae.doctor.findings import printable

    first = f"{_MARKS[finding.level]:<8} {finding.name}: {printable(finding.what)}"
    second = [f"remedy: {printable(finding.remedy)}"] if finding.remedy else []
    indent = " " * 9
    if width is None:
        return [first, *(indent + line for line in second)]
    wrapped = textwrap.wrap(first, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    for line in second:
        wrapped += textwrap.wrap(
            line,
            width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return wrapped


def _width() -> int | None:
    """Columns of the terminal that is written to; None where it is no terminal."""
    import shutil
    import sys

    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(_NARROWEST, shutil.get_terminal_size().columns)
