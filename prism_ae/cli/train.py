"""``prism-ae train``: the models of a suite, or one drafter for any target."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.recipes.catalogue import SuiteOrder
    from prism_ae.suites.records import Suite

Data = Annotated[Path | None, typer.Option(help="Conversations of your own, one JSON object per line.", metavar="FILE")]


@dataclasses.dataclass(frozen=True)
class DrafterOptions:
    """What one drafter is trained for and into; a suite takes none of these."""

    target: Annotated[Path | None, typer.Option(help="The target's checkpoint folder.", metavar="DIR")] = None
    out: Annotated[Path | None, typer.Option(help="The drafter's folder; must not exist.", metavar="DIR")] = None
    template: Annotated[
        str | None, typer.Option(help="The target's chat template: one of the suite's.", metavar="NAME")
    ] = None
    system: Annotated[str | None, typer.Option(help="The system prompt; default: the suite's.", metavar="TEXT")] = None
    suite: Annotated[str | None, typer.Option(help="The suite of --template; default: paper.", metavar="NAME")] = None
    recipes: Annotated[
        str | None, typer.Option(help="Recipes of a suite, or a .toml file of them; default: mini's.", metavar="NAME")
    ] = None


@dataclasses.dataclass(frozen=True)
class SuiteTraining:
    """What of a suite is trained; one drafter takes none of these."""

    seeds: Annotated[
        int, typer.Option(help="Suite: trainings of each drafter; further ones at its seed_scales.", metavar="N")
    ] = 1
    variants: Annotated[bool, typer.Option("--variants", help="Suite: the drafters on request, too.")] = False
    drafters: Annotated[
        str | None, typer.Option(help="Suite: these alone, and what they start from.", metavar="hass,prism")
    ] = None
    scales: Annotated[str | None, typer.Option(help="Suite: these training scales alone.", metavar="1x,2x")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Suite: only say what would be made.")] = False


@dataclasses.dataclass(frozen=True)
class Places:
    """What is read, and where a suite's models go."""

    data: Annotated[
        Path | None, typer.Option(help="Conversations of your own, one JSON object per line.", metavar="FILE")
    ] = None
    models_dir: o.ModelsDir = o.MODELS


def train(
    what: Annotated[str, typer.Argument(help="A suite (a .toml file is one), or a drafter's name.", metavar="WHAT")],
    drafter: DrafterOptions,
    suite: SuiteTraining,
    devices: o.DeviceOptions,
    places: Places,
) -> None:
    """Train a suite's models, or one drafter for a target of yours.

    A suite's drafters learn from what its target writes, or from --data. What is there is kept; after Ctrl-C the same
    command makes the rest.

    \b
    Examples:
      prism-ae train mini --workers 2
      prism-ae train mini --seeds 5 --drafters prism,hass_cont
      prism-ae train smollm2 --scales 1x --dry-run
      prism-ae train prism --target my-llama --data my.jsonl --out my-prism --template llama-3 --gpus 0
    """
    from prism_ae.errors import UsageError
    from prism_ae.suites.load import load_suite, suite_names

    if what in suite_names() or what.endswith(".toml"):
        if given := [name for name, value in vars(drafter).items() if value is not None]:
            raise UsageError(f"--{given[0]} belongs to training one drafter, not to suite {what}", "leave it out")
        _train_suite(load_suite(what), suite, devices, places)
        return
    recipe_file = _recipe_file(drafter.recipes)
    _check_name(what, recipe_file)
    if suite != SuiteTraining():
        asked = {
            "--variants": suite.variants,
            "--drafters": suite.drafters is not None,
            "--scales": suite.scales is not None,
            "--dry-run": suite.dry_run,
        }
        option = next((name for name, is_asked in asked.items() if is_asked), "--seeds")
        raise UsageError(f"{option} belongs to training a suite, not to one drafter", "leave it out")
    _train_drafter(what, drafter, devices, places.data, recipe_file)


def _recipe_file(name: str | None) -> Path:
    """Of ``--recipes``; raises UsageError and ConfigError."""
    from prism_ae.errors import UsageError
    from prism_ae.recipes.file import MINI
    from prism_ae.suites.load import load_suite

    if name is None:
        return MINI
    if name.endswith(".toml"):
        return Path(name)
    suite = load_suite(name)
    if not suite.recipes:
        known = ", ".join(_trained_here())
        raise UsageError(f"--recipes: suite {name} has none", f"suites with recipes: {known}; or a .toml file")
    return Path(suite.recipes)


def _trained_here() -> list[str]:
    """The package's suites that have recipes."""
    from prism_ae.suites.load import load_suite, suite_names

    return [name for name in suite_names() if load_suite(name).recipes]


