"""``prism-ae serve``: an SGLang server that drafts with PRISM, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

TargetName = Annotated[
    str, typer.Argument(help="The target: a folder, or a repository as in org/name.", metavar="TARGET")
]
DrafterName = Annotated[
    str | None,
    typer.Argument(help="Its drafter, in any layout that is known; without one it serves alone.", metavar="[DRAFTER]"),
]
Tree = Annotated[
    str | None,
    typer.Option(help="Draft tree as steps,branch,verified tokens; default: SGLang's, 5,4,8.", metavar="6,10,60"),
]
Port = Annotated[int, typer.Option(help="Port on this machine.", metavar="N")]
ServeGpus = Annotated[
    str | None, typer.Option(help="GPUs that the target is spread over; default: the CPU.", metavar="0,1")
]
ServeDtype = Annotated[
    str | None,
    typer.Option(
        help="Numbers to compute in; default: float32 on a CPU, the target's own on GPUs.",
        metavar="float32|bfloat16|float16",
    ),
]
ServeDrafting = Annotated[
    str | None, typer.Option(help="exact (the default), or stock: SGLang's own draft loop.", metavar="exact|stock")
]
Threads = Annotated[int, typer.Option(help="CPU threads; on busy cores several are slower than one.", metavar="N")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plain SGLang command, and start nothing.")]
More = Annotated[
    list[str] | None, typer.Argument(help="After --: other options of SGLang's server.", metavar="[-- OPTION ...]")
]


def serve(
    target: TargetName,
    drafter: DrafterName = None,
    more: More = None,
    tree: Tree = None,
    port: Port = 30000,
    gpus: ServeGpus = None,
    dtype: ServeDtype = None,
    drafting: ServeDrafting = None,
    threads: Threads = 1,
    dry_run: DryRun = False,
) -> None:
    """Serve a target with its drafter: an SGLang server with the right options for the CPU, or for GPUs.

    The plain command that it stands for is printed first; pasted into a shell it starts the same server. Models are
    checked before anything is started. It listens on this machine alone, and Ctrl-C ends all of its processes.

    \b
    Examples:
      prism-ae serve my-target my-drafter --tree 6,4,16
      prism-ae serve meta-llama/Meta-Llama-3-8B-Instruct my-drafter --gpus 0
      prism-ae serve my-target my-drafter --port 30001 -- --max-running-requests 8 --enable-metrics
      prism-ae serve my-target my-drafter --dry-run
    """
    import os
    import sys

    from prism_ae.cells import TreeShape
    from prism_ae.cli.convert import check_word
    from prism_ae.cli.measure import slots
    from prism_ae.cli.output import flush, say
    from prism_ae.engines.registry import check_environment, identify
    from prism_ae.engines.sglang.server import Service, check_service, plain_command
    from prism_ae.engines.sglang.server import serve as run_server
    from prism_ae.errors import UsageError
    from prism_ae.execution.interrupts import Signals

    options = list(more or ())
    if drafter is not None and drafter.startswith("-"):  # the first word after "--": there is no drafter
        options.insert(0, drafter)
        drafter = None
    check_word("--dtype", dtype or "float32", ("float32", "bfloat16", "float16"))
    check_word("--drafting", drafting or "exact", ("exact", "stock"))
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}")
    if drafter is None and (tree or drafting):
        raise UsageError(f"{'--tree' if tree else '--drafting'} is for a drafter, and none is named", "name its folder")
    service = Service(
        target=target,
        drafter=drafter,
        tree=TreeShape.parse(tree) if tree else None,
        port=port,
        dtype=dtype,
        drafting=drafting,
        slots=slots(gpus, None if gpus else 1),
        threads=threads,
        more=tuple(options),
    )
    identify("sglang")
    check_environment("sglang", os.environ)
    check_service(service)
    say([plain_command(service, os.environ)])
    flush()
    if dry_run:
        return

    def ready() -> None:
        print(f"ready: {service.url} (OpenAI's API below {service.url}/v1); Ctrl-C ends it", file=sys.stderr)

    with Signals() as signals:
        run_server(service, lambda: signals.count > 0, ready)
    print("the server has ended", file=sys.stderr)
