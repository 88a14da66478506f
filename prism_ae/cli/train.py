"""``prism-ae train``: the mini suite's models, or one drafter for any target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_ae.cli import options as o


def train(
    what: Annotated[str, typer.Argument(help="'mini' for the whole suite, or a drafter's name.", metavar="WHAT")],
    target: Annotated[Path | None, typer.Option(help="The target's checkpoint folder.", metavar="DIR")] = None,
    data: Annotated[Path | None, typer.Option(help="Conversations, one JSON object per line.", metavar="FILE")] = None,
    out: Annotated[Path | None, typer.Option(help="The drafter's checkpoint folder, new.", metavar="DIR")] = None,
    workers: o.Workers = None,
    models_dir: o.ModelsDir = o.MODELS,
) -> None:
    """Train the mini suite's models, or one drafter for a target of yours.

    What is trained already is not trained again; after Ctrl-C the same command makes the rest.

    \b
    Examples:
      prism-ae train mini --workers 2
      prism-ae train prism --target models/my-llama --data conversations.jsonl --out models/my-prism
    """
    from prism_ae.errors import UsageError

    single = {"--target": target, "--data": data, "--out": out}
    if what == "mini":
        if given := [option for option, value in single.items() if value is not None]:
            raise UsageError(f"{given[0]} belongs to training one drafter, not to the mini suite", "leave it out")
        _suite(models_dir, workers)
        return
    if absent := [option for option, value in single.items() if value is None]:
        raise UsageError(f"training one drafter needs {', '.join(absent)}", "see 'prism-ae train --help'")


def _suite(models_dir: Path, workers: int | None) -> None:
    import sys

    from prism_ae.cli.measure import slots
    from prism_ae.cli.output import number_of, say
    from prism_ae.cli.training_display import display_on
    from prism_ae.training.run import train_suite

    count = len(slots(None, workers))
    with display_on(sys.stderr) as show:
        trained, total = train_suite(models_dir, count, show)
    say([f"trained {number_of(trained, 'model')}; all {total:,} of the mini suite are in {models_dir / 'mini'}"])
