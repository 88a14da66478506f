"""What this process was started with: limits of the shell, signals that do not reach it, encodings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prism_ae.doctor.findings import Finding, ok, problem, warning
from prism_ae.doctor.snapshot import Snapshot

FEW_FILES, FEW_PROCESSES = 1024, 512
"""Below these SGLang, with its processes and their sockets, may not start."""

SMALL_FILE, LARGE_FILE = 16 * 2**20, 64 * 2**30
"""Bytes: no checkpoint is written below the first; every published file is smaller than the second."""


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about limits, signals and encodings. Pure."""
    yield from _limits(snapshot.limits)
    yield from _signals(snapshot)
    yield from _encodings(snapshot.encodings)


def _limits(limits: Mapping[str, int]) -> Iterator[Finding]:
    found = list(_tight(limits))
    yield from found or [ok("ulimit", "no limit of the shell is in the way")]


def _tight(limits: Mapping[str, int]) -> Iterator[Finding]:
    if (files := limits.get("-n", FEW_FILES)) < FEW_FILES:
        yield warning(
            "ulimit -n",
            f"at most {files:,} files and connections may be open in a process; SGLang may need more",
            f"ulimit -n {FEW_FILES}, or more; where that is refused, ask the administrator",
        )
    if (processes := limits.get("-u", FEW_PROCESSES)) < FEW_PROCESSES:
        yield warning(
            "ulimit -u",
            f"this user may have {processes:,} processes and threads; workers and SGLang may need more",
            f"ulimit -u {FEW_PROCESSES}, or more; use fewer --workers",
        )
    if "-v" in limits:
        yield warning(
            "ulimit -v",
            f"a process may address {_gigabytes(limits['-v'])}; CUDA alone reserves more than a GPU's memory",
            "ulimit -v unlimited, or a larger limit of the batch system's",
        )
    if (largest := limits.get("-f", LARGE_FILE)) < LARGE_FILE:
        make = problem if largest < SMALL_FILE else warning
        yield make(
            "ulimit -f",
            f"no file may be larger than {_gigabytes(largest)}: models, logs and figures that are larger fail",
            "ulimit -f unlimited",
        )
    if "-t" in limits:
        yield warning(
            "ulimit -t",
            f"a process is ended after {limits['-t']:,} s of computing, in the middle of a measurement",
            "ulimit -t unlimited",
        )


def _signals(snapshot: Snapshot) -> Iterator[Finding]:
    deaf = snapshot.ignored | snapshot.blocked
    how = "kill -TERM and the process number that run.lock in the runs folder names"
    if "SIGINT" in deaf and "SIGTERM" in deaf:
        yield warning(
            "signals",
            "neither Ctrl-C nor SIGTERM reaches this process: a run can only be ended by force",
            "start it from a shell that ignores neither; kill -KILL ends it, and the same command continues",
        )
    elif "SIGINT" in deaf:
        yield warning(
            "signals",
            "Ctrl-C (SIGINT) does not reach this process, as in the background of a script or behind nohup",
            f"stop a run with {how}; once in order, twice at once",
        )
    elif "SIGTERM" in deaf:
        yield warning(
            "signals",
            "SIGTERM does not reach this process: a batch system cannot stop a run in order",
            "stop a run with Ctrl-C or kill -INT; start it from a shell that does not ignore SIGTERM",
        )
    if "SIGCHLD" in deaf:
        yield warning(
            "signals",
            "SIGCHLD is ignored: how a worker ended cannot be told",
            "start prism-ae from a shell or a program that leaves SIGCHLD as it is",
        )
    if not deaf & {"SIGINT", "SIGTERM", "SIGCHLD"}:
        hangup = "; it outlives its terminal (SIGHUP is ignored)" if "SIGHUP" in deaf else ""
        yield ok("signals", f"Ctrl-C and SIGTERM stop a run in order{hangup}")


def _encodings(encodings: Mapping[str, str]) -> Iterator[Finding]:
    other = {what: name for what, name in encodings.items() if name.lower().replace("-", "").replace("_", "") != "utf8"}
    if not other:
        yield ok("encoding", "text, file names and output are UTF-8")
    for what, name in other.items():
        lost = "letters beyond it are shown as ?" if what == "standard output" else "names beyond it may not be found"
        yield warning("encoding", f"{what}: {name} is the encoding, {lost}", "export LC_ALL=C.UTF-8 (or PYTHONUTF8=1)")


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**20 else f"{size:,} bytes"
