"""The log: whatever happens to its bytes, every intact record is read, and the next append is safe."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import raises

from prism_ae.errors import StoreError
from prism_ae.store import log as log_module
from prism_ae.store.log import Log, log_line, parse_log

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RECORDS = st.lists(
    st.fixed_dictionaries({"n": st.integers(), "text": TEXTS | st.just('{"record":{}'), "x": st.floats(-1e9, 1e9)}),
    max_size=6,
)


def read(data: bytes) -> list[dict[str, Any]]:
    return [record for _, record in parse_log(data).records]


def always(content: object) -> bool:
    return False


@settings(deadline=None)
@given(RECORDS)
def test_what_was_written_is_read(records: list[dict[str, Any]]) -> None:
    content = parse_log(b"".join(log_line(record) for record in records))
    assert [record for _, record in content.records] == records
    assert [line for line, _ in content.records] == list(range(1, len(records) + 1))
    assert content.damaged == ()


@settings(deadline=None, max_examples=60)  # every example waits for the disk
@given(RECORDS, st.data())
def test_a_truncated_log_loses_the_torn_record_alone_and_can_be_appended_to(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    lines = [log_line(record) for record in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    complete = sum(sum(map(len, lines[: n + 1])) - 1 <= cut for n in range(len(lines)))  # the newline may be missing
    torn = cut - sum(map(len, lines[:complete]))
    content = parse_log(whole[:cut])
    assert read(whole[:cut]) == records[:complete]
    assert len(content.damaged) == (torn > 0)
    healed = append_to(whole[:cut], {"n": 7})
    assert read(healed) == [*records[:complete], {"n": 7}]
    assert len(parse_log(healed).damaged) == (torn > 0)


@settings(deadline=None)
@given(RECORDS.filter(bool), st.data())
def test_an_altered_byte_hides_at_most_the_record_that_it_is_in(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    lines = [log_line(record) for record in records]
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    altered = whole[:place] + bytes([value]) + whole[place + 1 :]
    hit = next(n for n in range(len(lines)) if place < sum(map(len, lines[: n + 1])))
    newline = place == sum(map(len, lines[: hit + 1])) - 1
    found = read(altered)
    if newline:
        assert found == records  # a lost newline must hide neither neighbour
    else:
        others = records[:hit] + records[hit + 1 :]
        assert found in (others, records)  # a change of what JSON ignores, such as a blank, is no change
    if found != records:
        assert parse_log(altered).damaged


@settings(deadline=None)
@given(RECORDS, st.lists(st.binary(max_size=30), max_size=4), st.data())
def test_foreign_bytes_between_lines_hide_nothing(
    records: list[dict[str, Any]], junk: list[bytes], data: st.DataObject
) -> None:
    lines = [log_line(record) for record in records]
    for piece in junk:
        lines.insert(data.draw(st.integers(0, len(lines))), piece + b"\n")
    assert read(b"".join(lines)) == records


@pytest.mark.parametrize(
    "line",
    [
        b'{"record":{"x":NaN},"sha256":"0"}',
        b'{"record":1,"sha256":"0"}',
        b'{"record":{}}',
        b'{"record":{},"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8b"}',
        b'{"record":{},"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}',
        b"[" * 100_000,
        b'{"record":' * 2000,
        b'{"record":{"x":"\\ud800"},"sha256":"0"}',
        b"\xff\xfe\x00",
    ],
)
def test_only_a_right_sum_makes_a_record(line: bytes) -> None:
    content = parse_log(line + b"\n")
    right = line.endswith(b'8a"}')
    assert len(content.records) == right
    assert len(content.damaged) == (not right)


def append_to(data: bytes, record: dict[str, Any]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(data)
        assert Log(path).append(record, always)
        return path.read_bytes()


def test_appending_never_changes_what_is_there(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    seen = b""
    for number in range(5):
        log.append({"n": number}, always)
        data = log.path.read_bytes()
        assert data.startswith(seen)
        seen = data
    assert [record for _, record in log.read().records] == [{"n": number} for number in range(5)]


def test_two_logs_on_one_file_see_each_other(tmp_path: Path) -> None:
    first, second = Log(tmp_path / "log.jsonl"), Log(tmp_path / "log.jsonl")
    first.append({"n": 1}, always)
    assert not second.append({"n": 1}, lambda content: {"n": 1} in [record for _, record in content.records])
    second.append({"n": 2}, always)
    assert [record for _, record in first.read().records] == [{"n": 1}, {"n": 2}]
    assert [line for line, _ in first.read().records] == [1, 2]


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_anew(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.append({"n": 1}, always)
    log.append({"n": 2}, always)
    log.read()
    log.path.write_bytes(log_line({"n": 3}))
    assert [record for _, record in log.read().records] == [{"n": 3}]


def test_a_disk_that_fills_up_in_the_middle_of_a_line_damages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.append({"n": 1}, always)
    before = log.path.read_bytes()
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) <= 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data)[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with raises(StoreError, log.path, "No space left on device") as caught:
        log.append({"n": 2}, always)
    assert caught.value.hint
    monkeypatch.undo()
    assert log.path.read_bytes() == before
    log.append({"n": 3}, always)
    assert [record for _, record in Log(log.path).read().records] == [{"n": 1}, {"n": 3}]


def test_a_line_that_could_not_be_withdrawn_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.append({"n": 1}, always)

    def torn(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:15])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(log_module, "write_all", torn)
        patch.setattr(os, "ftruncate", lambda descriptor, size: (_ for _ in ()).throw(OSError(errno.EIO, "")))
        with pytest.raises(StoreError):
            log.append({"n": 2}, always)
    log.append({"n": 3}, always)
    content = log.read()
    assert [record for _, record in content.records] == [{"n": 1}, {"n": 3}]
    assert [damage.line for damage in content.damaged] == [2]
    assert Log(log.path).read() == content


def test_writers_in_many_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from prism_ae.store.log import Log\n"
        "log = Log(Path(sys.argv[1]))\n"
        "for n in range(40): log.append({'who': int(sys.argv[2]), 'n': n}, lambda content: False)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), str(who)]) for who in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    records = [record for _, record in Log(path).read().records]
    assert len(records) == 160
    for who in range(4):
        assert [record["n"] for record in records if record["who"] == who] == list(range(40))


def test_nobody_writes_between_a_look_and_the_write_that_follows_it(tmp_path: Path) -> None:
    path, looking = tmp_path / "log.jsonl", threading.Event()

    def look(content: object) -> bool:
        looking.set()
        time.sleep(0.3)
        return False

    slow = threading.Thread(target=lambda: Log(path).append({"who": "slow"}, look))
    slow.start()
    assert looking.wait(10)
    Log(path).append({"who": "quick"}, always)
    slow.join()
    assert [record["who"] for _, record in Log(path).read().records] == ["slow", "quick"]


def test_a_log_below_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(StoreError, tmp_path / "file"):
        Log(tmp_path / "file" / "log.jsonl").append({}, always)


def test_thousands_of_records_are_read(tmp_path: Path) -> None:
    record = {
        "cell": {"point": {f"key{n}": "value" for n in range(25)}},
        "settings": {f"key{n}": 1.5 for n in range(20)},
    }
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(log_line({**record, "n": n}) for n in range(3000)))
    assert len(Log(path).read().records) == 3000


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_log_is_read_and_not_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part of a line is there when it is read, nothing is lost, and the line under way is no damage."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(log_line({"n": 0}) + b"broken\n")

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(log_module.fcntl, "flock", refuse)
    log = Log(path)
    for part in log_line({"n": 1}):
        with path.open("ab") as file:
            file.write(bytes([part]))
        content = log.read()
        assert [record["n"] for _, record in content.records] in ([0], [0, 1])
        assert [damage.line for damage in content.damaged] == [2]
    assert [record["n"] for _, record in log.read().records] == [0, 1]
    before = path.read_bytes()
    with raises(StoreError, path, os.strerror(number), "--runs-dir"):
        log.append({"n": 2}, always)
    assert path.read_bytes() == before
