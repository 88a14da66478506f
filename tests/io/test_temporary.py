"""Temporary files: a folder for sockets is short, writable, and gone when it is no more needed."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from raising import raises

from prism_ae.errors import StoreError
from prism_ae.io import temporary
from prism_ae.io.temporary import output_file, short_temporary_folder, socket_folder


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s-") as name:
        yield Path(name)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def refusing(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_the_temporary_folder_is_used_where_it_is_short(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, short)
    folder = socket_folder("engine-", {})
    assert folder.parent == short
    assert list(folder.iterdir()) == []
    folder.rmdir()
    assert short_temporary_folder({}) == short
    assert list(short.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 90, "ü" * 45, "a b" * 30])
def test_another_is_taken_where_a_sockets_path_would_be_too_long(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes count, not letters; Python's own limit is asked, by a socket of the longest name."""
    long = tmp_path / name
    long.mkdir()
    use(monkeypatch, long)
    folder = socket_folder("engine-", {"TMPDIR": str(long)})
    assert folder.parent != long
    assert list(long.iterdir()) == []
    below = folder / "pymp-12345678"
    below.mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fsencode(below / "listener-12345678"))
    (below / "listener-12345678").unlink()
    below.rmdir()
    folder.rmdir()


def test_a_folder_that_cannot_be_used_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, short / "gone")
    assert short_temporary_folder({}) == Path("/tmp")
    monkeypatch.setattr(temporary, "_candidates", lambda environ: iter(["/proc", str(short)]))
    assert short_temporary_folder({}) == short


def test_no_place_at_all_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("a" * 90)
    long.mkdir()
    monkeypatch.setattr(temporary, "_candidates", lambda environ: iter([str(long), "/nowhere"]))
    with raises(StoreError, "TMPDIR=/long", long, "/nowhere: No such file"):
        socket_folder("engine-", {"TMPDIR": "/long"})
    assert list(long.iterdir()) == []


def test_every_usual_place_is_asked_where_python_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", refusing(errno.ENOENT))
    places = list(temporary._candidates({"TMPDIR": "/gone", "XDG_RUNTIME_DIR": "/run/user/7"}))
    assert places == ["/gone", "/tmp", "/var/tmp", "/run/user/7"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_no_room_for_what_a_process_prints(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refusing(number))
    with raises(StoreError, os.strerror(number), "TMPDIR"):
        output_file()
