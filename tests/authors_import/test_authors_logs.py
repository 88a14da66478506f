"""Logs of the artifact: they are checked against their answers, and are no measurements by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifact_files import Artifact, answers, lists_with_mean, log, rates

from prism_ae.authors_import.fallbacks import fallbacks_of
from prism_ae.authors_import.find import FolderContents, find
from prism_ae.cells import TreeShape
from prism_ae.experiments.load import load_experiment
from prism_ae.suites.load import load_suite

LLAMA3, HASS = "Llama-3-8B", "HASS-1-800k"
LISTS = [[0, 6, 3], [2, 5, 1, 6]]
LENGTH = (9 / 3 + 14 / 4) / 2 + 1
STORED = 4.12784
"""The artifact's stored number for HASS-1-800k, qa, T = 0."""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "outputs")


def look(artifact: Artifact) -> FolderContents:
    suite = load_suite("paper")
    return find(artifact.root, suite, fallbacks_of(load_experiment("figure4"), suite))


def with_answers(artifact: Artifact, text: str, lists: list[list[int]] | None = None) -> FolderContents:
    lines = answers(HASS, "0.0", "qa", LISTS if lists is None else lists)
    artifact.write_answers(LLAMA3, HASS, "qa", "0.0", lines)
    artifact.write_log(LLAMA3, HASS, "qa", "0.0", text)
    return look(artifact)


def good() -> str:
    return log(HASS, "0.0", "qa", f"{LENGTH:.5f}", rates(LISTS))


def test_a_log_that_agrees(artifact: Artifact) -> None:
    found = with_answers(artifact, good())
    assert not found.refused
    [run] = found.runs
    assert run.log is not None
    assert run.log.length is not None
    assert (float(run.log.length.text), len(run.log.rates)) == (LENGTH, 6)
    assert run.tree == TreeShape(6, 10, 60)


def refusal(found: FolderContents) -> tuple[int | None, str]:
    assert not found.runs
    [refused] = found.refused
    return refused.line, refused.why


def test_an_acceptance_length_of_other_answers_is_refused(artifact: Artifact) -> None:
    line, why = refusal(with_answers(artifact, good().replace("= 4.25000", "= 4.25001")))
    assert line == 8
    assert "says acceptance length 4.25001, and the answers give 4.25000" in why


@pytest.mark.parametrize("printed", ["4.25", "4.2", "4.3", "4.250000000000001"])
def test_rounding_is_no_disagreement(artifact: Artifact, printed: str) -> None:
    assert not with_answers(artifact, good().replace("= 4.25000", f"= {printed}")).refused


def test_an_acceptance_rate_of_other_answers_is_refused(artifact: Artifact) -> None:
    rate = f"{rates(LISTS)[2]:.5f}"
    line, why = refusal(with_answers(artifact, good().replace(f"3       {rate}", "3       0.12345")))
    assert line == 12
    assert "acceptance rate 0.12345 at 3" in why


def test_rounds_are_compared_by_count(artifact: Artifact) -> None:
    text = good() + "cum_counter = [7, 6, 5, 4, 3, 3, 2]\n"
    assert not with_answers(artifact, text).refused
    line, why = refusal(with_answers(artifact, text.replace("[7, 6", "[8, 6")))
    assert line == text.count("\n")
    assert "rounds [8, 6" in why


def test_two_runs_in_one_log_are_refused(artifact: Artifact) -> None:
    assert "a second run begins" in refusal(with_answers(artifact, good() + good()))[1]
    second = "average acceptance length = 4.30000\n"
    assert refusal(with_answers(artifact, good() + second)) == (
        good().count("\n") + 1,
        "a second acceptance length, 4.30000 after 4.25000",
    )


def test_a_log_of_another_evaluation_is_refused(artifact: Artifact) -> None:
    line, why = refusal(with_answers(artifact, good().replace("temp=0.0", "temp=1.0")))
    assert line == 3
    assert "which its name contradicts" in why


def test_a_run_that_two_logs_describe_is_refused(artifact: Artifact) -> None:
    artifact.write_log(LLAMA3, HASS, "qa", "0.0", log(HASS, "0.0", "qa", f"{LENGTH:.5f}", gpu=1), gpu=1)
    assert "two runs wrote this file" in refusal(with_answers(artifact, good()))[1]


def test_a_run_that_broke_off_is_refused(artifact: Artifact) -> None:
    unfinished = good().partition("average")[0]
    assert "broke off" in refusal(with_answers(artifact, unfinished))[1]
    failed = unfinished + "[ERROR] gen_ea_answer_llama3chat.py failed\nfailed: today\n"
    assert refusal(with_answers(artifact, failed)) == (
        8,
        "the evaluation failed here, so HASS-1-800k-temperature-0.0.jsonl is not complete",
    )


def test_a_script_that_fails_after_the_answers_harms_nothing(artifact: Artifact) -> None:
    text = good().replace("done:", "[ERROR] conditional_accept_rate.py failed\nfailed:")
    assert len(with_answers(artifact, text).runs) == 1


def test_the_draft_tree_is_that_of_the_log(artifact: Artifact) -> None:
    text = (
        good().replace("total_token=60", "total_token=16").replace("depth=5", "depth=6").replace("top_k=10", "top_k=4")
    )
    [run] = with_answers(artifact, text).runs
    assert run.tree == TreeShape(7, 4, 16)
    shallow = text.replace("depth=6", "depth=3")
    assert "0 to 4" in refusal(with_answers(artifact, shallow))[1]


def test_a_log_without_answers_is_listed_and_becomes_no_run(artifact: Artifact) -> None:
    artifact.write_log(LLAMA3, HASS, "qa", "0.0", log(HASS, "0.0", "qa", "4.12785"))
    found = look(artifact)
    assert not found.runs
    assert not found.refused
    [(job, one)] = found.lengths
    assert (job.drafter, job.scale, one.length and one.length.text) == ("hass", "800k", "4.12785")


def test_a_stored_number_of_the_drawing_scripts_is_refused(artifact: Artifact) -> None:
    artifact.write_log(LLAMA3, HASS, "qa", "0.0", log(HASS, "0.0", "qa", f"{STORED}"))
    found = look(artifact)
    assert not found.lengths
    line, why = refusal(found)
    assert line == 8
    assert "drawing script" in why


def test_a_stored_number_that_the_answers_give_is_a_measurement(artifact: Artifact) -> None:
    lists = lists_with_mean(STORED)
    found = with_answers(artifact, log(HASS, "0.0", "qa", f"{STORED}", rates(lists)), lists)
    assert not found.refused
    assert len(found.runs) == 1


def test_the_log_of_a_drawing_script_is_refused(artifact: Artifact) -> None:
    artifact.root.mkdir()
    text = "[INFO] Number of points overwritten from logs: 2\n[INFO] Number of missing points (fallback to hardcoded "
    (artifact.root / "draw.log").write_text(text + "values): 178\n")
    line, why = refusal(look(artifact))
    assert line == 2
    assert "178 points" in why
    (artifact.root / "draw.log").write_text(text + "values): 0\n")
    assert not look(artifact).refused


def test_two_logs_of_one_evaluation_are_not_chosen_from(artifact: Artifact) -> None:
    for gpu, length in ((0, "4.2"), (1, "4.3")):
        artifact.write_log(LLAMA3, HASS, "qa", "0.0", log(HASS, "0.0", "qa", length, gpu=gpu), gpu=gpu)
    found = look(artifact)
    assert not found.lengths
    assert "two runs of one cell" in refusal(found)[1]
