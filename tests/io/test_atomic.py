"""Files and folders that appear whole: what is left by errors in the middle, and by killed processes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prism_ae.io import atomic
from prism_ae.io.atomic import atomic_write, atomic_write_all, publish_file, publish_folder, write_new


def fail_at(call: int) -> Callable[[int, bytes], None]:
    """`write_all` on a disk that is full in the middle of the ``call``-th file, from 1."""
    calls = 0

    def write(descriptor: int, data: bytes) -> None:
        nonlocal calls
        calls += 1
        os.write(descriptor, data[: len(data) // 2])
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.write(descriptor, data[len(data) // 2 :])

    return write


def test_folders_above_are_made_and_nothing_lies_beside(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a" / "b" / "x.json", b"new")
    atomic_write(tmp_path / "a" / "b" / "x.json", b"newer")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.json"]
    assert (tmp_path / "a" / "b" / "x.json").read_bytes() == b"newer"


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_at_any_file_leaves_all_old_ones(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("figure.pdf", "figure.csv", "figure.json")]
    atomic_write_all(dict.fromkeys(places, b"old"))
    monkeypatch.setattr(atomic, "write_all", fail_at(call))
    with pytest.raises(OSError, match="No space left") as caught:
        atomic_write_all(dict.fromkeys(places, b"new"))
    assert caught.value.filename == str(places[call - 1])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: b"old" for path in places}


def test_what_a_killed_process_of_the_same_number_left_is_taken_over(tmp_path: Path) -> None:
    for write, name in ((atomic_write, "x"), (publish_file, "y")):
        (tmp_path / f".{name}.{os.getpid()}").write_bytes(b"torn and longer")
        write(tmp_path / name, b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_a_published_file_and_a_new_one_are_never_replaced(tmp_path: Path) -> None:
    publish_file(tmp_path / "x", b"first")
    publish_file(tmp_path / "x", b"second")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x", b"third")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_folder_appears_whole_and_never_over_another(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        filled = tmp_path / "staging"
        filled.mkdir()
        (filled / "x").write_bytes(content)
        if content == b"first":
            publish_folder(filled, tmp_path / "models" / "a")
            assert not filled.exists()
        else:
            with pytest.raises(OSError, match="not empty"):
                publish_folder(filled, tmp_path / "models" / "a")
            assert (filled / "x").exists()
    assert (tmp_path / "models" / "a" / "x").read_bytes() == b"first"


@pytest.mark.parametrize("write", [atomic_write, publish_file])
def test_content_is_on_the_disk_before_it_has_its_name(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append([path.name for path in tmp_path.iterdir()]))
    write(tmp_path / "x", b"content")
    assert "x" not in seen[0]
    assert "x" in seen[-1]