def _check_name(name: str, recipe_file: Path) -> None:
    """Raises UsageError for a drafter that no recipe makes."""
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import did_you_mean
    from prism_ae.recipes.file import load_recipes

    known = (*_trained_here(), *load_recipes(recipe_file).drafters)
    if name not in known:
        hint = f"known: {', '.join(known)}"
        raise UsageError(f"there is no recipe '{name}'{did_you_mean(name, known)}", hint)


def _train_suite(suite: Suite, asked: SuiteTraining, devices: o.DeviceOptions, places: Places) -> None:
    import sys

    from prism_ae.cli.output import note, say
    from prism_ae.devices.slots import usable_cores
    from prism_ae.errors import UsageError
    from prism_ae.experiments.expand import check_seeds
    from prism_ae.io.words import pluralise
    from prism_ae.processes.progress import display_on
    from prism_ae.recipes.catalogue import SuiteOrder
    from prism_ae.training.suite import make_suite, open_suite, training_slots

    check_seeds(asked.seeds)
    if not suite.recipes:
        raise UsageError(f"suite {suite.name} is not trained here: it names no recipes", suite.models_hint)
    drafters, scales = o.split_names("--drafters", asked.drafters), o.split_names("--scales", asked.scales)
    for name in scales:
        o.check_word("--scales", name, [scale.name for scale in suite.scales])
    all_downloaded = all(target.folder for target in suite.targets.values())
    if not all_downloaded:
        for name, value in (("gpus", devices.gpus), ("data", places.data)):
            if value is not None:
                why = "its targets are trained here, on a CPU, from the embedded corpus"
                raise UsageError(f"--{name} is not for suite {suite.name}: {why}", "leave it out")
    slots = devices.slots(elsewhere=asked.dry_run)
    catalogue = open_suite(suite, places.models_dir, places.data)
    for name in drafters:
        o.check_word("--drafters", name, catalogue.recipes.drafters)
    order = SuiteOrder(
        catalogue, seeds=asked.seeds, variants=asked.variants, drafters=drafters, scales=scales, data=places.data
    )
    if all_downloaded or asked.dry_run:
        lines = _said_before(order)
        if asked.dry_run:
            say(lines)
            return
        note(lines)
    train_slots = training_slots(slots, usable_cores(), chosen=devices.workers is not None) if all_downloaded else slots
    with display_on(sys.stderr) as display:
        trained = make_suite(order, slots, train_slots, display)
    of = f"all {trained.total:,} of the {suite.name} suite" if trained.total else "nothing was asked for"
    say([f"trained {pluralise(trained.made, 'model')}; {of} are in {catalogue.folder}"])


def _said_before(order: SuiteOrder) -> list[str]:
    """What would be made."""
    from prism_ae.io.words import pluralise
    from prism_ae.training.forecast import forecast

    if order.downloaded_targets:
        return forecast(order).in_words(order)
    missing = [one.label for one in order.artifacts if not one.folder.exists()]
    return [
        f"{pluralise(len(missing), 'model')} to train into {order.catalogue.folder}",
        *(f"  {one}" for one in missing),
    ]


def _train_drafter(
    name: str, options: DrafterOptions, devices: o.DeviceOptions, data: Path | None, recipe_file: Path
) -> None:
    import os
    import sys

    from prism_ae.cli.output import note, say
    from prism_ae.devices.slots import cpu_threads, usable_cores
    from prism_ae.errors import UsageError
    from prism_ae.processes.progress import display_on
    from prism_ae.prompts.json_lines import is_broken
    from prism_ae.suites.load import load_suite

    target, out, template = options.target, options.out, options.template
    if target is None or data is None or out is None or template is None:
        given = {"target": target, "data": data, "out": out, "template": template}
        absent = [f"--{part}" for part, value in given.items() if value is None]
        raise UsageError(f"training one drafter needs {', '.join(absent)}", "see 'prism-ae train --help'")
    suite = load_suite(options.suite or "paper")
    o.check_word("--template", template, suite.templates)
    slot, *more = dataclasses.replace(devices, workers=devices.workers or (None if devices.gpus else 1)).slots()
    if more:
        raise UsageError("one drafter is trained on one device", "name one GPU, or leave --workers out")
    # Before torch is imported: it reads them once. There is one job here, so it has all cores, unless the user says.
    threads = {name: os.environ.get(name, count) for name, count in cpu_threads(usable_cores()).items()}
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
        order = DrafterOrder(name, target, data, out, suite.templates[template], prompt, slot.device, recipe_file)
        folder = train_drafter(order, reports)
    if folder != out:
        note([f"{out} was taken meanwhile; the drafter is in {folder}"])
    say([str(folder)])
