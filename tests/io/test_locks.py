"""Locks of the three commands that write, and folders that are none: what it is, where, and what to do."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from raising import raises

from prism_ae.errors import StoreError
from prism_ae.hub import download
from prism_ae.io.atomic import atomic_write
from prism_ae.io.locks import locked
from prism_ae.io.paths import why_not
from prism_ae.models import checkpoints
from prism_ae.store import Store
from prism_ae.store.lock import run_lock
from prism_ae.training import run as training

Hold = Callable[[Path], AbstractContextManager[Any]]
HOLDERS = [
    pytest.param(run_lock, "run.lock", "--runs-dir", id="run"),
    pytest.param(training._locked, ".training.lock", "--models-dir", id="train"),
    pytest.param(download._lock, ".download.lock", "--models-dir", id="download"),
]


def no_locks(number: int) -> Callable[..., None]:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES])
@pytest.mark.parametrize(("hold", "name", "option"), HOLDERS)
def test_a_file_system_without_locks_is_named(
    hold: Hold, name: str, option: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks(number))
    with raises(StoreError, tmp_path / name, os.strerror(number), option), hold(tmp_path):
        pytest.fail("it was not locked")


@pytest.mark.parametrize(("hold", "name", "option"), HOLDERS)
def test_the_second_is_told_of_the_first(
    hold: Hold, name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PATIENCE", 0.0)
    with hold(tmp_path), raises(StoreError, tmp_path, f"process {os.getpid()}"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_full_disk_does_not_keep_a_lock_from_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", no_locks(errno.ENOSPC))
    with locked(tmp_path / "lock", 0, StoreError, "--out"):
        pass


@pytest.mark.parametrize("below", ["", "mini", "a/b"])
def test_a_link_to_nowhere_is_named(tmp_path: Path, below: str) -> None:
    link = tmp_path / "models"
    link.symlink_to(tmp_path / "gone")
    named = link, tmp_path / "gone"
    for hold in (training._locked, download._lock):
        with raises(StoreError, *named), hold(link / below):
            pass
    with raises(StoreError, *named):
        Store(link / below, "mini", 1).prepare()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the words are those of `why_not`
        atomic_write(link / below / "figure1.csv", b"")
    assert str(named[1]) in why_not(caught.value, Path(caught.value.filename))
    with raises(StoreError, *named):
        checkpoints.check_place(link / below / "my-prism")


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    for folder in (tmp_path / "models", tmp_path / "models/mini"):
        for hold in (training._locked, download._lock):
            with raises(StoreError, tmp_path / "models"), hold(folder):
                pass


def test_the_systems_words_stay_where_they_say_it() -> None:
    assert why_not(PermissionError(errno.EACCES, "Permission denied"), Path("x")) == "Permission denied"
    assert why_not(OSError("no number"), Path("x")) == "no number"
    assert why_not(FileNotFoundError(errno.ENOENT, "No such file or directory"), Path("x/y")) == (
        "No such file or directory"
    )
