"""The application: its verbs, and the help that shows how they are used."""

from __future__ import annotations

from typing import Annotated

import typer

from prism_ae.cli import claims, convert, doctor, download, import_, ls, plan, render, run, serve, status, train, tune
from prism_ae.cli.options import flattened

_HELP = """Reproduce PRISM (MLSys 2026): speculative decoding with step-wise draft parameters.

Two suites: 'paper' (the published models, on GPUs) and 'mini' (tiny models, trained here, on any CPU).

\b
Examples:
  prism-ae doctor                               check this environment before a run
  prism-ae ls                                   list experiments, targets, drafters, …
  prism-ae train mini                           train the mini suite's models
  prism-ae plan figure4 --suite mini            show the cells, time and disk of a run
  prism-ae run all --suite mini                 measure and draw every figure and table
  prism-ae download --only figure1              fetch the models of the paper's figure 1
  prism-ae run figure1 --gpus 0,1               the paper's figure 1, on two GPUs
  prism-ae run figure7 --suite mini --batch-size 10 --batch-size 12
  prism-ae status --suite mini                  show progress and failures
  prism-ae claims --suite mini                  which claims of the paper hold here
  prism-ae serve my-target my-drafter           an SGLang server with PRISM, on this machine
  prism-ae tune mini-llama-2 prism --suite mini
  prism-ae convert my-prism --to sglang --out my-prism-sglang

\b
Exit codes:
  0    done
  1    another error, or a problem found by doctor
  2    an option or a name that does not exist
  3    a TOML file with an invalid or contradictory entry
  4    a model, question file or package that is not here yet
  5    a checkpoint that is damaged, unsupported or of another model
  6    a GPU that does not exist, is in use, or ran out of memory
  7    a folder or file cannot be read or written (no such place, read-only, full, in use)
  8    the run ended, and some cells have no result
  130  interrupted; the same command continues
"""

app = typer.Typer(
    name="prism-ae",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

for verb, short in (
    (doctor.doctor, "Check this environment for problems before a run."),
    (ls.ls, "List experiments, targets, drafters, …"),
    (download.download, "Fetch the paper suite's models and questions."),
    (train.train, "Train the mini suite's models, or one drafter."),
    (plan.plan, "Show the cells of a run, their cost, and missing models."),
    (run.run, "Measure the cells without a result, then draw."),
    (status.status, "Show progress, failures and their reasons."),
    (claims.claims, "Judge the paper's claims by what was measured."),
    (render.render, "Draw from measured cells, without the models."),
    (import_.import_, "Import results of the original artifact."),
    (serve.serve, "Serve a target with its drafter, by SGLang."),
    (tune.tune, "Find the best draft tree for a server on this device."),
    (convert.convert, "Write a drafter for SGLang, or in another layout."),
):
    app.command(name=verb.__name__.rstrip("_"), short_help=short)(flattened(verb))


def _version(*, asked: bool) -> None:
    if asked:
        from prism_ae import __version__

        typer.echo(f"prism-ae {__version__}")
        raise typer.Exit


@app.callback()
def top(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


top.__doc__ = _HELP
