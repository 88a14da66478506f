"""A suite of a downloaded target: its data, its drafters, found by every plan; killed in each stage and continued."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from downloaded import FOLDER, RECIPES, TARGET, write_downloaded_suite, write_target
from raising import raises

from prism_ae import __main__ as entry
from prism_ae.devices.slots import Slot, cpu_threads
from prism_ae.errors import ConfigError, MissingError
from prism_ae.io.digests import file_digest
from prism_ae.mini import corpus
from prism_ae.models.checkpoints import read_manifest
from prism_ae.models.locate import Absent, DrafterKey, Located, locate_drafter
from prism_ae.recipes.catalogue import Catalogue, SuiteOrder
from prism_ae.recipes.file import load_recipes
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite
from prism_ae.training.conversations import learnt
from prism_ae.training.jobs import JobEffort, JobProgress, plan_jobs, state_file
from prism_ae.training.jsonl import read_conversations, write_jsonl
from prism_ae.training.material import talk
from prism_ae.training.run import train_suite
from prism_ae.training.suite import make_suite, open_suite, training_slots
from prism_ae.training.workbench import Workbench

SLOTS = tuple(Slot(f"cpu slot {number}", "cpu", "CPU", 1, cpu_threads(1)) for number in range(2))

_CHILD = """
import pickle, sys
from prism_ae.training.suite import make_suite
from prism_ae.processes.progress import PlainLines
make_suite(*pickle.loads(bytes.fromhex(sys.argv[1])), PlainLines(sys.stderr))
"""


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.notes: list[str] = []

    def show(self, text: str, done: int = 0) -> None:
        self.texts.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_target(tmp_path_factory.mktemp("models"))


@pytest.fixture
def place(target: Path, tmp_path: Path) -> Path:
    """A folder with the suite's file and, in ``models``, its target."""
    write_downloaded_suite(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / FOLDER).symlink_to(target)
    return tmp_path


def suite_in(place: Path) -> Suite:
    return load_suite(place / "real.toml")


def order(place: Path, data: Path | None = None, **asked: object) -> SuiteOrder:
    return SuiteOrder(open_suite(suite_in(place), place / "models", data), data=data, **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(target: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shown]:
    """Everything made without a disturbance, and what was said."""
    place, shown = tmp_path_factory.mktemp("made"), Shown()
    write_downloaded_suite(place)
    (place / "models").mkdir()
    (place / "models" / FOLDER).symlink_to(target)
    found = make_suite(order(place), SLOTS, SLOTS[:1], shown)
    assert (found.made, found.total) == (4, 4)
    return place, shown


def content(place: Path) -> dict[str, str]:
    """Of every file of data and of drafters its sum."""
    folder = place / "models" / "real"
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "checkpoint.json" and not path.name.startswith(".")
    }


def test_data_and_drafters_are_made_and_nothing_else_stays(made: tuple[Path, Shown]) -> None:
    place, shown = made
    names = {Path(name).parts[0].rsplit("-", 1)[0] for name in content(place)}
    assert names == {
        "data",
        *(f"{TARGET}-{drafter}-{scale}" for drafter in ("hass", "prism") for scale in ("1x", "2x")),
    }
    said = "\n".join(shown.notes)
    assert re.search(r"\d+ conversations with (8|9)\d\d answer tokens|1,\d{3} answer tokens", said)
    assert re.search(r"now [\d,]+ tokens in 0:\d\d, [\d,]+ a second; peak memory", said)
    assert re.search(r"hidden states of the data: [\d,]+ tokens in 0:\d\d of all workers, [\d,]+ a second", said)
    assert re.search(r"  drafters: [\d,]+ tokens in 0:\d\d of all workers, [\d,]+ a second", said)
    assert re.search(r"peak memory [\d.]+ GB", said)
    assert shown.texts[-1] == "4 of 4 models, 0:00 left"


def test_running_again_makes_nothing(made: tuple[Path, Shown]) -> None:
    place, _ = made
    before = content(place)
    again = make_suite(order(place), SLOTS, SLOTS, Shown())
    assert (again.made, again.total) == (0, 4)
    assert content(place) == before


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None, "it ended before"
        time.sleep(0.005)


