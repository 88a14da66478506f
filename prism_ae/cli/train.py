"""``prism-ae train``: the mini suite's models, or one drafter for any target."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from prism_ae.cli import options as o


@dataclasses.dataclass(frozen=True)
class DrafterOptions:
    """What one drafter is trained for, from and into; the mini suite takes none of these."""

    target: Annotated[Path | None, typer.Option(help="The target's checkpoint folder.", metavar="DIR")] = None
    data: Annotated[Path | None, typer.Option(help="Conversations, one JSON object per line.", metavar="FILE")] = None
    out: Annotated[Path | None, typer.Option(help="The drafter's folder; must not exist.", metavar="DIR")] = None
    template: Annotated[
        str | None, typer.Option(help="The target's chat template: one of the suite's.", metavar="NAME")
    ] = None
    system: Annotated[str | None, typer.Option(help="The system prompt; default: the suite's.", metavar="TEXT")] = None
    suite: Annotated[str | None, typer.Option(help="The suite of --template; default: paper.", metavar="NAME")] = None


@dataclasses.dataclass(frozen=True)
class SuiteTraining:
    """What of the mini suite is trained; one drafter takes none of these."""

    seeds: Annotated[
        int, typer.Option(help="mini: trainings of each drafter; further ones at the suite's seed_scales.", metavar="N")
    ] = 1
    variants: Annotated[bool, typer.Option("--variants", help="mini: the drafters on request, too.")] = False
    drafters: Annotated[
        str | None, typer.Option(help="mini: these alone, and what they start from.", metavar="hass,prism")
    ] = None


def train(
    what: Annotated[str, typer.Argument(help="'mini' for the whole suite, or a drafter's name.", metavar="WHAT")],
    drafter: DrafterOptions,
    suite: SuiteTraining,
    devices: o.DeviceOptions,
    models_dir: o.ModelsDir = o.MODELS,
) -> None:
    """Train the mini suite's models, or one drafter for a target of yours by the mini suite's recipe.

    Models that are trained already are not trained again; after Ctrl-C the same command makes the rest.

    \b
    Examples:
      prism-ae train mini --workers 2
      prism-ae train mini --seeds 5 --drafters prism,hass_cont
      prism-ae train prism --target my-llama --data my.jsonl --out my-prism --template llama-3 --gpus 0
    """
    from prism_ae.errors import UsageError

    if what != "mini":
        _check_name(what)
        if suite != SuiteTraining():
            asked = {"--variants": suite.variants, "--drafters": suite.drafters is not None}
            option = next((name for name, is_asked in asked.items() if is_asked), "--seeds")
            raise UsageError(f"{option} belongs to training the mini suite, not to one drafter", "leave it out")
        _train_drafter(what, drafter, devices)
        return
    options = vars(drafter) | {"gpus": devices.gpus}
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(f"--{given[0]} belongs to training one drafter, not to the mini suite", "leave it out")
    _train_suite(models_dir, suite, devices)


def _check_name(name: str) -> None:
    """Raises UsageError for a drafter that no recipe makes."""
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import did_you_mean
    from prism_ae.recipes.file import load_recipes

    known = ("mini", *load_recipes().drafters)
    if name not in known:
        hint = f"known: {', '.join(known)}"
        raise UsageError(f"there is no recipe '{name}'{did_you_mean(name, known)}", hint)


def _train_suite(models_dir: Path, suite: SuiteTraining, devices: o.DeviceOptions) -> None:
    import sys

    from prism_ae.cli.output import say
    from prism_ae.experiments.expand import check_seeds
    from prism_ae.io.words import pluralise
    from prism_ae.processes.progress import display_on
    from prism_ae.recipes.catalogue import SuiteOrder
    from prism_ae.recipes.file import load_recipes
    from prism_ae.training.run import train_suite

    check_seeds(suite.seeds)
    drafters, known = o.split_names("--drafters", suite.drafters), load_recipes().drafters
    for name in drafters:
        o.check_word("--drafters", name, known)
    count = len(devices.slots())
    with display_on(sys.stderr) as display:
        order = SuiteOrder(models_dir, seeds=suite.seeds, variants=suite.variants, drafters=drafters)
        trained, total = train_suite(order, count, display)
    say([f"trained {pluralise(trained, 'model')}; all {total:,} of the mini suite are in {models_dir / 'mini'}"])


def _train_drafter(name: str, options: DrafterOptions, devices: o.DeviceOptions) -> None:
    import os
    import sys

    from prism_ae.cli.output import note, say
    from prism_ae.devices.slots import usable_cores
    from prism_ae.errors import UsageError
    from prism_ae.processes.progress import display_on
    from prism_ae.prompts.json_lines import is_broken
    from prism_ae.suites.load import load_suite

    target, data, out, template = options.target, options.data, options.out, options.template
    if target is None or data is None or out is None or template is None:
        absent = [f"--{part}" for part in ("target", "data", "out", "template") if getattr(options, part) is None]
        raise UsageError(f"training one drafter needs {', '.join(absent)}", "see 'prism-ae train --help'")
    suite = load_suite(options.suite or "paper")
    o.check_word("--template", template, suite.templates)
    slot, *more = dataclasses.replace(devices, workers=devices.workers or (None if devices.gpus else 1)).slots()
    if more:
        raise UsageError("one drafter is trained on one device", "name one GPU, or leave --workers out")
    # Before torch is imported: it reads them once. There is one job here, so it has all cores, unless the user says.
    threads = {name: os.environ.get(name, str(usable_cores())) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update({**slot.environment, **threads})
    from prism_ae.training.run import job_state
    from prism_ae.training.single import DrafterOrder, TrainingReports, train_drafter

    prompt = suite.system_prompt if options.system is None else options.system
    if is_broken(prompt):
        raise UsageError("--system: not text in UTF-8", "write it in the terminal's own encoding, UTF-8")
    with display_on(sys.stderr) as display:
        display.show(f"reading {data}")
        reports = TrainingReports(
            data=note,
            prepared=lambda part: display.show(f"the target's hidden states of the data: {part:.0%}"),
            step=lambda part, loss: display.show(job_state(name, part, loss)),
        )
        order = DrafterOrder(name, target, data, out, suite.templates[template], prompt, slot.device)
        folder = train_drafter(order, reports)
    if folder != out:
        note([f"{out} was taken meanwhile; the drafter is in {folder}"])
    say([str(folder)])
