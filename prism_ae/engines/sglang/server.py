"""An SGLang server for people: the plain command that starts it with PRISM on this device, and its process.

The command is what a user could type; pasted into a shell it starts the same server. What it needs on a CPU (stand-ins
on the path, a backend with a tree mask, no compiler, a scheduler that sleeps when idle) is nowhere in SGLang's help.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prism_ae.cells import TreeShape
from prism_ae.devices.slots import Slot
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.engines.pairs import check_branch
from prism_ae.errors import DeviceError, MissingError, UsageError
from prism_ae.io.temporary import short_temporary_folder
from prism_ae.models.checkpoints import read_json
from prism_ae.processes.child import Program
from prism_ae.sglang_prism.description import read_for_sglang
from prism_ae.sglang_prism.stand_ins.paths import stand_in_paths

HOST = "127.0.0.1"
"""This machine alone. A server for others is started with the plain command and a --host of one's own."""

PLUGIN = "prism-ae"
"""Name of the plugin's entry point."""

CPU_MEMORY, CPU_TOKENS = 0.3, 65536
"""Part of the machine's memory for weights and keys and values, and tokens that are kept at most: SGLang fills what it
may have, and all of a machine's memory is not a server's."""

GRACE = 20.0
"""Seconds that a server has to end when it is asked to, before it is ended by force."""

_TICK = 0.2


@dataclasses.dataclass(frozen=True)
class Service:
    """What is asked for.

    Attributes:
        target, drafter: folders, or repositories as SGLang takes them; drafter is None for a server without drafts.
        tree: None leaves it to SGLang.
        dtype: None: on a CPU float32, on GPUs the target's own.
        drafting: "exact" or "stock"; None: exact.
        slots: the devices: one slot of the CPU, or a GPU each that the target is spread over.
        threads: of the CPU.
        more: other options of SGLang's, as typed.
    """

    target: str
    drafter: str | None
    tree: TreeShape | None
    port: int
    dtype: str | None
    drafting: str | None
    slots: tuple[Slot, ...]
    threads: int
    more: tuple[str, ...] = ()

    @property
    def on_cpu(self) -> bool:
        return self.slots[0].device == "cpu"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def server_options(service: Service) -> list[str]:
    """The options of ``sglang.launch_server``, as they are typed."""
    found: dict[str, Any] = {"model-path": service.target, "host": HOST, "port": service.port}
    if service.drafter is not None:
        found |= {"speculative-algorithm": "PRISM", "speculative-draft-model-path": service.drafter}
    if service.drafter is not None and service.tree is not None:
        found |= {
            "speculative-num-steps": service.tree.steps,
            "speculative-eagle-topk": service.tree.branch,
            "speculative-num-draft-tokens": service.tree.verified,
        }
    if service.on_cpu:
        found |= {
            "device": "cpu",
            "dtype": service.dtype or "float32",
            "attention-backend": "intel_amx",
            "sampling-backend": "pytorch",
            "mem-fraction-static": CPU_MEMORY,
            "max-total-tokens": CPU_TOKENS,
        }
    else:
        found |= {"tp-size": len(service.slots)} if len(service.slots) > 1 else {}
        found |= {"dtype": service.dtype} if service.dtype else {}
    words = [word for name, value in found.items() for word in (f"--{name}", str(value))]
    words.append("--sleep-on-idle")
    if service.on_cpu:
        words += ["--disable-cuda-graph", "--disable-overlap-schedule"]  # SGLang has neither for drafting on a CPU
    return [*words, *service.more]


