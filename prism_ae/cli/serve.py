"""``prism-ae serve``: an SGLang server that drafts with PRISM, on this machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from prism_ae.cli import options as o

TargetName = Annotated[
    str, typer.Argument(help="The target: a folder, or a repository as in org/name.", metavar="TARGET")
]
DrafterName = Annotated[
    str | None,
    typer.Argument(help="Its drafter, in any known layout; without one the target serves alone.", metavar="[DRAFTER]"),
]
More = Annotated[
    list[str] | None, typer.Argument(help="After --: other options of SGLang's server.", metavar="[-- OPTION ...]")
]


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How the server drafts, and what it runs on."""

    tree: Annotated[
        str | None,
        typer.Option(help="Draft tree as steps,branch,verified tokens; default: SGLang's, 5,4,8.", metavar="6,10,60"),
    ] = None
    port: Annotated[int, typer.Option(help="Port on this machine.", metavar="N")] = 30000
    gpus: Annotated[
        str | None, typer.Option(help="GPUs that the target is spread over; default: the CPU.", metavar="0,1")
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Compute dtype; default: float32 on a CPU, the target's own on GPUs.",
            metavar="float32|bfloat16|float16",
        ),
    ] = None
    drafting: Annotated[
        str | None, typer.Option(help="exact (the default), or stock: SGLang's own draft loop.", metavar="exact|stock")
    ] = None
    threads: Annotated[
        int, typer.Option(help="CPU threads; on busy cores several are slower than one.", metavar="N")
    ] = 1


def serve(
    target: TargetName,
    drafter: DrafterName = None,
    more: More = None,
    *,
    server: ServerOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plain SGLang command, and start nothing.")
    ] = False,
) -> None:
    """Serve a target with its drafter: an SGLang server with the right options for the CPU, or for GPUs.

    The equivalent plain SGLang command is printed first; pasted into a shell it starts the same server. Models are
    checked before anything is started. It listens on this machine alone, and Ctrl-C ends all of its processes.

    \b
    Examples:
      prism-ae serve my-target my-drafter --tree 6,4,16
      prism-ae serve meta-llama/Meta-Llama-3-8B-Instruct my-drafter --gpus 0
      prism-ae serve my-target my-drafter --port 30001 -- --max-running-requests 8 --enable-metrics
      prism-ae serve my-target my-drafter --dry-run
    """
    import os

    from prism_ae.cells import TreeShape
    from prism_ae.cli.output import flush, note, say
    from prism_ae.engines.registry import check_environment, identify
    from prism_ae.engines.sglang.server import Service, check_service, plain_command
    from prism_ae.engines.sglang.server import serve as run_server
    from prism_ae.errors import UsageError
    from prism_ae.processes.interrupts import Signals

    options = list(more or ())
    if drafter is not None and drafter.startswith("-"):  # the first word after "--": there is no drafter
        options.insert(0, drafter)
        drafter = None
    o.check_word("--dtype", server.dtype or "float32", ("float32", "bfloat16", "float16"))
    o.check_word("--drafting", server.drafting or "exact", ("exact", "stock"))
    if server.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {server.threads}")
    if drafter is None and (server.tree or server.drafting):
        option = "--tree" if server.tree else "--drafting"
        raise UsageError(f"{option} needs a drafter, and none is named", "name its folder")
    service = Service(
        target=target,
        drafter=drafter,
        tree=TreeShape.parse(server.tree) if server.tree else None,
        port=server.port,
        dtype=server.dtype,
        drafting=server.drafting,
        slots=o.DeviceOptions(server.gpus, None if server.gpus else 1).slots(),
        threads=server.threads,
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
        note([f"ready: {service.url} (OpenAI's API below {service.url}/v1); Ctrl-C ends it"])

    with Signals() as signals:
        run_server(service, lambda: signals.count > 0, ready)
    note(["the server has ended"])
