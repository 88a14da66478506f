"""What doctor's checks look at, taken once: variables, limits, signals and places of this process."""

from __future__ import annotations

import dataclasses
import locale
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from prism_ae.processes.shadowing import PATH

LIMITS = {
    "-n": resource.RLIMIT_NOFILE,
    "-u": resource.RLIMIT_NPROC,
    "-v": resource.RLIMIT_AS,
    "-f": resource.RLIMIT_FSIZE,
    "-t": resource.RLIMIT_CPU,
}
"""Options of the shell's ``ulimit``."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """An environment. Checks take what they judge from here; what they must open themselves is named here.

    Attributes:
        variables: of the environment.
        uid: of the user.
        platform: as `sys.platform`.
        python: version.
        executable: Python's, "" where it does not know itself.
        optimize: level of ``-O``; at 1 or above Python leaves assertions out.
        path: where Python looks for modules in a command, in order.
        folder: the current one; None where it is gone.
        models_dir, runs_dir: as given.
        gpus: as given to ``--gpus``, or None.
        limits: option of ``ulimit`` -> soft limit in bytes, seconds or pieces; what is unlimited is left out.
        ignored, blocked: names of signals that this process ignores or does not receive.
        encodings: of "standard output", "file names" and "text files".
    """

    variables: Mapping[str, str]
    uid: int
    platform: str
    python: tuple[int, int, int]
    executable: str
    optimize: int
    path: tuple[str, ...]
    folder: Path | None
    models_dir: Path
    runs_dir: Path
    gpus: str | None
    limits: Mapping[str, int]
    ignored: frozenset[str]
    blocked: frozenset[str]
    encodings: Mapping[str, str]


def take_snapshot(models_dir: Path, runs_dir: Path, gpus: str | None) -> Snapshot:
    """The environment of this process."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    soft = {option: resource.getrlimit(limit)[0] for option, limit in LIMITS.items()}
    return Snapshot(
        variables=dict(os.environ),
        uid=os.getuid(),
        platform=sys.platform,
        python=sys.version_info[:3],
        executable=sys.executable or "",
        optimize=sys.flags.optimize,
        path=PATH,
        folder=_current_folder(),
        models_dir=models_dir,
        runs_dir=runs_dir,
        gpus=gpus,
        limits={option: limit for option, limit in soft.items() if limit != resource.RLIM_INFINITY},
        ignored=frozenset(one.name for one in signals if signal.getsignal(one) is signal.SIG_IGN),
        blocked=frozenset(one.name for one in signals if one in blocked),
        encodings={
            "standard output": getattr(sys.stdout, "encoding", None) or "utf-8",
            "file names": sys.getfilesystemencoding(),
            "text files": locale.getpreferredencoding(do_setlocale=False),
        },
    )


def _current_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:
        return None
