"""Temporary files and folders of processes that this program starts.

SGLang's processes talk through sockets in the file system, whose paths the system limits to about a hundred bytes: a
folder for them has to be short, whatever TMPDIR says.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from prism_ae.errors import StoreError

_LONGEST = len("pymp-12345678/listener-12345678")
"""Of the names of sockets below such a folder, those of Python's multiprocessing are the longest."""

_HINT = "free some space, or name another folder in TMPDIR"


def output_file() -> IO[bytes]:
    """A file without a name, for what a process prints; raises StoreError."""
    try:
        return tempfile.TemporaryFile("a+b", buffering=0)
    except OSError as error:
        raise StoreError(f"cannot write a temporary file: {error.strerror}", _HINT) from error


def socket_folder(prefix: str, environ: Mapping[str, str]) -> Path:
    """Make a folder that sockets fit into: in the temporary folder where that is short enough, else in another.

    Args:
        prefix: of its name.
        environ: this process's variables.

    Raises:
        StoreError: there is no such place; names TMPDIR.
    """
    failures = []
    for parent in _candidates(environ):
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            failures.append(f"{parent}: {error.strerror or error}")
            continue
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                path = folder / ("x" * _LONGEST)
                probe.bind(os.fsencode(path))
                path.unlink()
            return folder
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            failures.append(f"{parent}: {error.strerror or error}")
    asked = f" (TMPDIR={environ['TMPDIR']})" if "TMPDIR" in environ else ""
    raise StoreError(
        f"no temporary folder can hold SGLang's sockets{asked}: {'; '.join(failures)}",
        "set TMPDIR to a folder with a short path that can be written, as in TMPDIR=/tmp",
    )


def short_temporary_folder(environ: Mapping[str, str]) -> Path:
    """Where `socket_folder` makes its folders; raises StoreError."""
    folder = socket_folder("prism-ae-", environ)
    folder.rmdir()
    return folder.parent


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    usual: list[str] = []
    try:
        usual = [tempfile.gettempdir()]
    except OSError:  # neither TMPDIR nor any usual place can be written
        usual = [environ["TMPDIR"]] if environ.get("TMPDIR") else []
    yield from dict.fromkeys([*usual, "/tmp", "/var/tmp", *filter(None, [environ.get("XDG_RUNTIME_DIR")])])