STAGES: dict[str, str] = {
    "data": "data-*/part-00000.jsonl",
    "states": "training/features-*.hidden",
    "drafters": "training/*.state",
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_the_next_run_makes_the_rest_as_if_nothing_had_been(
    stage: str, made: tuple[Path, Shown], place: Path
) -> None:
    asked = order(place, state_seconds=0.0)
    told = pickle.dumps((asked, SLOTS[:1], SLOTS[:1])).hex()
    parent = subprocess.Popen([sys.executable, "-c", _CHILD, told], stderr=subprocess.DEVNULL)
    folder = place / "models" / "real"
    _wait_for(lambda: any(folder.glob(STAGES[stage])), parent)
    workers = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    psutil.wait_procs(workers, timeout=10)
    assert plan_jobs(asked)
    make_suite(asked, SLOTS, SLOTS[:1], Shown())
    assert content(place) == content(made[0])


def test_a_training_goes_on_from_its_last_step(made: tuple[Path, Shown], place: Path) -> None:
    """Not from its beginning: what is said first is how far it was."""
    shutil.copytree(made[0] / "models" / "real", place / "models" / "real")
    asked = order(place, state_seconds=0.0)
    hass = asked.catalogue.drafter(TARGET, "hass", "1x")
    before = content(place)
    shutil.rmtree(hass.folder)
    job = next(job for job in plan_jobs(asked) if job.artifact == hass)
    seen: list[float] = []

    def stop(message: JobProgress | JobEffort) -> None:
        if isinstance(message, JobProgress) and not message.preparing:
            seen.append(message.part)
            if message.part > 0.4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workbench(asked).run(job, stop)
    assert state_file(hass, asked.catalogue).exists()
    parts: list[float] = []

    def hear(message: JobProgress | JobEffort) -> None:
        if isinstance(message, JobProgress) and not message.preparing:
            parts.append(message.part)

    import torch

    torch.set_num_threads(1)
    Workbench(asked).run(job, hear)
    assert parts[0] >= seen[-2] > 0
    assert not state_file(hass, asked.catalogue).exists()
    assert {name: total for name, total in content(place).items() if not name.startswith("training")} == before


def test_several_workers_compute_the_hidden_states_once(made: tuple[Path, Shown], place: Path) -> None:
    shutil.copytree(made[0] / "models" / "real", place / "models" / "real")
    asked = order(place, drafters=("hass",))
    for scale in ("1x", "2x"):
        shutil.rmtree(asked.catalogue.drafter(TARGET, "hass", scale).folder)
    shown = Shown()
    found = train_suite(asked, SLOTS, shown)
    assert found.made == 2
    assert content(place) == content(made[0])
    assert [one.stage for one in found.efforts].count("states") == 2
    assert len({one.process for one in found.efforts}) == 2
    preparing = [text for text in shown.texts if "hidden states" in text]
    assert not any(" left; " in text for text in preparing)


def test_drafters_are_found_as_their_recipes_say(made: tuple[Path, Shown], place: Path) -> None:
    there, _ = made
    suite, models = suite_in(there), there / "models"
    for drafter in ("hass", "prism"):
        for scale in ("1x", "2x"):
            found = locate_drafter(suite, DrafterKey(TARGET, drafter, scale), models)
            assert isinstance(found, Located)
            manifest = read_manifest(found.path)
            assert manifest is not None
            assert (manifest.name, manifest.scale) == (drafter, scale)
    variant = locate_drafter(suite, DrafterKey(TARGET, "eagle2", "1x"), models)
    assert isinstance(variant, Absent)
    assert variant.hint == f"run 'prism-ae train {there / 'real.toml'} --variants'"
    assert variant.opt_in
    nameless = locate_drafter(suite, DrafterKey(TARGET, "eagle3", "1x"), models)
    assert isinstance(nameless, Absent)
    assert "no recipe here trains" in nameless.reason
    (place / "models" / FOLDER).unlink()
    absent = locate_drafter(suite_in(place), DrafterKey(TARGET, "hass", "1x"), place / "models")
    assert isinstance(absent, Absent)
    assert str(place / "models" / FOLDER) in absent.reason
    assert absent.hint == "put the target there"


def test_another_target_template_or_amount_is_another_drafter(place: Path) -> None:
    suite, models = suite_in(place), place / "models"

    def folder(suite: Suite = suite, *, fingerprint: str = "a", data: str = "", text: str = RECIPES) -> Path:
        (place / "real.recipes.toml").write_text(text)
        found = Catalogue(suite, models, {TARGET: fingerprint}, data).drafter(TARGET, "prism", "1x")
        return found.folder

    own = folder()
    assert folder() == own
    template = dataclasses.replace(suite.templates["llama-3"], trim=not suite.templates["llama-3"].trim)
    later = RECIPES.replace("rows = 4", "rows = 5", 1)
    others = {
        folder(fingerprint="b"),
        folder(data="sum"),
        folder(dataclasses.replace(suite, system_prompt="Be kind.")),
        folder(dataclasses.replace(suite, templates={**suite.templates, "llama-3": template})),
        folder(text=RECIPES.replace("unit = 400", "unit = 401")),
        folder(text=RECIPES.replace("max_tokens = 24", "max_tokens = 25")),
        folder(text=later),
        folder(text=RECIPES.replace("forwards = 3\ndetach = true", "forwards = 4\ndetach = true")),
    }
    assert len(others | {own}) == 9


def test_a_plan_and_a_cell(
    made: tuple[Path, Shown], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = made
    monkeypatch.chdir(place)
    words = ["figure5", "--suite", "real.toml", "--drafters", "prism", "--benches", "qa", "--no-controls"]
    words += ["--questions", "1", "--workers", "1"]
    assert entry.run(["plan", *words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["cells"], plan["holes"]) == (4, []), "two scales, two temperatures"
    assert entry.run(["run", *words]) == 0
    out, _ = capsys.readouterr()
    assert "figures/out/real/figure5.pdf" in out


# --- The command.


def test_the_command_says_before_what_it_makes(
    made: tuple[Path, Shown], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(place / "real.toml"), "--models-dir", str(place / "models"), "--dry-run"]
    assert entry.run([*words, "--scales", "1x"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"suite real: 2 drafters to train into {place / 'models' / 'real'}\n  hass, prism at 1x\n" in out
    assert "  data: 400 answer tokens to be written, of 400\n" in out
    assert re.search(r"  disk: about [\d.]+ [kM]B for good, [\d.]+ [kM]B meanwhile", out)
    # 400 / 0.5 / 100 s for the data, 800 / 1000 s for the states; hass 1.6 and prism 0.8 thousand tokens at 1.25 s.
    assert "time: about 0:12 on a machine of the tests (data 0:08, hidden states 0:01, drafters 0:03)" in out
    assert not (place / "models" / "real").exists()
    words[1], words[3] = str(made[0] / "real.toml"), str(made[0] / "models")
    assert entry.run(words) == 0
    assert capsys.readouterr().out == "all 4 models of suite real that are asked for are trained\n"


def test_the_command_makes_what_is_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", str(place / "real.toml"), "--models-dir", str(place / "models"), "--workers", "1"]
    assert entry.run([*words, "--scales", "1x", "--drafters", "prism"]) == 0
    out, err = capsys.readouterr()
    assert out == f"trained 2 models; all 2 of the real suite are in {place / 'models' / 'real'}\n"
    assert "2 drafters to train" in err
    assert "  user: " in err
    assert "peak memory" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--scales", "3x"], 2, "there is no '3x'"),
        (["--drafters", "hss"], 2, "did you mean 'hass'"),
        (["--target", "t"], 2, "--target belongs to training one drafter"),
        (["--data", "nothing.jsonl"], 4, "nothing.jsonl"),
        (["--seeds", "0"], 2, "--seeds must be between"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], code: int, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["train", str(place / "real.toml"), "--models-dir", str(place / "models"), *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_a_missing_target_says_how_to_get_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "models" / FOLDER).unlink()
    with raises(MissingError, place / "models" / FOLDER, "put the target there"):
        order(place)
    assert entry.run(["train", str(place / "real.toml"), "--models-dir", str(place / "models")]) == 4
    assert str(place / "models" / FOLDER) in capsys.readouterr().err


def test_a_suite_without_recipes_is_not_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["train", "paper"]) == 2
    assert "suite paper is not trained here" in capsys.readouterr().err


# --- Data of one's own.


def test_data_of_ones_own_are_learnt_from_and_remembered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, suite, models = place / "mine.jsonl", place / "real.toml", place / "models"
    write_jsonl(data, corpus.conversations(60, 4))
    words = ["train", str(suite), "--models-dir", str(models), "--drafters", "hass"]
    assert entry.run([*words, "--scales", "1x", "--data", str(data)]) == 0
    _, err = capsys.readouterr()
    assert "answer tokens of" in err
    assert "60 of 60 conversations" in err
    assert not any((models / "real").glob("data-*"))
    found = locate_drafter(suite_in(place), DrafterKey(TARGET, "hass", "1x"), models)
    assert isinstance(found, Located)
    assert entry.run([*words, "--scales", "1x"]) == 3
    assert "learn from mine.jsonl" in capsys.readouterr().err
    write_jsonl(place / "other.jsonl", corpus.conversations(60, 5))
    assert entry.run([*words, "--data", str(place / "other.jsonl")]) == 3
    assert "not from other.jsonl" in capsys.readouterr().err


def test_too_few_data_are_refused_before_work_starts(place: Path) -> None:
    data = place / "few.jsonl"
    write_jsonl(data, corpus.conversations(20, 4))
    have = learnt(read_conversations(data), talk(order(place).catalogue, TARGET), 512, data).answer_tokens
    text = RECIPES.replace("unit = 400", f"unit = {have - 1}")
    (place / "real.recipes.toml").write_text(text)
    with raises(ConfigError, data, f"{have:,} answer tokens", f"2x learns from {2 * (have - 1):,}", "--scales 1x"):
        make_suite(order(place, data), SLOTS, SLOTS, Shown())
    assert not list((place / "models").glob("real/*"))


# --- Recipe files.


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("unit = 400", "unit = 0", "data.unit"),
        ("temperature = 1.0", "temperature = 0.0", "data.user.temperature"),
        ('dtype = "bfloat16"', 'dtype = "int8"', "data.dtype"),
        ("[data]", "[dta]", "dta"),
        ("2x = 1.5", "3x = 1.5", "drafter_training.scratch.passes: scale '2x' is missing"),
        ('start = "hass"', 'start = "eagle"', "drafters.prism.start: no recipe 'eagle'"),
        ('start = "hass"', 'start = "hass"\ndraft_vocabulary = 100', "another draft_vocabulary"),
        ('reads = "final"', 'reads = "final"\ntargets = ["llama"]', "no target 'llama'"),
        ("written = 100.0", "written = 0.0", "measured.written"),
        ("[measured]", "[corpus]\nseed = 1\nunit = 1\n[measured]", "either [corpus] or [data]"),
    ],
)
def test_a_wrong_recipe_file_is_named_with_the_key(old: str, new: str, said: str, place: Path) -> None:
    assert old in RECIPES
    path = place / "real.recipes.toml"
    path.write_text(RECIPES.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(str(path))) as caught:
        order(place)
    assert said in str(caught.value)


def test_a_recipe_file_that_is_not_there_is_named(place: Path) -> None:
    (place / "real.recipes.toml").unlink()
    with raises(ConfigError, place / "real.recipes.toml"):
        order(place)


def test_the_packaged_recipes_can_be_read() -> None:
    """Those of smollm2: what a warm start needs, and the same loss weights as the mini suite's."""
    path = Path(load_suite("mini").recipes or "").with_name("smollm2.toml")
    found, mini = load_recipes(path), load_recipes()
    assert set(found.drafters) == {
        *("eagle2", "hass", "prism", "prism_star", "hass_star", "hass2", "eagle3"),
        *("hass_cont", "hass_star_cont", "hass2_cont"),
    }
    for name, recipe in found.drafters.items():
        same = dataclasses.replace(mini.drafters[name], targets=(), draft_vocabulary=8192, counted="all")
        assert recipe == same


# --- Slots.


def test_one_training_has_all_cores_unless_workers_are_chosen() -> None:
    (one,) = training_slots(SLOTS, 8, chosen=False)
    assert one.threads == 8
    assert one.environment["OMP_NUM_THREADS"] == "8"
    assert [slot.threads for slot in training_slots(SLOTS, 8, chosen=True)] == [4, 4]
    gpus = tuple(dataclasses.replace(slot, device="cuda:0") for slot in SLOTS)
    assert training_slots(gpus, 8, chosen=False) == gpus
