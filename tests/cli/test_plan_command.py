"""``plan`` as its reader meets it: cells, loads, time and disk, with nothing, a half and all of the models here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from shells import write_suite_folders
from sweeps import Sweep

from prism_ae import __main__ as entry
from prism_ae.cli._plan_text import _labels, in_words, loads_in_words
from prism_ae.devices import slots as devices
from prism_ae.devices.slots import Slot
from prism_ae.devices.visible import Found, Gpu
from prism_ae.errors import ConfigError, MissingError, PrismError
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.hub.selection import folders_of_target
from prism_ae.io.paths import size_of
from prism_ae.io.words import WIDTH, format_bytes, wrapped
from prism_ae.models.locate import Absent, DrafterKey, Located
from prism_ae.planning.forecast import Forecast, Work
from prism_ae.planning.inventory import Inventory, bytes_to_write
from prism_ae.planning.load_count import Loads
from prism_ae.planning.lookup import AssumeAvailable
from prism_ae.planning.plan import Plan, TimeEstimate
from prism_ae.suites.load import load_suite

PAPER = load_suite("paper")
EIGHT = ("--gpus", "0,1,2,3,4,5,6,7")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a command line that succeeds."""
    code = entry.run(arguments)
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def said(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: Found({}))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders() -> list[str]:
    """Of the paper suite: the targets, then the drafters, Llama-2's first."""
    drafters = [folder for name in PAPER.targets for folder in folders_of_target(PAPER, name)]
    return list(dict.fromkeys([*(target.folder for target in PAPER.targets.values()), *drafters]))


def write_models(place: Path, names: list[str]) -> int:
    """Folders that look like checkpoints, and the questions; returns the bytes in the folders."""
    write_suite_folders(place / "models", PAPER, names)
    size = sum(path.stat().st_size for path in (place / "models").rglob("*") if path.is_file())
    for benchmark in PAPER.benchmarks.values():
        path = place / "models" / "benchmarks" / benchmark.file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"question_id": n, "turns": ["a question"] * benchmark.turns}) for n in range(80)]
        path.write_text("\n".join(lines))
    return size


