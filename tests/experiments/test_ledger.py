"""The ledger: every claim has a row, the paper's own numbers under its rules, verdicts from whole made-up stores."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from raising import raises
from synthetic import measure

from prism_ae.__main__ import run
from prism_ae.analysis.claims import CONTRADICTED, INCOMPLETE, NOT_MEASURABLE, REPRODUCED
from prism_ae.errors import ConfigError, StoreError
from prism_ae.experiments.ledger import (
    LedgerRow,
    as_markdown,
    as_table,
    experiments_of_claims,
    make_ledger,
    terminal_lines,
    write_ledger,
)
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.request import Request, make_request
from prism_ae.experiments.verdicts import family_size, ledger_claims, paper_contrasts, read_claims

CLAIMS = {claim.id: claim for claim in ledger_claims()}
ENOUGH = Options(questions=32)
"""As many as figure 7's largest batch, and enough for intervals."""


def test_every_claim_has_a_row() -> None:
    """Those of the abstract, of each figure and table, and this project's own."""
    assert set(CLAIMS) == {
        "A1", "A1b", "A2", "A3", "A4", "A5", "A5b", "F1a", "F1b", "F1b*", "F1c", "F1c*", "F4a", "F4a*", "F4b", "F5a",
        "F5b", "F5c", "F6", "F7a", "F7b", "F7c", "F8a", "F8b", "F8c", "F9", "F10", "T4", "T5",
        "C1", "C2", "C3", "C4", "C5",
    }  # fmt: skip
    assert len(CLAIMS) == len(ledger_claims())
    assert family_size() == sum(claim.primary for claim in CLAIMS.values()) - 1  # C4 has no p


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_asks_for_what_there_is(name: str) -> None:
    for part in CLAIMS[name].parts:
        assert not list(load_experiment(part.experiment).part_problems(part))


def papers(name: str) -> tuple[int, int, Counter[str]]:
    """Numbers of the paper, how many are as claimed, and what the others are of."""
    found = [each.contrast for each in paper_contrasts(CLAIMS[name])]
    return len(found), sum(each.right for each in found), Counter(each.of for each in found if not each.right)


def test_the_papers_own_numbers_contradict_three_of_its_claims() -> None:
    """Standard's acceptance length is above PRISM's everywhere on LLaMA-3; three rivals gain more with data."""
    *_, wrong = papers("A1")
    assert wrong == {"prism / standard, llama-3": 12, "prism / eagle3, llama-3": 1}
    total, right, wrong = papers("A5")
    assert (total, right) == (14, 8)
    assert set(wrong) == {f"prism − {name}, llama-3" for name in ("eagle3", "hass2", "hass3")}
    assert papers("F8a")[:2] == (71, 70)


def test_two_point_six_is_the_mean_of_the_re_run_alone() -> None:
    found = {
        (each.experiment, each.rerun, each.contrast.at): each.contrast.estimate.value
        for each in paper_contrasts(CLAIMS["A4"])
        if each.contrast.estimate
    }
    assert found["table4", True, "mean of 24"] == pytest.approx(2.601, abs=5e-4)
    assert found["table6", False, "mean of 12"] == pytest.approx(2.32, abs=5e-3)
    assert found["table7", False, "mean of 12"] == pytest.approx(1.99, abs=5e-3)


def test_where_it_prints_what_a_rule_needs_the_others_are_as_claimed() -> None:
    for name in (
        "A1b",
        "F1a",
        "F1c*",
        "F4a",
        "F4a*",
        "F5a",
        "F5b",
        "F5c",
        "F6",
        "F7a",
        "F7b",
        "F7c",
        "F8b",
        "F8c",
        "F9",
    ):
        total, right, _ = papers(name)
        assert total == right > 0, name


def mini(options: Options = ENOUGH) -> Request:
    return make_request(["all"], "mini", options).of(experiments_of_claims())


@pytest.fixture(scope="module")
def rows() -> dict[str, LedgerRow]:
    """Of everything that the mini suite can measure, made up."""
    request = mini()
    return {row.claim.id: row for row in make_ledger(request, measure(request.all_points, request.suite))}