def server_environment(service: Service, ours: Mapping[str, str]) -> dict[str, str]:
    """The variables that the command needs beside those of the shell.

    Args:
        ours: this process's variables.

    Raises:
        StoreError: there is no temporary folder that its sockets fit into.
    """
    found: dict[str, str] = {}
    if service.on_cpu:
        paths = [*map(str, stand_in_paths()), *filter(None, [ours.get("PYTHONPATH")])]
        found |= {
            "SGLANG_USE_CPU_ENGINE": "1",
            "OMP_NUM_THREADS": str(service.threads),
            "TORCHDYNAMO_DISABLE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(paths),
        }
    else:
        visible = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in service.slots]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(visible)
    if str(short := short_temporary_folder(ours)) != tempfile.gettempdir():
        found["TMPDIR"] = str(short)  # SGLang's sockets have paths that are too long otherwise
    if service.drafting is not None:
        found["PRISM_AE_DRAFTING"] = service.drafting
    if (chosen := ours.get("SGLANG_PLUGINS")) and PLUGIN not in [name.strip() for name in chosen.split(",")]:
        found["SGLANG_PLUGINS"] = f"{chosen},{PLUGIN}"  # a choice of plugins without this one would lose PRISM
    return {name: value for name, value in found.items() if value or name == "CUDA_VISIBLE_DEVICES"}


def plain_command(service: Service, ours: Mapping[str, str]) -> str:
    """The line that starts the same server when it is pasted into a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in server_environment(service, ours).items()]
    return " ".join([*variables, *map(shlex.quote, _words(service))])


def _words(service: Service) -> list[str]:
    return [sys.executable, "-m", "sglang.launch_server", *server_options(service)]


def check_service(service: Service) -> None:
    """What can be told before anything is started.

    Raises:
        PrismError: a folder that is missing or malformed, a drafter of another target, a tree that its vocabulary is
            too small for, an option that is said twice, a port that is taken.
    """
    taken = {
        word.partition("=")[0] for word in server_options(dataclasses.replace(service, more=())) if word[:2] == "--"
    }
    taken |= {"--speculative-algorithm", "--speculative-draft-model-path", "--dtype", "--model"}
    taken -= {"--mem-fraction-static", "--max-total-tokens", "--sleep-on-idle"}
    for word in service.more:
        name = word.partition("=")[0]
        if name.startswith("--") and any(option.startswith(name) for option in taken):  # SGLang takes beginnings, too
            raise UsageError(
                f"{name} is set by prism-ae serve itself",
                "see 'prism-ae serve --help', or change the plain command that --dry-run prints",
            )
    target = Path(service.target).expanduser()
    drafter = None if service.drafter is None else Path(service.drafter).expanduser()
    for path in [target] if drafter is None else [target, drafter]:
        if path.is_file():
            raise UsageError(f"{path} is a file", "name the model's folder, or its repository")
        if not path.exists() and (path.is_absolute() or len(path.parts) != 2):
            raise MissingError(f"{path} does not exist", "name a model's folder, or a repository as in org/name")
    if target.is_dir() and "--skip-tokenizer-init" not in service.more:
        for name in ("config.json", "tokenizer_config.json"):
            if not (target / name).is_file():
                raise MissingError(f"{target} has no {name}", "SGLang reads it: copy it from where the model is from")
    if target.is_dir() and drafter and drafter.is_dir():
        where = target / "config.json"
        config = read_for_sglang(drafter, TargetSizes.from_hf(read_json(where), str(where)))
        check_branch(config, drafter, service.tree)
    _check_port(service.port)


def _check_port(port: int) -> None:
    if not 0 < port < 65536:
        raise UsageError(f"--port: {port} is not a port", "choose one from 1024 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} of {HOST} cannot be used: {error.strerror}",
                "choose another with --port, or end what listens there",
            ) from error


def serve(service: Service, should_stop: Callable[[], bool], ready: Callable[[], None]) -> None:
    """Run the server until it is told to stop; its output goes to standard error.

    Args:
        should_stop: asked a few times a second.
        ready: called once, when it answers.

    Raises:
        DeviceError: it ended by itself.
    """
    die_with_us = f"import os, sys; from prism_ae.processes.parent_death import die_with; die_with({os.getpid()}); "
    command = [sys.executable, "-P", "-c", f"{die_with_us}os.execv(sys.argv[1], sys.argv[1:])", *_words(service)]
    server = Program(command, server_environment(service, os.environ), out=sys.stderr.fileno())
    answers = False
    try:
        while (how := server.wait(_TICK)) is None:
            if should_stop():
                return
            if not answers and _answers(service.url):
                answers = True
                ready()
        raise DeviceError(f"SGLang ended with {how}", "its last words are above")
    finally:
        server.end(GRACE)


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
