"""Folders: absent, read-only, full, without locks, behind a link to nowhere."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import environment, levels, wrong

from prism_ae.doctor import places
from prism_ae.doctor.findings import Finding
from prism_ae.doctor.places import LITTLE, Folder, judge_folder, judge_shared, judge_temporary, try_folder

HERE = Path("/data/models")
PLENTY = 10 * LITTLE


def of(folder: Folder, reads_only: bool = False) -> dict[str, Finding]:
    return wrong(judge_folder("models folder", "--models-dir", folder, reads_only=reads_only))


def test_a_folder_that_can_be_used_and_one_that_can_be_made(tmp_path: Path) -> None:
    there, later = try_folder(tmp_path), try_folder(tmp_path / "a" / "b")
    assert (there.kind, later.kind, later.tried) == ("folder", "absent", tmp_path)
    assert not there.unwritable + there.unlockable + there.unreadable + later.unwritable
    assert there.free is not None
    assert list(tmp_path.iterdir()) == []


def test_links_to_nowhere_and_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("")
    for path, kind in (
        ("gone", "dangling"),
        ("gone/below", "dangling"),
        ("loop", "dangling"),
        ("file", "file"),
        ("file/below", "file"),
        ("x" * 300, "unreachable"),
    ):
        folder = try_folder(tmp_path / path)
        assert folder.kind == kind, path
        found = of(folder)["models folder"]
        assert found.level == "problem"
        assert "--models-dir" in found.remedy


def refuse(code: int) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_what_cannot_be_written_is_named_in_the_systems_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(code))
    folder = try_folder(tmp_path)
    assert os.strerror(code) in of(folder)["models folder"].what
    assert of(folder)["models folder"].level == "problem"
    assert of(folder, reads_only=True)["models folder"].level == "warning"
    assert of(try_folder(tmp_path / "later"), reads_only=True)["models folder"].level == "problem"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    found = of(try_folder(tmp_path))["models folder"]
    assert (found.level, str(tmp_path) in found.what, os.strerror(code) in found.what) == ("problem", True, True)


def test_little_room_is_a_warning() -> None:
    assert of(Folder(HERE, "folder", HERE, free=LITTLE - 1))["models folder"].level == "warning"
    assert not of(Folder(HERE, "folder", HERE, free=PLENTY))


@pytest.mark.parametrize(
    ("asked", "used", "folder", "level"),
    [
        ("", "/tmp", Folder(HERE, "folder", HERE, free=PLENTY), "ok"),
        ("/gone", "/tmp", Folder(HERE, "folder", HERE, free=PLENTY), "warning"),
        ("", "/tmp", Folder(HERE, "folder", HERE, free=100), "warning"),
        ("/t", "/t", Folder(HERE, "folder", HERE, unwritable="Read-only file system"), "problem"),
    ],
)
def test_temporary_files(asked: str, used: str, folder: Folder, level: str) -> None:
    assert level in levels(judge_temporary(asked, Path(used), folder, Path(used)))


@pytest.mark.parametrize("name", ["a" * 90, "a folder with spaces and a name of more than a hundred letters, ü" * 2])
def test_a_temporary_folder_that_is_too_long_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    long = tmp_path / name
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    try:
        found = [finding for finding in places._temporary({"TMPDIR": str(long)}) if "sockets" in finding.what]
    finally:
        tempfile.tempdir = None
    assert [finding.level for finding in found] == ["ok"]
    assert str(long) in found[0].what


def test_no_place_for_temporary_files_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", refuse(errno.ENOENT))
    found = wrong(places._temporary({"TMPDIR": "/gone"}))
    assert found["TMPDIR"].level == "problem"
    assert "/gone" in found["TMPDIR"].what


@pytest.mark.parametrize(
    ("total", "unwritable", "level"),
    [(64 * 2**20, "", "warning"), (None, "", "warning"), (2**34, "Permission denied", "warning"), (2**34, "", "ok")],
)
def test_shared_memory(total: int | None, unwritable: str, level: str) -> None:
    [finding] = judge_shared(total, unwritable)
    assert finding.level == level


def test_kernels_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = wrong(places._caches({"XDG_CACHE_HOME": str(tmp_path / "file")}))
    assert set(found) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert not wrong(places._caches({"XDG_CACHE_HOME": str(tmp_path)}))


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    found = list(places.check(environment(folder=None, models_dir=tmp_path, runs_dir=tmp_path)))
    assert any(finding.name == "current folder" and finding.level == "problem" for finding in found)


@pytest.mark.parametrize("asked", [".", "sub", "./sub/..", "../{name}"])
def test_a_relative_temporary_folder_is_a_folder_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = asked.format(name=tmp_path.name)
    monkeypatch.setenv("TMPDIR", asked)
    monkeypatch.setattr(tempfile, "tempdir", None)
    found = list(places._temporary({"TMPDIR": asked}))
    assert levels(found) == {"ok"}, found
