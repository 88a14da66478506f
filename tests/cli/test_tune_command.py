"""``prism-ae tune`` with an engine that measures nothing: everything but the measuring is real."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from sweeps import Sweep

from prism_ae import __main__ as entry

TREES = ("--tree", "2,1,3", "--tree", "3,2,6", "--tree", "4,4,16")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def words(sweep: Sweep, *more: str, target: str = "mini-llama-2", drafter: str = "prism") -> list[str]:
    places = ["--models-dir", str(sweep.models), "--runs-dir", str(sweep.folder / "runs")]
    asked = ["--engine", "fake", "--benches", "qa,humaneval", "--workers", "1", "--out", str(sweep.folder / "tuned")]
    return ["tune", target, drafter, "--suite", str(sweep.suite_file), *places, *asked, *more]


def test_a_tuning_prints_options_and_is_continued_from_its_store(sweep: Sweep) -> None:
    command = words(sweep, *TREES, "--finalists", "2", "--repeats", "1", "--batch-size", "1", "--batch-size", "2")
    done = sweep.run(command)
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines() if re.match(r"  \d+,\d+,\d+ ", line)]
    assert table
    steps, branch, verified = table[0][0].split(",")
    folder = sweep.models / "mini-llama-2-prism-8x"
    options = f"--speculative-draft-model-path {folder} --speculative-num-steps {steps}"
    options += f" --speculative-eagle-topk {branch} --speculative-num-draft-tokens {verified}"
    assert f"--speculative-algorithm PRISM {options}" in done.stdout
    place = sweep.folder / "tuned" / "mini-llama-2-prism-8x"
    written = json.loads(place.with_suffix(".json").read_text())
    assert written["tree"] == table[0][0]
    with place.with_suffix(".csv").open() as file:
        assert {row["cell_id"] for row in csv.DictReader(file)} == set(written["cells"])
    measured = sweep.measured()
    assert len(set(measured)) == len(measured)
    assert (sweep.folder / "runs" / "tune" / "tiny" / "log.jsonl").exists()
    assert not sweep.root.exists(), "apart from the figures' runs"
    again = sweep.run([*command, "--json"])
    assert again.returncode == 0
    assert json.loads(again.stdout) == written
    assert sweep.measured() == measured
    other = sweep.run(words(sweep, *TREES[:2], "--repeats", "1", "--batch-size", "1", target="llama-2"))
    assert other.returncode == 0, "a role names its target"


def test_a_cell_that_fails_is_one_message(sweep: Sweep) -> None:
    command = words(sweep, *TREES[:2], "--repeats", "1", "--batch-size", "1")
    assert sweep.run(command).returncode == 0
    failing = sweep.measured()[-1]
    cells = sweep.folder / "runs"
    cells.rename(sweep.folder / "before")
    done = sweep.run(command, {"fail": [failing]})
    assert done.returncode == 8
    assert done.stderr.count("error: ") == 1
    assert "was told to fail" in done.stderr
    assert sweep.run(command).returncode == 0


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (["--scale", "9x"], 2, "--scale: there is no '9x'"),
        (["--benches", "nothing"], 2, "--benches: there is no 'nothing'"),
        (["--dtype", "float8"], 2, "--dtype: there is no 'float8'"),
        (["--tree", "2,1,9"], 2, "a chain of 2 steps"),
        (["--batch", "0"], 2, "--batch must be at least 1"),
        (["--batch-size", "0"], 2, "--batch-size must be at least 1"),
        (["--repeats", "0"], 2, "--repeats must be at least 1"),
        (["--finalists", "0"], 2, "--finalists must be at least 1"),
        (["--questions", "0"], 2, "--questions must be at least 1"),
        (["--temperature", "-1"], 2, "--temperature must be at least 0"),
        (["--engine", "nothing"], 2, "there is no engine 'nothing'"),
    ],
)
def test_mistakes(sweep: Sweep, capsys: pytest.CaptureFixture[str], more: list[str], code: int, what: str) -> None:
    assert entry.run(words(sweep, *more)) == code
    out, err = capsys.readouterr()
    assert (out, err.count("error: ")) == ("", 1)
    assert what in err
    assert not (sweep.folder / "runs").exists()


@pytest.mark.parametrize(
    ("names", "code", "what"),
    [
        (("nobody", "prism"), 2, "TARGET: there is no 'nobody'"),
        (("mini-llama-2", "vanilla"), 2, "DRAFTER: there is no 'vanilla'"),
        (("mini-llama-2", "standard"), 2, "DRAFTER: there is no 'standard'"),
        (("mini-llama-2", "eagle3"), 4, "there is no EAGLE-3 for mini-LLaMA-2"),
    ],
)
def test_names_that_do_not_fit(
    sweep: Sweep, capsys: pytest.CaptureFixture[str], names: tuple[str, str], code: int, what: str
) -> None:
    assert entry.run(words(sweep, target=names[0], drafter=names[1])) == code
    assert what in capsys.readouterr().err
