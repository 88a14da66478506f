"""The runs folder: a finished cell counts exactly once, a half-written one never, and foreign folders are refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_engine import fake_samples
from raising import raises

from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, Result, Sample, TreeShape
from prism_ae.errors import StoreError
from prism_ae.io import atomic as durable_module
from prism_ae.store import AttemptOutcome, Store
from prism_ae.store import store as store_module
from prism_ae.store.records import FAILED, OK, Record, parse_samples, samples_text


def a_cell(number: int = 0, **changes: object) -> Cell:
    point = Point(
        suite="mini",
        target="mini-llama-2",
        drafter="prism",
        scale="8x",
        benchmark="qa",
        temperature=0.0,
        tree=TreeShape(6, 10, 60),
        engine="fake",
        batch=None,
        questions=4,
        max_new_tokens=96,
        max_length=512,
        seed=number,
        dtype="float32",
    )
    return Cell(dataclasses.replace(point, **changes), Fingerprints("t", "d", "p", "fake-1", "none"))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs" / "mini", "mini", 1)
    made.prepare()
    return made


def measure(store: Store, cell: Cell, status: str = OK, message: str = "") -> bool:
    (attempt,) = store.begin([cell], {"argv": ["prism-ae", "run"]})
    result = Result(fake_samples(cell), 2.5, EngineSettings(others={"threads": 1})) if status == OK else None
    return store.commit(attempt, AttemptOutcome(status, message, result), 1.25, "a cpu", b"engine says hello\n")


def test_a_measured_cell_comes_back(store: Store) -> None:
    cell = a_cell()
    assert measure(store, cell)
    record = Store(store.root, "mini", 1).records()[cell.id]
    assert record.cell == cell
    assert (record.status, record.message, record.device) == (OK, "", "a cpu")
    assert (record.wall_seconds, record.worker_seconds, record.settings) == (2.5, 1.25, {"threads": 1})
    assert record.started <= record.finished
    assert store.samples(record) == fake_samples(cell)
    folder = store.root / "cells" / record.attempt
    assert sorted(os.listdir(folder)) == ["engine.log", "provenance.json", "samples.jsonl"]
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["argv"] == ["prism-ae", "run"]
    assert Cell.from_json(provenance["cell"]) == cell
    assert (folder / "engine.log").read_text() == "engine says hello\n"


def test_provenance_is_there_before_anything_is_measured(store: Store) -> None:
    (attempt,) = store.begin([a_cell()], {})
    assert os.listdir(attempt.folder) == ["provenance.json"]
    assert store.records() == {}


def test_a_finished_cell_is_not_committed_again(store: Store) -> None:
    cell = a_cell()
    assert measure(store, cell)
    before = (store.root / "log.jsonl").read_bytes()
    assert not measure(store, cell)
    assert not measure(store, cell, FAILED, "too late")
    assert (store.root / "log.jsonl").read_bytes() == before
    assert store.records()[cell.id].ok


def test_a_cell_committed_elsewhere_meanwhile_is_not_committed_again(store: Store) -> None:
    cell = a_cell()
    (attempt,) = store.begin([cell], {})
    assert measure(Store(store.root, "mini", 1), a_cell(1))
    other = Store(store.root, "mini", 1)
    (theirs,) = other.begin([cell], {})
    result = Result(fake_samples(cell), 1.0, EngineSettings())
    assert other.commit(theirs, AttemptOutcome(OK, "", result), 1.0, "x", b"")
    assert not store.commit(attempt, AttemptOutcome(OK, "", result), 1.0, "x", b"")


def test_a_cell_committed_elsewhere_while_its_samples_are_written_is_not_committed_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = a_cell()
    (attempt,) = store.begin([cell], {})
    other = Store(store.root, "mini", 1)
    theirs = other._begin(cell, {}, {cell.id})
    real = store_module.sync

    def meanwhile(folder: Path) -> None:
        real(folder)
        monkeypatch.setattr(store_module, "sync", real)
        assert other.commit(
            theirs, AttemptOutcome(OK, "", Result(fake_samples(cell), 1.0, EngineSettings())), 1.0, "x", b""
        )

    monkeypatch.setattr(store_module, "sync", meanwhile)
    assert not store.commit(
        attempt, AttemptOutcome(OK, "", Result(fake_samples(cell), 1.0, EngineSettings())), 1.0, "x", b""
    )
    assert len((store.root / "log.jsonl").read_bytes().splitlines()) == 1


def test_a_failure_is_kept_beside_the_attempt_that_follows(store: Store) -> None:
    cell = a_cell()
    measure(store, cell, FAILED, "no luck")
    failed = store.records()[cell.id]
    assert (failed.status, failed.message, failed.samples_sha256, failed.ok) == (FAILED, "no luck", None, False)
    with raises(StoreError, cell.id):
        store.samples(failed)
    measure(store, cell, FAILED, "again")
    assert store.records()[cell.id].message == "again"
    measure(store, cell)
    assert store.records()[cell.id].ok
    assert sorted(os.listdir(store.root / "cells")) == [cell.id, f"{cell.id}-2", f"{cell.id}-3"]


def test_a_failure_may_name_a_file_in_another_encoding(store: Store) -> None:
    cell = a_cell()
    (attempt,) = store.begin([cell], {})
    message = f"{os.fsdecode(bytes([0x6D, 0xF6]))} is damaged"
    assert store.commit(attempt, AttemptOutcome(FAILED, message), 0.1, "CPU", b"")
    assert store.records()[cell.id].message == "m? is damaged"


def test_the_leftover_of_a_killed_attempt_is_replaced(store: Store) -> None:
    cell = a_cell()
    (attempt,) = store.begin([cell], {})
    (attempt.folder / "samples.jsonl").write_text("half a li")
    assert measure(store, cell)
    assert os.listdir(store.root / "cells") == [cell.id]
    assert store.samples(store.records()[cell.id]) == fake_samples(cell)


def test_samples_that_changed_after_the_measurement_are_refused(store: Store) -> None:
    cell = a_cell()
    measure(store, cell)
    record = store.records()[cell.id]
    path = store.root / "cells" / cell.id / "samples.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"rounds":', b'"rounds": '))
    with raises(StoreError, path):
        store.samples(record)
    path.unlink()
    with raises(StoreError, path) as caught:
        store.samples(record)
    # What the message advises works: without the line the cell is not measured, and can be.
    log = store.root / "log.jsonl"
    assert f"attempt {cell.id}" in caught.value.hint
    assert str(log) in caught.value.hint
    log.write_text("".join(line for line in log.read_text().splitlines(True) if f'"attempt":"{cell.id}"' not in line))
    assert cell.id not in store.records()
    measure(store, cell)
    assert store.samples(store.records()[cell.id])


def test_a_record_that_names_another_cell_is_set_aside(store: Store) -> None:
    measure(store, a_cell())
    measure(store, a_cell(1))
    from prism_ae.store.log import log_line

    data = store.records()[a_cell().id].to_json()
    with (store.root / "log.jsonl").open("ab") as file:
        file.write(log_line(data | {"cell_id": "0" * 16}) + log_line(data | {"status": "fine"}) + log_line({"a": 1}))
    assert set(store.records()) == {a_cell().id, a_cell(1).id}
    assert [damage.line for damage in store.quarantined] == [3, 4, 5]


def test_damage_is_counted_and_hides_no_neighbour(store: Store) -> None:
    cells = [a_cell(number) for number in range(3)]
    for cell in cells:
        measure(store, cell)
    path = store.root / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"qa", b"qA", 1) + lines[2][:-30])
    fresh = Store(store.root, "mini", 1)
    assert set(fresh.records()) == {cells[0].id}
    assert [damage.line for damage in fresh.quarantined] == [2, 3]
    assert measure(fresh, cells[1])
    assert set(Store(store.root, "mini", 1).records()) == {cells[0].id, cells[1].id}


def test_a_result_belongs_to_ok_and_only_there(store: Store) -> None:
    (attempt,) = store.begin([a_cell()], {})
    for status, result in ((OK, None), (FAILED, Result((), 1.0, EngineSettings()))):
        with raises(ValueError, OK):
            store.commit(attempt, AttemptOutcome(status, "", result), 0.0, "", b"")


def test_reading_a_folder_that_does_not_exist_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs" / "mini", "mini", 1)
    assert store.records() == {}
    assert store.quarantined == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suite", "version"), [("paper", 1), ("mini", 2)])
def test_a_folder_of_another_suite_or_version_is_refused(store: Store, suite: str, version: int) -> None:
    with raises(StoreError, store.root, suite, version, "--runs-dir"):
        Store(store.root, suite, version)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with raises(StoreError, tmp_path):
        Store(tmp_path, "mini", 1)


def test_a_damaged_marker_is_refused(store: Store) -> None:
    (store.root / "suite.json").write_text("{")
    with raises(StoreError, store.root / "suite.json", "{"):
        Store(store.root, "mini", 1)


@pytest.mark.parametrize("before", ["the marker", "the cells"])
def test_a_folder_whose_preparation_was_killed_is_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    root, mkdir = tmp_path / "runs" / "mini", Path.mkdir

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def mkdir_but_cells(self: Path, *arguments: object, **options: object) -> None:
        if self.name == "cells":
            raise KeyboardInterrupt
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as moment:
        if before == "the marker":
            moment.setattr(os, "link", killed)
        else:
            moment.setattr(Path, "mkdir", mkdir_but_cells)
        with pytest.raises(KeyboardInterrupt):
            Store(root, "mini", 1).prepare()
    # What kill -9 leaves besides; in a container the next process may well have the same number.
    for number in (1, os.getpid()):
        (root / f".suite.json.{number}").write_text("torn")
    store = Store(root, "mini", 1)
    store.prepare()
    assert measure(store, a_cell())


def test_preparing_twice_changes_nothing(store: Store) -> None:
    measure(store, a_cell())
    before = (store.root / "suite.json").stat().st_mtime_ns
    store.prepare()
    assert (store.root / "suite.json").stat().st_mtime_ns == before
    assert len(store.records()) == 1
    assert not list(store.root.glob(".*"))


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises(StoreError, tmp_path / "file", "--runs-dir"):
        Store(tmp_path / "file" / "mini", "mini", 1).prepare()


def test_a_full_disk_in_the_middle_of_the_samples_loses_nothing_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(store, a_cell())
    (attempt,) = store.begin([a_cell(1)], {})

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(durable_module, "write_all", full)
        with raises(StoreError, "No space left on device"):
            store.commit(
                attempt,
                AttemptOutcome(OK, "", Result(fake_samples(a_cell(1)), 1.0, EngineSettings())),
                1.0,
                "x",
                b"log",
            )
    fresh = Store(store.root, "mini", 1)
    assert set(fresh.records()) == {a_cell().id}
    assert fresh.samples(fresh.records()[a_cell().id]) == fake_samples(a_cell())
    assert measure(fresh, a_cell(1))
    assert fresh.samples(fresh.records()[a_cell(1).id]) == fake_samples(a_cell(1))


def test_records_and_samples_are_the_same_after_their_texts() -> None:
    cell = a_cell()
    record = Record(cell, OK, "", cell.id, "a", "b", 1.0, 2.0, {"x": [1]}, "s", "d")
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert parse_samples(samples_text(fake_samples(cell))) == fake_samples(cell)


def test_a_line_of_samples_names_its_rounds_and_says_nothing_else_than_its_histogram() -> None:
    sample = Sample("qa/1", 1, 20, 9, (1, 0, 2), ("end",), 0.5, 1.5, "ab")
    line = samples_text([sample])
    assert line == (
        b'{"decode_seconds":1.5,"generated_tokens":9,"histogram":[1,0,2],"output_sha256":"ab","prefill_seconds":0.5,'
        b'"prompt_tokens":20,"question_id":"qa/1","rounds":3,"stops":["end"],"turns":1}\n'
    )
    assert sample.rounds == 3
    with pytest.raises(ValueError, match="does not sum to its 4 rounds"):
        parse_samples(line.replace(b'"rounds":3', b'"rounds":4'))
    with pytest.raises(KeyError, match="rounds"):
        parse_samples(line.replace(b'"rounds":3,', b""))


def test_near_ties_are_on_the_line_of_a_sample_that_was_examined() -> None:
    plain = Sample("qa/1", 1, 20, 9, (1, 0, 2), ("end",), 0.5, 1.5, "ab")
    seen = dataclasses.replace(plain, faults=0)
    tied = dataclasses.replace(seen, near_ties=((0, 4, "0123abcd", 17),))
    lines = samples_text([plain, seen, tied]).splitlines()
    assert [b"faults" in line for line in lines] == [False, True, True]
    assert [b"near_ties" in line for line in lines] == [False, False, True]
    assert b'"faults":0,' in lines[2]
    assert b'"near_ties":[[0,4,"0123abcd",17]],' in lines[2]
    assert parse_samples(b"\n".join(lines)) == (plain, seen, tied)
    for spoiled in (b"[[0,4,7,17]]", b'[[0,4,"0123abcd"]]', b'[[0,-4,"0123abcd",17]]', b"[7]", b"7"):
        with pytest.raises((ValueError, TypeError)):
            parse_samples(lines[2].replace(b'[[0,4,"0123abcd",17]]', spoiled))
    with pytest.raises(ValueError, match="count"):
        parse_samples(lines[1].replace(b'"faults":0', b'"faults":true'))


def test_the_rounds_of_each_turn_are_on_the_line_where_they_are_known() -> None:
    sample = Sample("qa/1", 2, 20, 9, (1, 1, 1), ("end", "end"), 0.5, 1.5, "ab", ((2, 0), (1,)), (5, 4))
    plain = dataclasses.replace(sample, accepted=(), turn_tokens=())
    line = samples_text([sample])
    assert line == (
        b'{"accepted":[[2,0],[1]],"decode_seconds":1.5,"generated_tokens":9,"histogram":[1,1,1],"output_sha256":"ab",'
        b'"prefill_seconds":0.5,"prompt_tokens":20,"question_id":"qa/1","rounds":3,"stops":["end","end"],'
        b'"turn_tokens":[5,4],"turns":2}\n'
    )
    assert parse_samples(line + samples_text([plain])) == (sample, plain)
    for spoiled in (b'"accepted":[[2,0],1]', b'"accepted":[[2,-1],[1]]', b'"accepted":[[2,"0"],[1]]', b'"accepted":3'):
        with pytest.raises((ValueError, TypeError)):
            parse_samples(line.replace(b'"accepted":[[2,0],[1]]', spoiled))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"torch": "2.13.0", "tree": "6,10,60", "rows": 48, "threads": 1},
        {"tree": None, "drafting": None, "batch": None, "attention": "FlashInfer", "radix_cache": False},
        {"cuda_graphs": [1, 2], "draft_cuda_graphs": "eager", "drafter_rope_theta": 1e4, "of_a_later_version": [1]},
        {"others": {"x": 1}, "concurrency": 0},
    ],
)
def test_settings_are_the_same_json_after_being_read(data: dict[str, Any]) -> None:
    settings = EngineSettings.from_json(data)
    assert settings.to_json() == data
    assert settings.attention == data.get("attention")
    assert settings.cuda_graphs == data.get("cuda_graphs")


def test_a_thousand_records_load(store: Store) -> None:
    from prism_ae.store.log import log_line

    record = Record(a_cell(), OK, "", "x", "a", "b", 1.0, 2.0, {f"k{n}": n for n in range(20)}, "s", "d")
    cells = (a_cell(number) for number in range(1200))
    lines = [log_line(dataclasses.replace(record, cell=cell).to_json()) for cell in cells]
    (store.root / "log.jsonl").write_bytes(b"".join(lines))
    assert len(Store(store.root, "mini", 1).records()) == 1200
