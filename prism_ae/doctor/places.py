"""Folders that a run reads and writes: whether they can be used, locked, and how much room there is."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from prism_ae.doctor.findings import Finding, from_error, ok, problem, shown, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.engines.sglang.options import compiler_caches
from prism_ae.errors import StoreError
from prism_ae.io.temporary import short_temporary_folder
from prism_ae.io.words import format_bytes

SHARED = Path("/dev/shm")

LITTLE, LITTLE_TEMPORARY, LITTLE_SHARED = 2 * 2**30, 2**30, 2**30
"""Free bytes (of shared memory: all bytes) below which room may not do."""

_TRIED = b"\0" * 65536


@dataclasses.dataclass(frozen=True)
class Folder:
    """What trying a folder showed. Where it does not exist yet, its nearest parent was tried.

    Attributes:
        kind: "folder", "absent" (it can be made), "file" (something else stands there or above it), "dangling" (a link
            to nothing), "unreachable" (its path cannot even be looked at).
        tried: the folder that was tried.
        unreadable, unwritable, unlockable: the system's words, "" where it can be read, written, locked.
        free: bytes, None where unknown.
        runs_programs: whether programs can be started from it.
    """

    path: Path
    kind: Literal["folder", "absent", "file", "dangling", "unreachable"]
    tried: Path
    unreadable: str = ""
    unwritable: str = ""
    unlockable: str = ""
    free: int | None = None
    runs_programs: bool = True


def try_folder(path: Path) -> Folder:
    """Look at a folder and try it, by a temporary file without a name that is gone afterwards."""
    try:
        place = Path(os.path.abspath(path))
    except OSError as error:  # the current folder is gone
        return Folder(path, "unreachable", path, unreadable=_words(error))
    absent = False
    while True:
        try:
            if place.is_dir():
                break
            if place.is_symlink():
                return Folder(path, "dangling", place)
            if place.exists():
                return Folder(path, "file", place)
            os.lstat(place)
        except FileNotFoundError:
            absent, place = True, place.parent
        except NotADirectoryError:
            return Folder(path, "file", place.parent)
        except OSError as error:
            return Folder(path, "unreachable", place, unreadable=_words(error))
    unreadable = "" if absent else _failure(lambda: os.listdir(place))
    unwritable, unlockable = _try_writing(place)
    kind: Literal["absent", "folder"] = "absent" if absent else "folder"
    found = Folder(path, kind, place, unreadable, unwritable, unlockable)
    try:
        status = os.statvfs(place)
    except OSError:
        return found
    free = status.f_bavail * status.f_frsize
    return dataclasses.replace(found, free=free, runs_programs=not status.f_flag & os.ST_NOEXEC)


def _try_writing(folder: Path) -> tuple[str, str]:
    """Why a file cannot be written and why it cannot be locked, "" where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            unlockable = _failure(lambda: fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB))
            file.write(_TRIED)
            os.fsync(file.fileno())
    except OSError as error:
        return _words(error), ""
    return "", unlockable


