"""CSV files of the artifact's serving runs: listed, never averaged, and refused where it is not clear what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from prism_ae import __main__ as entry
from prism_ae.authors_import.find import find
from prism_ae.authors_import.serving_csv import parse_table
from prism_ae.suites.load import load_suite

TABLE = "algorithm,dataset,question_file,temperature,status,throughput,accept_length,error"
DETAIL = "algorithm,max_running_requests,dataset,question_file,status,throughput,accept_length,error"
MEAN = "algorithm,max_running_requests,num_datasets,num_success,avg_throughput,status,error"
LEGACY = "algorithm,draft_model_path,dataset,question_file,status,throughput,accept_length,error"


def text(*lines: str) -> str:
    return "\r\n".join([*lines, ""])


def test_rows_say_what_they_are_of() -> None:
    lines = (TABLE, "NONE,qa,q,0.0,ok,96.776,1.0,", "EAGLE,qa,q,0.0,ok,223.783,3.768,", "EAGLE,qa,q,1.0,ok,200.5,3.5,")
    rows, refused = parse_table(text(*lines), "e2e_llama2.csv")
    assert not refused
    assert [(row.line, row.what, row.where, row.tps, row.al) for row in rows] == [
        (2, ("NONE",), ("qa", "0.0"), 96.776, None),
        (3, ("EAGLE",), ("qa", "0.0"), 223.783, 3.768),
        (4, ("EAGLE",), ("qa", "1.0"), 200.5, 3.5),
    ]


def test_the_older_table_names_checkpoints() -> None:
    """There, what is called Standalone has no draft model, and an acceptance length that says nothing."""
    rows, refused = parse_table(
        text(LEGACY, "Standalone,,qa,q,ok,96.776,1.0,", "PRISM,models/LD-800k,qa,q,ok,253.828,4.305,"), "b.csv"
    )
    assert not refused
    assert [(row.what, row.al) for row in rows] == [(("Standalone",), None), (("PRISM", "models/LD-800k"), 4.305)]


def test_a_run_that_is_there_twice_is_refused_in_both_lines() -> None:
    twice = "STANDALONE,qa,q,0.0,ok,{},2.5,"
    rows, refused = parse_table(text(TABLE, twice.format(100), twice.format(120), "NONE,qa,q,0.0,ok,90,1.0,"), "e.csv")
    assert [row.what for row in rows] == [("NONE",)]
    assert [str(one) for one in refused] == [
        "e.csv, line 2: is there a second time in line 3: which run counts?",
        "e.csv, line 3: is there a second time in line 2: which run counts?",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("EAGLE,qa,q,0.0,failed,,,server startup timeout", "recorded as 'failed': server startup timeout"),
        ("EAGLE,qa,q,0.0,ok,,3.7,", "column throughput holds no number"),
        ("EAGLE,qa,q,0.0,ok,200,nan,", "column accept_length holds no number"),
        ("EAGLE,qa,q,0.0,ok,-1,3.7,", "column throughput holds no number"),
        ("EAGLE,qa", "recorded as ''"),
    ],
)
def test_a_row_without_its_numbers_is_refused(line: str, why: str) -> None:
    rows, [refused] = parse_table(text(TABLE, line), "e.csv")
    assert not rows
    assert refused.line == 2
    assert why in refused.why


def test_a_mean_over_fewer_datasets_is_refused() -> None:
    rows, [refused] = parse_table(text(MEAN, "EAGLE,8,6,5,900.0,ok,"), "e_avg.csv")
    assert not rows
    assert "a mean over 5 of 6 datasets" in refused.why


def test_another_table_is_refused() -> None:
    for other in ("a,b\r\n1,2\r\n", "", "algorithm,status\r\nNONE,ok\r\n"):
        rows, [refused] = parse_table(other, "e.csv")
        assert not rows
        assert refused.line == 1


def sweep(folder: Path, mean: str) -> None:
    detail = (DETAIL, "EAGLE,8,qa,q,ok,900,3.5,", "EAGLE,8,sum,q,ok,1000,3.6,", "NONE,8,qa,q,ok,500,1.0,")
    (folder / "e2e_llama2_bs_sweep_detail.csv").write_text(text(*detail))
    (folder / "e2e_llama2_bs_sweep_avg.csv").write_text(text(MEAN, mean, "NONE,8,1,1,500.0,ok,"))


def test_a_mean_is_compared_with_its_rows(tmp_path: Path) -> None:
    sweep(tmp_path, "EAGLE,8,2,2,950.0,ok,")
    found = find(tmp_path, load_suite("paper"), {})
    assert not found.refused
    assert len(found.rows) == 5
    for wrong in ("EAGLE,8,2,2,951.0,ok,", "EAGLE,8,3,3,950.0,ok,", "EAGLE,4,2,2,950.0,ok,"):
        sweep(tmp_path, wrong)
        found = find(tmp_path, load_suite("paper"), {})
        [refused] = found.refused
        assert (refused.file, refused.line) == ("e2e_llama2_bs_sweep_avg.csv", 2)
        assert len(found.rows) == 4


@pytest.mark.parametrize("begins", ["", "\n"])
def test_unlabelled_results_of_the_client_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begins: str
) -> None:
    line = '{"temperature": 0.0, "question_file": "data/qa/question.jsonl", "throughput": 1.0, "accept_length": 3.5}\n'
    (tmp_path / "results_temp_0.jsonl").write_text(begins + line * 2)
    (tmp_path / "question.jsonl").write_text('{"question_id": 1, "turns": ["?"]}\n')
    assert entry.run(("import", str(tmp_path), "--runs-dir", str(tmp_path / "runs"))) == 8
    said = capsys.readouterr().err
    assert "results_temp_0.jsonl, line 1: " in said
    assert "question.jsonl" not in said
    assert not (tmp_path / "runs").exists()


def test_summaries_are_listed_and_stored_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path, "EAGLE,8,2,2,950.0,ok,")
    assert entry.run(("import", str(tmp_path), "--runs-dir", str(tmp_path / "runs"))) == 0
    said = capsys.readouterr().out
    assert "mean of 2" in said
    assert "MT-bench at T = 1 was decoded greedily" in said
    assert not (tmp_path / "runs").exists()
