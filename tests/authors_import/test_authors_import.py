"""``prism-ae import`` as its users meet it: the artifact's numbers come out, and nothing doubtful goes in."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from artifact_files import Artifact, answer, answers, lists_with_mean, log, rates

from prism_ae import __main__ as entry
from prism_ae.experiments.load import load_experiment
from prism_ae.suites.load import load_suite

LLAMA3, PRISM, HASS = "Llama-3-8B", "PRISM-800k", "HASS-1-800k"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "outputs")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "imported"


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = entry.run(tuple(str(argument) for argument in arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def samples(runs: Path) -> list[Path]:
    return sorted(runs.glob("paper/cells/*/samples.jsonl"))


def write(
    artifact: Artifact, name: str, benchmark: str, temperature: str, length: float, model: str = LLAMA3
) -> list[list[int]]:
    lists = lists_with_mean(length)
    artifact.write_answers(model, name, benchmark, temperature, answers(name, temperature, benchmark, lists))
    text = log(name, temperature, benchmark, f"{length:.5f}", rates(lists))
    artifact.write_log(model, name, benchmark, temperature, text)
    return lists


FOLDERS = {"eagle2": "Eagle2", "hass": "HASS-1", "prism_star": "PRISM"}
"""What the artifact calls the drafters of figure 4 whose checkpoints it has."""


@pytest.mark.parametrize(("role", "model"), [("llama-2", "Llama-2-7B"), ("llama-3", LLAMA3)])
def test_the_papers_numbers_come_out(
    artifact: Artifact, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, model: str
) -> None:
    """Answers with every published acceptance length of figure 4's torch checkpoints: its CSV has them."""
    scales = {scale.value: scale.name for scale in load_suite("paper").scales}
    published = {
        (curve.drafter, scale, curve.benchmark, float(curve.temperature)): length
        for curve in load_experiment("figure4").paper.values
        if curve.role == role and curve.drafter in FOLDERS
        for scale, length in zip(scales.values(), curve.y, strict=True)
    }
    assert len(published) == len(FOLDERS) * len(scales) * 6 * 2
    for (drafter, scale, benchmark, temperature), length in published.items():
        write(artifact, f"{FOLDERS[drafter]}-{scale}", benchmark, f"{temperature:.1f}", length, model)
    code, out, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert (code, err) == (0, "")
    for length in published.values():
        assert f" {length:.5f} " in out
    drawn = tmp_path / "drawn"
    options = ("--targets", role, "--drafters", "eagle2,hass,prism_star")
    command = ("render", "figure4", "--engine", "artifact", "--runs-dir", runs, "--out", drawn, *options)
    code, _, err = call(capsys, *command)
    assert (code, err) == (0, "")
    with (drawn / "paper/figure4.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["layer"], row["quantity"]) == ("measured", "al_macro")]
    values = {
        (row["drafter"], row["scale"], row["benchmark"], float(row["temperature"])): float(row["value"]) for row in rows
    }
    assert values == pytest.approx(published, abs=1e-9)


def test_raw_counts_arrive_as_they_are(artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = answers(PRISM, "0.0", "mt_bench", [[0, 6, 6, 3], [], [2]])
    artifact.write_answers(LLAMA3, PRISM, "mt_bench", "0.0", lines)
    code, out, _ = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 0
    [path] = samples(runs)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["histogram"] for one in stored] == [[1, 0, 0, 1, 0, 0, 2], [0] * 7, [0, 0, 1, 0, 0, 0, 0]]
    assert [one["generated_tokens"] for one in stored] == [19, 0, 3]
    assert [one["question_id"] for one in stored] == ["mt_bench/81", "mt_bench/82", "mt_bench/83"]
    assert f"{((15 / 4 + 1) + 3) / 2:.5f}" in out  # AL macro; the question without rounds has none
    assert f"{22 / 5:.5f}" in out  # AL micro
    provenance = json.loads((path.parent / "provenance.json").read_text())
    assert provenance["artifact"]["imported_from"].endswith("mt_bench/PRISM-800k-temperature-0.0.jsonl")
    point = provenance["cell"]["point"]
    assert (point["engine"], point["drafter"], point["questions"]) == ("artifact", "prism_star", 3)


def test_a_second_import_changes_nothing(artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(artifact, PRISM, "qa", "0.0", 4.71661)
    assert call(capsys, "import", artifact.root, "--runs-dir", runs)[0] == 0
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert call(capsys, "import", artifact.root, "--runs-dir", runs)[0] == 0
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_another_run_is_not_added_to_a_store(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", answers(PRISM, "0.0", "qa", [[1], [2]]))
    assert call(capsys, "import", artifact.root, "--runs-dir", runs)[0] == 0
    artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", answers(PRISM, "0.0", "qa", [[1], [3]]))
    code, _, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert "holds another run of this cell" in err
    assert len(samples(runs)) == 1


def test_links_and_copies_are_one_run(artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(artifact, PRISM, "qa", "0.0", 4.71661)
    tag = artifact.tag(LLAMA3, "PRISM")
    (tag.parent / "latest").symlink_to(tag)
    shutil.copytree(artifact.root, artifact.root.parent / "PRISM" / "outputs")
    code, out, _ = call(capsys, "import", artifact.root.parent, "--runs-dir", runs)
    assert code == 0
    assert "1 cell " in out


def test_nothing_outside_the_folder_is_read(artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", [one(321)])
    outside = shutil.move(path, artifact.root.parent / "elsewhere.jsonl")
    path.symlink_to(outside)
    assert call(capsys, "import", artifact.root, "--runs-dir", runs)[0] == 2


def test_any_part_of_the_folder_can_be_imported(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(artifact, PRISM, "qa", "0.0", 4.71661)
    tag = artifact.tag(LLAMA3, "PRISM")
    (tag.parent / "latest").symlink_to(tag)
    monkeypatch.chdir(tag)
    for number, part in enumerate((".", "qa", tag.parent / "latest", "../../..")):
        code, out, _ = call(capsys, "import", part, "--runs-dir", runs / str(number))
        assert code == 0
        assert "1 cell " in out
        assert ("agrees" in out) == (part != "qa")


def test_a_file_that_cannot_be_read_is_an_error(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", [one(321)])
    monkeypatch.setattr(Path, "read_bytes", fail)
    code, _, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 7
    assert "Permission denied" in err


def test_a_folder_without_results_is_an_error(tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "import", tmp_path, "--runs-dir", runs)[0] == 2
    assert call(capsys, "import", tmp_path / "nowhere", "--runs-dir", runs)[0] == 2
    assert not runs.exists()


def test_the_engine_is_hidden_and_measures_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from prism_ae.engines import registry

    assert "artifact" not in registry.engine_names()
    options = ("--engine", "artifact", "--runs-dir", tmp_path, "--models-dir", tmp_path)
    code, out, _ = call(capsys, "plan", "figure4", *options)
    assert code == 0
    assert "prism-ae import" in out


def one(question: int, accepted: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    return answer(question, [2, 3] if accepted is None else accepted, f"{PRISM}-temperature-0.0", 1, 5.0, **changes)


REFUSED = {
    "a question twice": ([one(321), one(322), one(322)], 3, "question 322 occurs a second time (first in line 2)"),
    "a question is missing": ([one(321), one(323)], 2, "question 323 stands where question 322 belongs"),
    "the questions of another benchmark": ([one(0)], 1, "where question 321 belongs"),
    "another model": ([one(321), one(322, model_id=f"{HASS}-temperature-0.0")], 2, "two runs are mixed"),
    "another temperature": ([one(321, model_id=f"{PRISM}-temperature-1.0")], 1, "two runs are mixed"),
    "an older answer": ([one(321), one(322, tstamp=4.0)], 2, "more than one run"),
    "more drafts than the tree has steps": ([one(321, [7])], 1, "0 to 6"),
    "a negative count": ([one(321, [-1])], 1, "0 to 6"),
    "half a draft": ([one(321, [1.5], new_tokens=[2])], 1, "0 to 6"),
    "tokens from nowhere": ([one(321, new_tokens=[9])], 1, "more new_tokens"),
    "a turn too many": ([one(321, turns=["a", "b"])], 1, "must hold 1 turns"),
    "two choices": ([one(321, choices=[{}, {}])], 1, "one entry in 'choices'"),
    "no rounds": ([one(321, choices=[{"turns": ["a"], "new_tokens": [1], "wall_time": [1]}])], 1, "'accept_length'"),
    "endless seconds": ([one(321, wall_time=[float("inf")])], 1, "seconds"),
    "no object": ([[1]], 1, "is no answer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_doubtful_answers_are_refused_by_line(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    lines, line, why = REFUSED[case]
    path = artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", lines)
    code, out, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert f"{path.relative_to(artifact.root)}, line {line}: " in err
    assert why in err
    assert not out
    assert not samples(runs)


@pytest.mark.parametrize(("text", "line"), [(b"", None), (b'{"question_id": 321', 1), (b"\xff\n", 1), (b"[" * 9999, 1)])
def test_damaged_answers_are_refused(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str], text: bytes, line: int | None
) -> None:
    artifact.answers_path(LLAMA3, PRISM, "qa", "0.0").write_bytes(text)
    code, _, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert (f"jsonl, line {line}: " if line else "jsonl: holds no answer") in err


def test_what_is_good_is_taken_beside_what_is_refused(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(artifact, PRISM, "qa", "0.0", 4.71661)
    artifact.write_answers(LLAMA3, PRISM, "qa", "1.0", [one(321)])
    code, out, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert "1 cell " in out
    assert "1 thing " in err
    assert len(samples(runs)) == 1


def test_two_runs_of_a_cell_are_both_refused(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag, accepted in (("a", [1]), ("b", [2])):
        artifact.write_answers(LLAMA3, PRISM, "qa", "0.0", answers(PRISM, "0.0", "qa", [accepted]), tag=tag)
    code, _, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert err.count("another run of the same cell") == 2
    assert not samples(runs)
    assert call(capsys, "import", artifact.tag(LLAMA3, "PRISM", "b"), "--runs-dir", runs)[0] == 0
    assert len(samples(runs)) == 1


def test_a_model_the_suite_does_not_know_is_refused(
    artifact: Artifact, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact.write_answers("Llama-2-7B", "HASS-2-800k", "qa", "0.0", [one(321)])
    artifact.write_answers(LLAMA3, "PRISM-800k", "xsum", "0.0", [one(321)])
    moved = artifact.write_answers(LLAMA3, "Eagle2-800k", "qa", "0.0", [one(321)])
    shutil.move(moved, moved.with_name(f"{PRISM}-temperature-0.0.jsonl"))
    code, _, err = call(capsys, "import", artifact.root, "--runs-dir", runs)
    assert code == 8
    assert "knows no checkpoint 'Llama-2-7B-drafter/HASS-2-800k'" in err
    assert "no benchmark 'xsum'" in err
    assert "lies in the folder of 'Eagle2'" in err
    assert not samples(runs)
