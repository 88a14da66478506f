"""The options, each declared once, in groups that verbs take as one argument.

A verb names a group as a parameter, `flattened` puts the group's fields in its place: the field's annotation is the
option, its default the option's default, and the order of the fields is the order of ``--help``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from prism_ae.devices.slots import Slot
    from prism_ae.experiments.options import Options
    from prism_ae.experiments.request import Request

Experiments = Annotated[
    list[str],
    typer.Argument(help="Names as in 'prism-ae ls', paths of .toml files, or 'all'.", metavar="EXPERIMENT"),
]
SomeExperiments = Annotated[
    list[str] | None,
    typer.Argument(help="Names as in 'prism-ae ls', paths of .toml files; default: all.", metavar="[EXPERIMENT]"),
]
SuiteName = Annotated[
    str, typer.Option("--suite", help="paper, smollm2, mini, or the path of a .toml file.", metavar="NAME")
]
WithPaper = Annotated[bool, typer.Option("--with-paper", help="Draw the paper's values as a light reference layer.")]
ModelsDir = Annotated[Path, typer.Option(help="Where the models are.", envvar="PRISM_AE_MODELS", metavar="DIR")]
RunsDir = Annotated[Path, typer.Option(help="Where measurements are kept.", metavar="DIR")]
Out = Annotated[
    Path | None, typer.Option(help="Where everything is drawn; default: figures/out and tables/out.", metavar="DIR")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

MODELS = Path("models")
RUNS = Path("runs")


@dataclasses.dataclass(frozen=True)
class RequestOptions:
    """A suite, and what is asked differently from what an experiment's file says."""

    suite: SuiteName = "paper"
    benches: Annotated[str | None, typer.Option(help="Only these benchmarks.", metavar="humaneval,qa")] = None
    scales: Annotated[str | None, typer.Option(help="Only these training scales.", metavar="100k,800k")] = None
    targets: Annotated[str | None, typer.Option(help="Only these targets, by name or role.", metavar="llama-2")] = None
    drafters: Annotated[
        str | None, typer.Option(help="These drafters instead of the figure's.", metavar="hass,prism")
    ] = None
    temperatures: Annotated[str | None, typer.Option(help="These temperatures.", metavar="0,1")] = None
    questions: Annotated[int | None, typer.Option(help="The first N questions of each benchmark.", metavar="N")] = None
    trees: Annotated[
        list[str] | None,
        typer.Option(
            "--tree", help="Draft tree as steps,branch,verified tokens; figure8 takes several.", metavar="6,10,60"
        ),
    ] = None
    batch_sizes: Annotated[
        list[int] | None,
        typer.Option("--batch-size", help="Sequences decoded together; figure7 takes several.", metavar="N"),
    ] = None
    drafting: Annotated[
        str | None,
        typer.Option(help="With sglang: exact, stock (SGLang's own draft loop), or both.", metavar="exact|stock|both"),
    ] = None
    dtype: Annotated[
        str | None, typer.Option(help="Compute dtype (default: the suite's).", metavar="float32|bfloat16|float16")
    ] = None
    engine: Annotated[str | None, typer.Option(help="Engine: torch or sglang.", metavar="NAME")] = None
    controls: Annotated[
        bool | None,
        typer.Option(
            "--controls/--no-controls", help="Whether equal-budget controls are added (default: the suite's)."
        ),
    ] = None
    al: Annotated[
        str | None,
        typer.Option(
            help="Acceptance length: macro (the paper's figures) or micro (its tables).", metavar="macro|micro"
        ),
    ] = None
    count: Annotated[
        str | None,
        typer.Option(help="Count rounds as the authors do, one more behind an answer's end.", metavar="authors"),
    ] = None
    paper_compat: Annotated[
        bool,
        typer.Option("--paper-compat", help="Imitate the authors' runs: how they served, and EAGLE-3's RoPE base."),
    ] = False
    seeds: Annotated[
        int, typer.Option(help="Training seeds of drafters that are trained here (acceptance only).", metavar="N")
    ] = 1
    repeats: Annotated[
        int | None, typer.Option(help="How often times are measured (default: the suite's).", metavar="N")
    ] = None

    def request(self, experiments: Sequence[str], *, allow_empty: bool = False) -> Request:
        """The request for these experiments; arguments and errors as `make_request`'s."""
        from prism_ae.experiments.request import make_request

        return make_request(experiments, self.suite, self.parsed(), allow_empty=allow_empty)

    def parsed(self) -> Options:
        """Texts as names, numbers and trees; raises UsageError."""
        from prism_ae.cells import TreeShape
        from prism_ae.experiments.options import Options

        lists = ("benches", "scales", "targets", "drafters", "temperatures")
        values: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "suite"}
        values |= {name: split_names(f"--{name}", values[name]) for name in lists}
        values["temperatures"] = tuple(_number("--temperatures", text) for text in values["temperatures"])
        if self.al is not None:
            check_word("--al", self.al, ("macro", "micro"))
        if self.count is not None:
            check_word("--count", self.count, ("authors",))
        values["trees"] = tuple(TreeShape.parse(text) for text in self.trees or ())
        values["batch_sizes"] = tuple(self.batch_sizes or ())
        return Options(**values)


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """What a command runs on."""

    gpus: Annotated[str | None, typer.Option(help="GPUs to use, one worker each; default: the CPU.", metavar="0,1")] = (
        None
    )
    workers: Annotated[
        int | None, typer.Option(help="CPU workers, one thread each; default: one per core.", metavar="N")
    ] = None

    def slots(self, *, elsewhere: bool = False) -> tuple[Slot, ...]:
        """A slot per worker; GPUs may be ``elsewhere`` if nothing is started. Raises UsageError and DeviceError."""
        from prism_ae.devices.slots import find_gpus, plan_slots, usable_cores
        from prism_ae.store.provenance import processor_name

        return plan_slots(self.gpus, self.workers, usable_cores(), processor_name(), find_gpus, elsewhere=elsewhere)


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """The folders that commands share."""

    models_dir: ModelsDir = MODELS
    runs_dir: RunsDir = RUNS


def flattened(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb as typer takes it: every parameter that is a dataclass is replaced by the dataclass's fields."""
    hints = typing.get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            inside = typing.get_type_hints(groups[name], include_extras=True)
            parameters += [
                _parameter(field.name, inside[field.name], field.default) for field in dataclasses.fields(groups[name])
            ]
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))

    @functools.wraps(verb)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
        verb(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def split_names(option: str, text: str | None) -> tuple[str, ...]:
    """The names of a list with commas; () for None. Raises UsageError."""
    from prism_ae.errors import UsageError

    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(
            f"{option}: '{text}' has an empty name", f"write names with commas between, as in {option} a,b"
        )
    return names


def check_word(option: str, word: str, known: Iterable[str]) -> None:
    """Raises UsageError for a word that an option does not know."""
    from prism_ae.errors import UsageError
    from prism_ae.io.schema import did_you_mean

    known = list(known)
    if word not in known:
        raise UsageError(f"{option}: there is no '{word}'{did_you_mean(word, known)}", f"known: {', '.join(known)}")


def _number(option: str, text: str) -> float:
    from prism_ae.errors import UsageError

    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: '{text}' is not a number", f"write numbers as in {option} 0,1") from None
