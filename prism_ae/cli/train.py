"""``prism-ae train``: the mini suite's models, or one drafter for any target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prism_ae.cli import options as o

Target = Annotated[Path | None, typer.Option(help="The target's checkpoint folder.", metavar="DIR")]
Data = Annotated[Path | None, typer.Option(help="Conversations, one JSON object per line.", metavar="FILE")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="The drafter's folder; must not exist.", metavar="DIR")]
TemplateName = Annotated[
    str | None, typer.Option("--template", help="How the target is spoken to: a template of the suite.", metavar="NAME")
]
TemplatesOf = Annotated[
    str | None,
    typer.Option("--suite", help="The suite that --template names one of; default: paper.", metavar="NAME"),
]
System = Annotated[str | None, typer.Option(help="The system prompt; default: the suite's.", metavar="TEXT")]


def train(
    what: Annotated[str, typer.Argument(help="'mini' for the whole suite, or a drafter's name.", metavar="WHAT")],
    target: Target = None,
    data: Data = None,
    out: OutFolder = None,
    template: TemplateName = None,
    system: System = None,
    suite: TemplatesOf = None,
    gpus: o.Gpus = None,
    workers: o.Workers = None,
    models_dir: o.ModelsDir = o.MODELS,
) -> None:
    """Train the mini suite's models, or one drafter for a target of yours by the mini suite's recipe.

    What is trained already is not trained again; after Ctrl-C the same command makes the rest.

    \b
    Examples:
      prism-ae train mini --workers 2
      prism-ae train prism --target my-llama --data my.jsonl --out my-prism --template llama-3 --gpus 0
    """
    from prism_ae.errors import UsageError

    single = {"--target": target, "--data": data, "--out": out, "--template": template}
    if what != "mini":
        _check_name(what)
        if target is None or data is None or out is None or template is None:
            absent = ", ".join(option for option, value in single.items() if value is None)
            raise UsageError(f"training one drafter needs {absent}", "see 'prism-ae train --help'")
        _drafter(what, target, data, out, template, system, suite or "paper", gpus, workers)
        return
    single |= {"--system": system, "--suite": suite, "--gpus": gpus}
    if given := [option for option, value in single.items() if value is not None]:
        raise UsageError(f"{given[0]} belongs to training one drafter, not to the mini suite", "leave it out")
    _suite(models_dir, workers)


def _check_name(name: str) -> None:
    """Raises UsageError for a drafter that no recipe makes."""
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import meant
    from prism_ae.mini.recipes import load_recipes

    known = ("mini", *load_recipes().drafters)
    if name not in known:
        raise UsageError(f"nothing called '{name}' can be trained{meant(name, known)}", f"known: {', '.join(known)}")


def _suite(models_dir: Path, workers: int | None) -> None:
    import sys

    from prism_ae.cli.measure import slots
    from prism_ae.cli.output import say
    from prism_ae.cli.training_display import line_on, suite_state
    from prism_ae.io.words import pluralise
    from prism_ae.training.run import train_suite

    count = len(slots(None, workers))
    with line_on(sys.stderr) as show:
        trained, total = train_suite(models_dir, count, lambda state: show(suite_state(state)))
    say([f"trained {pluralise(trained, 'model')}; all {total:,} of the mini suite are in {models_dir / 'mini'}"])


def _drafter(
    name: str,
    target: Path,
    data: Path,
    out: Path,
    template: str,
    system: str | None,
    suite: str,
    gpus: str | None,
    workers: int | None,
) -> None:
    import os
    import sys

    from prism_ae.cli.measure import slots
    from prism_ae.cli.output import say
    from prism_ae.cli.training_display import job_state, line_on
    from prism_ae.devices.slots import usable_cores
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import closest
    from prism_ae.prompts.json_lines import is_broken
    from prism_ae.suites.load import load_suite

    loaded = load_suite(suite)
    if template not in loaded.templates:
        known = ", ".join(loaded.templates)
        raise UsageError(
            f"--template: there is no '{template}'{closest(template, loaded.templates)}", f"known: {known}"
        )
    slot, *more = slots(gpus, workers or (None if gpus else 1))
    if more:
        raise UsageError("one drafter is trained on one device", "name one GPU, or leave --workers out")
    # Before torch is imported: it reads them once. There is one job here, so it has all cores, unless the user says.
    threads = {name: os.environ.get(name, str(usable_cores())) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update({**slot.environment, **threads})
    from prism_ae.training.single import DrafterOrder, TrainingReports, train_drafter

    prompt = loaded.system_prompt if system is None else system
    if is_broken(prompt):
        raise UsageError("--system: not text in UTF-8", "write it in the terminal's own encoding, UTF-8")
    with line_on(sys.stderr) as show:
        show(f"reading {data}")
        reports = TrainingReports(
            data=lambda lines: print("\n".join(lines), file=sys.stderr, flush=True),
            prepared=lambda part: show(f"what the target says of the data: {part:.0%}"),
            step=lambda part, loss: show(job_state(name, part, loss)),
        )
        order = DrafterOrder(name, target, data, out, loaded.templates[template], prompt, slot.device)
        folder = train_drafter(order, reports)
    if folder != out:
        print(f"{out} was taken meanwhile; the drafter is in {folder}", file=sys.stderr)
    say([str(folder)])
