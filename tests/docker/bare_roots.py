"""A root file system of layers in which a command runs as in a container: other files, other user, no other settings.

Everything is mounted in a mount namespace of the command's own, so nothing is left mounted whatever ends it, and what
deletes the layers later cannot reach through a mount.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_SCRIPT = r"""
set -eu
root=$1 options=$2 user=$3
shift 3
mount -t overlay -o "$options" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then
        mkdir -p "$root$2"
    else
        mkdir -p "$(dirname "$root$2")"
        [ -e "$root$2" ] || : > "$root$2"
    fi
    mount --bind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
    shift 3
done
shift
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


class Bind(NamedTuple):
    """A file or folder of this machine, seen in the root."""

    source: Path
    target: str
    writable: bool = False


class CommandFailedError(Exception):
    """A command that ended with another code than 0, and all it said."""


@dataclass(frozen=True)
class Root:
    """Layers, the lowest first; what is written goes to the last."""

    layers: tuple[Path, ...]

    def with_layer(self, folder: Path) -> Root:
        """The same files, and a new layer in ``folder`` for what is written from now on."""
        for part in (folder, folder / "files", folder / "work", folder / "mounted"):
            part.mkdir()
            part.chmod(0o755)
        return Root((*self.layers, folder / "files"))

    def run(
        self,
        command: Sequence[str],
        *,
        user: str = "0:0",
        folder: str = "/",
        env: Mapping[str, str],
        binds: Sequence[Bind] = (),
        data: bytes = b"",
    ) -> str:
        """What a command printed, both streams together. It ends with its first process, and all others with it."""
        *lower, top = self.layers
        below = ":".join(str(layer) for layer in reversed(lower))
        options = f"lowerdir={below},upperdir={top},workdir={top.parent / 'work'}"
        new = [bind for bind in binds if not any(os.path.lexists(f"{layer}{bind.target}") for layer in self.layers)]
        listed = [part for bind in binds for part in (bind.source, bind.target, "rw" if bind.writable else "ro")]
        done = subprocess.run(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", _SCRIPT, "sh", top.parent / "mounted", options, user, *listed, "--"),
                *("/usr/bin/env", "-i", "-C", folder, *(f"{name}={value}" for name, value in env.items()), *command),
            ],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        for bind in new:
            _forget(Path(f"{top}{bind.target}"))
        said = done.stdout.decode(errors="replace")
        if done.returncode:
            raise CommandFailedError(f"{command} ended with {done.returncode}:\n{said}")
        return said


def _forget(place: Path) -> None:
    """Delete what was made only to be mounted on: a builder leaves nothing of a secret, not even its name."""
    with contextlib.suppress(OSError):
        place.rmdir() if place.is_dir() else place.unlink()