def test_what_has_all_its_cells_is_judged(rows: dict[str, LedgerRow]) -> None:
    left = {name: row.judged.why for name, row in rows.items() if row.judged.verdict in (INCOMPLETE, NOT_MEASURABLE)}
    pending = {name for name, claim in CLAIMS.items() if claim.pending}
    elsewhere = {name for name in left if ("was not asked for" in left[name] or "has no drafter" in left[name])}
    assert set(left) == pending | elsewhere
    assert not elsewhere & {"A1", "A4", "A5", "F1a", "F1b", "F4a", "F4b", "F5b", "F6", "F7a", "F8a", "F9", "F10", "T4"}
    assert rows["C4"].judged.verdict == REPRODUCED


def test_a_row_names_its_evidence(rows: dict[str, LedgerRow]) -> None:
    data = rows["F4a"].as_dict()
    assert data["cells"] == len(data["cell_ids"].split()) == 2 * 3 * 5 * 6 * 2
    assert data["low"] < data["statistic"] < data["high"]
    assert rows["F4a"].scope == "these checkpoints"
    assert "times measured 3 times" in rows["F7a"].scope
    assert rows["A2"].scope == ""


def test_a_text_that_differs_is_a_contradiction() -> None:
    request = mini(Options(questions=5, scales=("8x",), benches=("qa",), temperatures=(0.0,)))
    found = measure(request.all_points, request.suite)
    point = next(point for point in found if point.drafter == "prism")
    samples = list(found[point].samples)
    samples[0] = dataclasses.replace(samples[0], output_sha256="other")
    found[point] = dataclasses.replace(found[point], samples=tuple(samples))
    verdicts = {row.claim.id: row.judged for row in make_ledger(request, found)}
    assert verdicts["C4"].verdict == CONTRADICTED
    assert "1 of " in verdicts["C4"].why


def test_nothing_measured_is_incomplete_and_never_contradicted() -> None:
    verdicts = {row.judged.verdict for row in make_ledger(mini(), {})}
    assert verdicts == {INCOMPLETE, NOT_MEASURABLE}


def test_what_the_suite_cannot_fill_is_said() -> None:
    request = make_request(["all"], "mini", ENOUGH).of(["figure5"])
    rows = {row.claim.id: row for row in make_ledger(request, {})}
    assert rows["F6"].judged.verdict == NOT_MEASURABLE
    assert "figure6" in rows["F6"].judged.why


def test_all_four_forms_say_the_same(rows: dict[str, LedgerRow], tmp_path: Path) -> None:
    listed = tuple(rows.values())
    files = {path.suffix: path.read_text() for path in write_ledger(listed, "mini", tmp_path)}
    table = list(csv.DictReader(io.StringIO(files[".csv"])))
    data = json.loads(files[".json"])
    said = "\n".join(terminal_lines(listed))
    assert len(table) == len(data["claims"]) == len(as_table(listed)) == len(rows)
    assert sum(data["verdicts"].values()) == len(rows)
    for one, other in zip(table, data["claims"], strict=True):
        assert (one["id"], one["verdict"]) == (other["id"], other["verdict"])
        assert f"  {one['id']}" in said
        assert f"| {one['id']}" in files[".md"]
    assert files[".md"] == as_markdown(listed, "mini")


def test_a_folder_that_cannot_be_written(rows: dict[str, LedgerRow], tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("in the way")
    with raises(StoreError, tmp_path):
        write_ledger(tuple(rows.values()), "mini", tmp_path)


def test_a_wrong_file_of_claims_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    for text, said in (
        ('[[claims]]\nid = "X"\ntext = "t"\n', "claims.0.parts"),
        ('[[claims]]\nid = "X"\ntext = "t"\npending = "p"\n' * 2, "'X'"),
        ('[[claims]]\nid = "X"\n', "claims.0.text"),
    ):
        path.write_text(text)
        with raises(ConfigError, path, said):
            read_claims(path)


def test_the_verb_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ["--suite", "mini", "--runs-dir", str(tmp_path / "runs"), "--models-dir", str(tmp_path / "none")]
    assert run(["claims", *rest, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "incomplete (" in said
    assert str(tmp_path / "out" / "mini" / "claims.md") in said
    assert run(["claims", *rest, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["claims"]) == len(CLAIMS)
    assert run(["claims", *rest, "--al", "mean"]) == 2