def _failure(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return _words(error)
    return ""


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about the places of this process."""
    if snapshot.folder is None:
        yield problem("current folder", "the current folder does not exist any more", "cd to a folder that exists")
    yield from judge_folder("models folder", "--models-dir", try_folder(snapshot.models_dir), reads_only=True)
    yield from judge_folder("runs folder", "--runs-dir", try_folder(snapshot.runs_dir), reads_only=False)
    for name in ("figures", "tables"):
        yield from judge_folder(f"{name}/out", "--out", try_folder(Path(name) / "out"), reads_only=False, large=False)
    yield from _temporary(snapshot.variables)
    yield from judge_shared(*_shared())
    yield from _caches(snapshot.variables)


def judge_folder(name: str, option: str, folder: Folder, *, reads_only: bool, large: bool = True) -> Iterator[Finding]:
    """Pure.

    Args:
        option: that names another place.
        reads_only: whether a run only reads it.
        large: whether models or measurements are kept in it: files are locked there, and need room.
    """
    path, other = folder.path, f"choose another place with {option}"
    if folder.kind == "dangling":
        link = "" if folder.tried.name == path.name else f" ({folder.tried})"
        yield problem(name, f"{path}{link} is a link to a place that does not exist", f"correct the link, or {other}")
        return
    if folder.kind == "file":
        yield problem(name, f"{folder.tried} is a file where a folder should be", f"move it away, or {other}")
        return
    if folder.kind == "unreachable" or folder.unreadable:
        yield problem(name, f"{path} cannot be read: {folder.unreadable}", f"change its permissions, or {other}")
        return
    found = False
    if folder.unwritable:
        found = True
        if reads_only and folder.kind == "folder":
            said = f"{path} cannot be written ({folder.unwritable}): models are read from it, none can be added"
            yield warning(name, said, f"for 'train' and 'download' make it writable, or {other}")
        else:
            where = path if folder.kind == "folder" else f"{path} cannot be made: {folder.tried}"
            yield problem(name, f"{where} cannot be written: {folder.unwritable}", f"free it for writing, or {other}")
    if folder.unlockable and large:
        found = True
        yield problem(
            name,
            f"files in {folder.tried} cannot be locked: {folder.unlockable}",
            f"{other}, on a disk that supports file locks",
        )
    if large and folder.free is not None and folder.free < LITTLE:
        found = True
        yield warning(name, f"{path}: {format_bytes(folder.free)} are free on its disk", f"free some space, or {other}")
    if not found:
        state = "can be made" if folder.kind == "absent" else "can be written"
        room = "" if folder.free is None else f", {format_bytes(folder.free)} free"
        yield ok(name, f"{path} {state}{room}")


def _temporary(variables: Mapping[str, str]) -> Iterator[Finding]:
    try:
        used, sockets = Path(tempfile.gettempdir()), short_temporary_folder(variables)
    except OSError:
        yield problem(
            "TMPDIR",
            f"no temporary file can be written, neither in TMPDIR ({shown(variables.get('TMPDIR', '')) or 'not set'}) "
            "nor in /tmp",
            "set TMPDIR to a folder that can be written, with some free space",
        )
    except StoreError as error:
        yield from_error("TMPDIR", error)
    else:
        yield from judge_temporary(variables.get("TMPDIR", ""), used, try_folder(used), sockets)


def judge_temporary(asked: str, used: Path, folder: Folder, sockets: Path) -> Iterator[Finding]:
    """Pure.

    Args:
        asked: TMPDIR's value, "" where it is not set.
        used: where Python writes temporary files.
        folder: that place, tried.
        sockets: where SGLang's sockets are put.
    """
    other = "set TMPDIR to another folder"
    found = False
    if asked and os.path.abspath(asked) != os.path.abspath(used):
        found = True
        yield warning(
            "TMPDIR",
            f"TMPDIR={shown(asked)} is no folder that can be written: temporary files go to {used}",
            f"make that folder, or {other}",
        )
    if folder.unwritable:
        found = True
        yield problem("TMPDIR", f"{used} cannot be written: {folder.unwritable}", other)
    if folder.free is not None and folder.free < LITTLE_TEMPORARY:
        found = True
        yield warning(
            "TMPDIR", f"{used}: {format_bytes(folder.free)} are free for temporary files", f"free some, or {other}"
        )
    if not found:
        yield ok("TMPDIR", f"temporary files go to {used}")
    if sockets != used:
        yield ok("TMPDIR", f"{used} is too long a path for SGLang's sockets, which go to {sockets}")


def _shared() -> tuple[int | None, str]:
    """The size of shared memory, None where there is none, and why it cannot be written."""
    try:
        total = shutil.disk_usage(SHARED).total
    except OSError:
        return None, ""
    return total, _try_writing(SHARED)[0]


def judge_shared(total: int | None, unwritable: str) -> Iterator[Finding]:
    """Shared memory, which SGLang's and torch's processes speak through. Pure."""
    remedy = "give the container more: docker run --shm-size=8g, or --ipc=host"
    if total is None or unwritable:
        why = "does not exist" if total is None else f"cannot be written: {unwritable}"
        yield warning(str(SHARED), f"{SHARED} {why}; SGLang's processes share memory there", remedy)
    elif total < LITTLE_SHARED:
        yield warning(
            str(SHARED), f"{SHARED} holds {format_bytes(total)}; SGLang on several GPUs may need more", remedy
        )
    else:
        yield ok(str(SHARED), f"{format_bytes(total)} of shared memory")


def _caches(variables: Mapping[str, str]) -> Iterator[Finding]:
    tried = {name: try_folder(Path(folder)) for name, folder in compiler_caches(variables).items()}
    bad = False
    for name, folder in tried.items():
        if folder.kind not in ("folder", "absent") or folder.unwritable:
            bad = True
            why = folder.unwritable or folder.unreadable or f"{folder.tried} is no folder"
            yield warning(
                name,
                f"compiled kernels cannot be kept in {folder.path}: {why}; every start of SGLang compiles again",
                f"set {name}, or XDG_CACHE_HOME, to a folder that can be written",
            )
        elif not folder.runs_programs:
            bad = True
            yield warning(
                name,
                f"the disk of {folder.path} is mounted noexec: kernels that are compiled there cannot be loaded",
                f"set {name} to a folder on another disk",
            )
    if not bad:
        yield ok("caches", f"compiled kernels are kept below {next(iter(tried.values())).path.parent}")