def test_a_reviewer_plans_for_eight_gpus_on_a_machine_without_models_or_gpus(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    out = call(capsys, "plan", "all", *EIGHT)
    assert all(len(line) <= WIDTH for line in out.splitlines())
    for sentence in (
        "2,088 cells: 0 measured, 0 to measure, 2,088 that cannot be measured now",
        "876 cells cannot be measured: models/Meta-Llama-3-8B-Instruct does not exist",
        "run 'prism-ae download'",
        "96 cells cannot be measured: the authors published no HASS-3 checkpoint",
        "models: 2 targets, 48 drafter checkpoints; 0 of 50 folders here",
        "question files that are not here: mt_bench, humaneval, gsm8k, alpaca, sum, qa",
        "'prism-ae download --dry-run'",
        "the authors say: about 150 GB of models; disk for everything: 220 to 250 GB",
        "1,692 cells in 999 assignments for 8 workers (gpu 0 to 7: not here)",
        "expected time: unknown, no cell like these",
        "gpu 0 to 7 not here: this plan assumes a worker on each, 'prism-ae run' would refuse",
        "the authors' time for figure1, figure4, figure5, figure6: about 6 h on 8 A800 for the 480 jobs",
        "not an estimate for this plan",
    ):
        assert sentence in said(out), sentence
    assert said(out).count("about 6 h") == 1
    assert list(place.iterdir()) == []


def test_json_says_the_same(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    shown = json.loads(call(capsys, "plan", "figure6", "figure7", *EIGHT, "--json"))
    assert (shown["cells"], shown["assignments"], shown["expected_worker_seconds"]) == (180 + 270, [], None)
    assert shown["loads"] == {"targets": 0, "drafters": 0, "starts": 0}
    assert [(worker["label"], worker["here"]) for worker in shown["workers"]] == [(f"gpu {n}", False) for n in range(8)]
    complete = shown["if_complete"]
    assert complete["cells_to_measure"] == 60 + 3 * 90  # HASS-2; and of figure 7 all, three times
    assert complete["loads"]["drafters"] == 5
    assert complete["cells_of_unknown_time"] == complete["cells_of_unknown_size"] == 330
    assert complete["expected_worker_seconds"] is complete["expected_bytes_written"] is None
    models = shown["models"]
    assert models["here"] == []
    assert models["bytes"] == 0
    assert models["free_bytes"] > 0
    assert (models["targets"], models["drafters"], len(models["missing"])) == (2, 7, 9)
    assert {"Llama-2-7b-chat-hf", "LD-800k", "Llama-3-8B-drafter/HASS-2-100k"} <= set(models["missing"])
    assert [entry["experiments"] for entry in shown["authors_times"]] == [["figure6"], ["figure7"]]


def test_with_half_of_the_models_the_rest_is_named(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    here = folders()[:25]
    size = write_models(place, here)
    out = call(capsys, "plan", "all", "--gpus", "0,1")
    text = said(out)
    assert all(len(line) <= WIDTH for line in out.splitlines())
    assert "25 of 50 folders here" in text
    named = text.partition("not here: ")[2].partition(" disk: ")[0]
    for folder in set(folders()) - set(here):
        parent, _, name = folder.rpartition("/")
        assert f"{parent}: " in named
        assert name in named
    assert f"the models here take {format_bytes(size)}, " in text
    assert "does not exist, and 24 more like it" in text
    assert "question files" not in text
    assert text.count("loads: torch loads a target") == 2
    shown = json.loads(call(capsys, "plan", "all", "--json"))
    assert shown["models"]["bytes"] == size
    assert set(shown["models"]["missing"]) == set(folders()) - set(here)
    assert len(shown["models"]["here"]) == 25
    now = sum(len(one["cells"]) for one in shown["assignments"])
    assert 0 < now < shown["if_complete"]["cells_to_measure"] == 1692


def test_with_all_models_only_what_nobody_can_have_is_missing(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    write_models(place, folders())
    out = call(capsys, "plan", "all", *EIGHT)
    text = said(out)
    assert "1,692 to measure, 396 that cannot be measured now" in text
    assert "all 50 folders here" in text
    for absent in ("download", "with everything here", "not here: L", "the authors say"):
        assert absent not in text
    assert "999 assignments for 8 workers (gpu 0 to 7: not here)" in text
    shown = json.loads(call(capsys, "plan", "all", *EIGHT, "--json"))
    assert shown["if_complete"] is None
    assert {hole["hint"] for hole in shown["holes"]} == {""}
    # A promise of what will be planned once all is here is kept when it is.
    shutil.rmtree(place / "models")
    before = json.loads(call(capsys, "plan", "all", *EIGHT, "--json"))["if_complete"]
    assert before["cells_to_measure"] == 1692
    assert before["assignments"] == len(shown["assignments"])
    assert before["loads"] == shown["loads"]


def test_a_gpu_that_is_here_is_named_beside_those_that_are_not(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "find_gpus", lambda: Found({0: Gpu("0", "NVIDIA H200")}))
    text = said(call(capsys, "plan", "figure4", "--gpus", "0,1,2,3"))
    assert "(gpu 0: NVIDIA H200; gpu 1 to 3: not here)" in text
    assert "gpu 1 to 3 not here: this plan assumes" in text
    assert "not here" not in said(call(capsys, "plan", "figure4", "--gpus", "0")).partition("(gpu 0: ")[2]


def test_why_a_gpu_is_not_here_is_said(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Found({}, {1: "GPU is lost"}, ("driver/library version mismatch",))
    monkeypatch.setattr(devices, "find_gpus", lambda: found)
    text = said(call(capsys, "plan", "figure4", "--gpus", "0,1,2"))
    assert text.count("driver/library version mismatch") == text.count("GPU is lost") == 1
    workers = json.loads(call(capsys, "plan", "figure4", "--gpus", "0,1,2", "--json"))["workers"]
    assert [worker["why"] for worker in workers] == [found.notes[0], "GPU is lost", found.notes[0]]


def test_the_authors_time_is_theirs_and_of_their_suite(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    for name in ("figure9", "figure10", "table5"):
        assert "authors' time" not in call(capsys, "plan", name)
    assert "authors" not in call(capsys, "plan", "figure1", "--suite", "mini")
    known = {
        name: choice.authors_time
        for name in experiment_names()
        if (choice := load_experiment(name).suites.get("paper")) and choice.authors_time
    }
    assert set(known) == {"figure1", "figure4", "figure5", "figure6", "figure7", "figure8", "table4"}
    assert len({known[name] for name in ("figure1", "figure4", "figure5", "figure6")}) == 1
    assert "appendix" in known["figure1"]


@pytest.mark.parametrize("unknown", [0, 1])
def test_the_authors_time_is_quoted_only_where_the_own_is_not_known(unknown: int) -> None:
    plan = Plan({}, frozenset(), {}, (), (), TimeEstimate(9.0, 0.0, 3, unknown))
    slots = (Slot("cpu slot 0", "cpu", "a cpu", 1, {}),)
    stock = Inventory(0, 0, (), (), (), 0, 0)
    work = Work(plan, 0, Loads(0, 0, 0), 0, 0)
    forecast = Forecast(work, None, slots, stock, {"six hours": ("figure1",)}, None, None)
    assert ("the authors' time for figure1: six hours" in said("\n".join(in_words(forecast, "models")))) == bool(
        unknown
    )


def test_time_and_disk_follow_from_finished_cells(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    assert "the run writes" not in call(capsys, *sweep.arguments("plan"))
    first = sweep.arguments("run", "--workers", "1", "--scales", "8x", "--drafters", "eagle2,hass")
    assert sweep.run(first).returncode == 0
    records = sweep.store().records()
    log = (sweep.root / "log.jsonl").stat().st_size
    files = sum(path.stat().st_size for path in (sweep.root / "cells").rglob("*") if path.is_file())
    mean = (files + log) / len(records)
    shown = json.loads(call(capsys, *sweep.arguments("plan", "--json")))
    left = sum(len(one["cells"]) for one in shown["assignments"])
    assert (left, len(records)) == (12, 16)
    assert shown["cells_of_unknown_size"] == 0
    assert shown["expected_bytes_written"] == pytest.approx(mean * left, abs=1)
    text = said(call(capsys, *sweep.arguments("plan")))
    assert f"the run writes about {format_bytes(mean * left)}" in text
    # Of other questions nothing is known; of other GPUs the time is another one, and that is said.
    other = json.loads(call(capsys, *sweep.arguments("plan", "--json")[:-1], "--questions", "2", "--json"))
    assert (other["expected_bytes_written"], other["cells_of_unknown_size"]) == (None, 28)
    again = [*sweep.arguments("plan", "--temperatures", "0.5")]
    assert "another device" not in said(call(capsys, *again))
    text = said(call(capsys, *again, "--gpus", "0"))
    assert "expected time: about " in text
    device = next(iter(records.values())).device
    assert f"the finished ones were measured on another device ({device})" in text


def test_bytes_are_counted_once_and_only_of_kinds_that_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    (folder / "a").write_bytes(b"12345")
    (folder / "below" / "b").write_bytes(b"123")
    os.link(folder / "a", folder / "again")
    (folder / "link").symlink_to(folder / "a")
    (folder / "broken").symlink_to(folder / "nothing")
    (tmp_path / "other").symlink_to(folder)
    assert size_of([folder]) == size_of([folder, tmp_path / "other"]) == 8
    assert size_of([tmp_path / "absent"]) == 0
    assert bytes_to_write([], {}, tmp_path) == (0, 0)


class Lacking:
    """A lookup where nothing is here."""

    def __init__(self, hint: str, error: Exception) -> None:
        self.hint, self.error = hint, error

    def target(self, target: str) -> Located | Absent:
        return Absent("no target", self.hint)

    def drafter(self, key: DrafterKey) -> Located | Absent | None:
        return None if key.drafter == "vanilla" else Absent("no drafter", self.hint)

    def prompts(self, target: str, benchmark: str, questions: int) -> str:
        raise self.error

    def engine(self, engine: str) -> tuple[str, str]:
        raise self.error

    def pair_problem(self, point: Any) -> PrismError | None:
        return None

    def engine_problem(self, point: Any) -> str:
        return "a problem"


def test_what_has_a_remedy_counts_as_had_and_nothing_else() -> None:
    hopeful = AssumeAvailable(Lacking("fetch it", MissingError("not installed")))
    assert isinstance(hopeful.target("t"), Located)
    keys = [
        DrafterKey("t", "d", scale, engine, seed) for scale in ("1x", "2x") for engine in ("torch", "sglang")
        for seed in (0, 1)
    ]  # fmt: skip
    assert len({one.path for key in keys if isinstance(one := hopeful.drafter(key), Located)}) == 8
    assert hopeful.drafter(DrafterKey("t", "vanilla", None)) is None
    assert isinstance(hopeful.prompts("t", "b", 1), str)
    assert len(hopeful.engine("sglang")) == 2
    assert hopeful.engine_problem(None) == "a problem"  # type: ignore[arg-type]
    hopeless = AssumeAvailable(Lacking("", ConfigError("damaged")))
    assert hopeless.target("t") == Absent("no target", "")
    assert hopeless.drafter(DrafterKey("t", "d", "1x")) == Absent("no drafter", "")
    with pytest.raises(ConfigError):
        hopeless.prompts("t", "b", 1)
    with pytest.raises(ConfigError):
        hopeless.engine("sglang")


@pytest.mark.parametrize(
    ("numbers", "label"),
    [((0,), "gpu 0"), ((0, 1), "gpu 0, 1"), ((2, 1, 0), "gpu 0 to 2"), ((7, 0, 1, 2, 5, 6), "gpu 0 to 2, 5 to 7")],
)
def test_neighbours_are_named_by_their_ends(numbers: tuple[int, ...], label: str) -> None:
    assert _labels(Slot(f"gpu {number}", "cuda:0", "", 1, {}) for number in numbers) == label


def test_only_loads_that_occur_are_named() -> None:
    assert "SGLang" not in loads_in_words(Loads(1, 3, 0), on_cpu=True)
    assert loads_in_words(Loads(1, 3, 0), on_cpu=True).startswith("torch loads a target once and a drafter 3 times")
    assert loads_in_words(Loads(0, 0, 4), on_cpu=True).startswith("SGLang is started at most 4 times")
    assert "draft tree" in loads_in_words(Loads(0, 0, 4), on_cpu=False)
    assert "draft tree" not in loads_in_words(Loads(0, 0, 4), on_cpu=True)


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (12_000, "12 kB"), (100_000, "0.1 MB"), (76.2e9, "76.2 GB"), (1.5e12, "1,500.0 GB")],
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert format_bytes(size) == words


def test_a_long_name_stays_whole() -> None:
    name = "a-long/" * 30
    lines = wrapped(f"missing: {name} does not exist, and so on", "  ")
    assert lines[0] == "  missing:"
    assert lines[1] == f"    {name}"
