"""Whatever lies where results or notes of them should be: it is read, set aside, or refused by one message."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from artifact_files import Artifact, answers, lists_with_mean, log, rates
from fake_engine import fake_samples
from fuzzing import amounts, bytes_of, files_of, spoiled, survives
from hypothesis import strategies as st

from prism_ae import __main__ as entry
from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO
from prism_ae.analysis.results import columns_of
from prism_ae.authors_import.cells import cell_of, result_of
from prism_ae.authors_import.fallbacks import fallbacks_of
from prism_ae.authors_import.find import find
from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, Result, TreeShape
from prism_ae.experiments.load import load_experiment
from prism_ae.hub import manifest
from prism_ae.io.checksums import cached_sums
from prism_ae.io.digests import canonical_json
from prism_ae.store.log import log_line, parse_log
from prism_ae.store.records import OK, STATUSES
from prism_ae.store.store import AttemptOutcome, Store
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
FALLBACKS = fallbacks_of(load_experiment("figure4"), PAPER)
MODEL, NAME = "Llama-3-8B", "PRISM-800k"

# --- The original artifact's files.

LISTS = lists_with_mean(3.5, 3)


@st.composite
def lines_of(draw: st.DrawFn, lines: list[Any]) -> bytes:
    """Answers of which some are spoiled, or damaged bytes."""
    made = [draw(spoiled(line)) if draw(st.integers(0, 2)) == 0 else line for line in lines]
    text = "".join(json.dumps(line) + "\n" for line in made)
    return draw(bytes_of(text)) if draw(st.integers(0, 4)) == 0 else text.encode()


WORDS = st.sampled_from(
    ["1" * 5000, "1e999999999", "1e-999999999", ".5", "0", "-1", "999999", "nan", "inf", "[ERROR] gen_ea_answer", "٣",
     "Position  Acceptance Rate", "cum_counter = [1, 2]", "cum_counter = [,]", "start: x", "\0", '"', ",", "\r", "OK"]
)  # fmt: skip


@st.composite
def text_of(draw: st.DrawFn, text: str, cuts: str) -> bytes:
    """A text some of whose words are others, or damaged bytes. ``cuts``: what stands between words."""
    if draw(st.integers(0, 4)) == 0:
        return draw(bytes_of(text))
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["word", "word", "line", "gone", "twice"])):
            case "word":
                words = lines[number].split(cuts)
                words[draw(st.integers(0, len(words) - 1))] = draw(WORDS)
                lines[number] = cuts.join(words)
            case "line":
                lines[number] = draw(WORDS)
            case "gone":
                lines[number] = ""
            case _:
                lines.insert(number, lines[number])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


SERVED = """algorithm,draft_model_path,max_running_requests,dataset,temperature,throughput,accept_length,status,error
NONE,,1,gsm8k,0.0,100.5,1.0,ok,
EAGLE,Eagle2-800k,1,gsm8k,0.0,200.25,3.5,ok,
PRISM,PRISM-800k,1,gsm8k,0.0,300.0,4.5,failed,out of memory
"""
MEANS = """algorithm,draft_model_path,max_running_requests,avg_throughput,num_datasets,num_success,status
EAGLE,Eagle2-800k,1,200.25,1,1,ok
"""


@amounts
def test_the_artifacts_files(tmp_path: Path, times: int) -> None:
    artifact = Artifact(tmp_path / "outputs")
    whole = answers(NAME, "0.0", "gsm8k", LISTS)
    file = artifact.write_answers(MODEL, NAME, "gsm8k", "0.0", whole)
    said = log(NAME, "0.0", "gsm8k", "3.50000", rates(LISTS)) + "cum_counter = [1, 2]\n"
    logs = artifact.write_log(MODEL, NAME, "gsm8k", "0.0", log(NAME, "0.0", "gsm8k", "3.50000", rates(LISTS)))
    other = artifact.write_log(MODEL, "HASS-1-800k", "gsm8k", "0.0", "")
    tables = artifact.root / "e2e_x_detail.csv", artifact.root / "e2e_x_avg.csv"
    runs = tmp_path / "runs"

    def enter(case: tuple[bytes, bytes, bytes, bytes, bytes]) -> None:
        for path, content in zip((file, logs, other, *tables), case, strict=True):
            path.write_bytes(content)
        found = find(artifact.root, PAPER, FALLBACKS)
        assert found.runs or found.refused
        for run in found.runs:
            canonical_json([cell_of(run, PAPER), result_of(run)])
            assert math.isfinite(result_of(run).wall_seconds)
            columns = columns_of(run.answers.samples)
            macro, micro = columns.value(AL_MACRO), columns.value(AL_MICRO)
            assert micro <= macro + 10 or math.isnan(micro)
        assert all(str(one).startswith(one.file) for one in found.refused)

    good = (b"".join(json.dumps(line).encode() + b"\n" for line in whole), logs.read_bytes(), b"", SERVED.encode(), b"")

    def changed(place: int, content: bytes) -> tuple[bytes, ...]:
        return (*good[:place], content, *good[place + 1 :])

    def answered(**changes: Any) -> tuple[bytes, ...]:
        choice = whole[0]["choices"][0] | {key: value for key, value in changes.items() if key != "tstamp"}
        line = whole[0] | {"choices": [choice]} | {key: value for key, value in changes.items() if key == "tstamp"}
        return changed(0, json.dumps(line).encode() + good[0][good[0].index(b"\n") :])

    pinned = [
        answered(tstamp=10**400),
        answered(tstamp=1e308),
        answered(wall_time=[10**400]),
        answered(wall_time=[1e308]),
        answered(turns=["\ud800"]),
        answered(accept_length=[], new_tokens=[0]),
        changed(1, said.encode()),
        *(changed(1, said.replace("3.50000", text).encode()) for text in ("1e999999999", "1e-999999999", "1" * 5000)),
        *(changed(1, said.replace("  1  ", f"  {text}  ").encode()) for text in ("1" * 5000, "٣")),
        changed(1, said.replace("[1, 2]", f"[{'1' * 5000}]").encode()),
        changed(1, said.replace("[1, 2]", "[, ,]").encode()),
        changed(1, said.replace("depth=5", "depth=999999").encode()),
        changed(1, said.replace("top_k=10", "top_k=0").encode()),
        changed(2, b"average acceptance length = 1e999999999\n"),
        changed(2, b"average acceptance length = ." + b"1" * 5000),
        changed(2, b"Number of missing points (fallback to hardcoded): " + b"1" * 5000),
        changed(3, b"algorithm,status,throughput" + b"x" * 200_000),
        changed(3, SERVED.encode() + b"x" * 200_000),
        changed(3, SERVED.replace("200.25", "1e308").encode()),
        changed(3, SERVED.replace("failed", '"a\0\n"').encode()),
        changed(4, MEANS.replace("1,1,ok", "1e300,1e300,ok").encode()),
    ]
    changes = st.tuples(
        lines_of(whole), text_of(said, " "), text_of(said, "="), text_of(SERVED, ","), text_of(MEANS, ",")
    )
    which = st.sets(st.integers(0, 4), min_size=1)
    strategy = st.tuples(changes, which).map(
        lambda drawn: tuple(drawn[0][place] if place in drawn[1] else good[place] for place in range(5))
    )
    survives(120 * times, strategy, enter, pinned)
    # The command says the same, and nothing else.
    for number, case in enumerate(pinned):
        for path, content in zip((file, logs, other, *tables), case, strict=True):
            path.write_bytes(content)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            assert entry.run(("import", str(artifact.root), "--runs-dir", str(runs / str(number)))) in (0, 8)
        assert "Traceback" not in told.getvalue()


# --- The store.


def a_cell(number: int = 0) -> Cell:
    point = Point("mini", "t", "d", "1k", "qa", 0.0, TreeShape(6, 10, 60), "torch", None, 3, 9, 99, number, "float32")
    return Cell(dataclasses.replace(point, compat=("x",)), Fingerprints("a", "b", "c", "d", "e"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs", "mini", 1)
    store.prepare()
    for number, status in enumerate(STATUSES):
        [attempt] = store.begin([a_cell(number)], {})
        result = Result(fake_samples(attempt.cell), 1.0, EngineSettings(others={"a": 1})) if status == OK else None
        store.commit(attempt, AttemptOutcome(status, "" if result else "why", result), 1.0, "cpu", b"")
    return store


def _again(store: Store) -> None:
    """What every command does with a runs folder."""
    store = Store(store.root, "mini", 1)
    for identity, record in store.records().items():
        assert record.cell.id == identity
        canonical_json(record.to_json())
        if record.ok:
            assert all(sum(sample.histogram) >= 0 for sample in store.samples(record))
    assert all(damage.line > 0 for damage in store.quarantined)


@amounts
def test_the_log(store: Store, times: int) -> None:
    """Also lines whose sums are right and whose records are not: of another version, or by hand."""
    file = store.root / "log.jsonl"
    whole = file.read_bytes()
    records = [record for _, record in parse_log(whole).records]

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        _again(store)
        [attempt] = store.begin([a_cell(9)], {})
        assert attempt.folder.parent == store.root / "cells"
        assert Store(store.root, "mini", 1).records().keys() <= {record["cell_id"] for record in records}

    def changed(**changes: Any) -> bytes:
        return b"".join(log_line(record | changes) for record in records)

    @st.composite
    def drawn(draw: st.DrawFn) -> bytes:
        made = [draw(spoiled(record)) if draw(st.booleans()) else record for record in records]
        lines = []
        for record in made:
            with contextlib.suppress(ValueError, TypeError):  # what no log can hold
                lines.append(log_line(record))
        return b"".join(lines)

    pinned = [
        *(changed(attempt=value) for value in ([], {}, None, 1, "../../x", "/etc", "", "a\0b", ".")),
        *(changed(samples_sha256=value) for value in ([], 1, "", None)),
        *(
            changed(**{key: value})
            for key in ("settings", "worker_seconds", "started")
            for value in (None, [], {}, "x")
        ),
        *(changed(status=value) for value in ([], {}, 1)),
        *(changed(cell=value) for value in ([], "x", {"point": []}, {"point": {"tree": 1, "compat": 1}})),
    ]
    enter(whole)
    survives(60 * times, drawn() | bytes_of(whole.decode()), enter, pinned)


@amounts
def test_samples(store: Store, times: int) -> None:
    """Also samples whose sum is in the log."""
    [record] = [record for record in store.records().values() if record.ok]
    file, log_file = store.root / "cells" / record.attempt / "samples.jsonl", store.root / "log.jsonl"
    samples = [json.loads(line) for line in file.read_bytes().splitlines()]

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        log_file.write_bytes(log_line(record.to_json() | {"samples_sha256": hashlib.sha256(data).hexdigest()}))
        _again(store)

    enter(file.read_bytes())
    survives(60 * times, lines_of(samples), enter, [b"x", b"[]\n", b'{"histogram": 1}', b"[" * 100_000, b"\xff\n"])


@amounts
def test_a_runs_folders_marker(store: Store, times: int) -> None:
    file = store.root / "suite.json"
    whole = json.loads(file.read_bytes())

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        _again(store)

    enter(json.dumps(whole).encode())
    survives(40 * times, files_of(whole), enter)


# --- Notes beside models.

ENTRY = {"hub": "huggingface", "repository": "a/b", "revision": "1" * 40,
         "files": {"config.json": {"size": 3, "sha256": "0" * 64}}}  # fmt: skip


@amounts
def test_what_was_downloaded(tmp_path: Path, times: int) -> None:
    file = tmp_path / manifest.NAME

    def enter(data: bytes) -> None:
        file.write_bytes(data)
        entries = manifest.read(tmp_path)
        for one in entries.values():
            assert manifest.changes(one, one.files.values()) == []
            assert all(noted.size >= 0 for noted in one.files.values())
        manifest.write(tmp_path, entries)
        assert manifest.read(tmp_path) == entries

    data = {"format": 1, "folders": {"Llama-2-7b": ENTRY, "x/y": ENTRY}}
    wrong = [{"folders": {name: ENTRY}} for name in ("\ud800", "a\x7f", "x" * 5000)]
    wrong += [{"folders": {"a": ENTRY | {key: "\ud800"}}} for key in ("hub", "repository", "revision")]
    files = [("\udfff", 3), ("a", -1), ("a", True), ("a", 3.0), ("../a", 3), ("a\0", 3)]
    wrong += [{"folders": {"a": ENTRY | {"files": {name: {"size": size, "sha256": "0" * 64}}}}} for name, size in files]
    enter(json.dumps(data).encode())
    survives(80 * times, files_of(data), enter, [json.dumps(one).encode() for one in wrong])


@amounts
def test_remembered_sums(tmp_path: Path, times: int) -> None:
    """Whatever is remembered, the sums are the files' own, or those of a file of the same size and time."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    memory = tmp_path / "sums.json"
    right = cached_sums(tmp_path / "model", ["config.json"], memory)
    whole = json.loads(memory.read_bytes())

    def enter(data: bytes) -> None:
        memory.write_bytes(data)
        assert isinstance(cached_sums(tmp_path / "model", ["config.json"], memory)["config.json"], str)
        memory.unlink()
        assert cached_sums(tmp_path / "model", ["config.json"], memory) == right

    survives(60 * times, files_of(whole), enter)
