"""The options that several verbs share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Experiments = Annotated[
    list[str],
    typer.Argument(help="Names as in 'prism-ae ls', paths of .toml files, or 'all'.", metavar="EXPERIMENT"),
]
SomeExperiments = Annotated[
    list[str] | None,
    typer.Argument(help="Names as in 'prism-ae ls', paths of .toml files; default: all.", metavar="[EXPERIMENT]"),
]
SuiteName = Annotated[str, typer.Option("--suite", help="paper, mini, or the path of a .toml file.", metavar="NAME")]
Benches = Annotated[str | None, typer.Option(help="Only these benchmarks.", metavar="humaneval,qa")]
Scales = Annotated[str | None, typer.Option(help="Only these training scales.", metavar="100k,800k")]
Targets = Annotated[str | None, typer.Option(help="Only these targets, by name or role.", metavar="llama-2")]
Drafters = Annotated[str | None, typer.Option(help="These drafters instead of the figure's.", metavar="hass,prism")]
Temperatures = Annotated[str | None, typer.Option(help="These temperatures.", metavar="0,1")]
Questions = Annotated[int | None, typer.Option(help="The first N questions of each benchmark.", metavar="N")]
Trees = Annotated[
    list[str] | None,
    typer.Option(
        "--tree", help="Draft tree as steps,branch,verified tokens; figure8 takes several.", metavar="6,10,60"
    ),
]
BatchSizes = Annotated[
    list[int] | None,
    typer.Option("--batch-size", help="Sequences decoded together; figure7 takes several.", metavar="N"),
]
Drafting = Annotated[
    str | None,
    typer.Option(help="With sglang: exact, stock (SGLang's own draft loop), or both.", metavar="exact|stock|both"),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Numbers to compute in, instead of the suite's.", metavar="float32|bfloat16|float16"),
]
PaperCompat = Annotated[
    bool,
    typer.Option("--paper-compat", help="Imitate the authors' runs: how they served, and EAGLE-3's RoPE base."),
]
Engine = Annotated[str | None, typer.Option(help="Engine: torch or sglang.", metavar="NAME")]
Controls = Annotated[bool, typer.Option("--controls", help="Add the equal-budget controls.")]
WithPaper = Annotated[bool, typer.Option("--with-paper", help="Draw the paper's values as a light reference layer.")]
Gpus = Annotated[str | None, typer.Option(help="GPUs to use, one worker each; default: the CPU.", metavar="0,1")]
Workers = Annotated[int | None, typer.Option(help="CPU workers, one thread each; default: one per core.", metavar="N")]
ModelsDir = Annotated[Path, typer.Option(help="Where the models are.", envvar="PRISM_AE_MODELS", metavar="DIR")]
RunsDir = Annotated[Path, typer.Option(help="Where measurements are kept.", metavar="DIR")]
Out = Annotated[
    Path | None, typer.Option(help="Where everything is drawn; default: figures/out and tables/out.", metavar="DIR")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

MODELS = Path("models")
RUNS = Path("runs")
