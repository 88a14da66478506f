"""The command line as users meet it: results on standard output, else one clear message and the documented code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweeps import Sweep
from timed_experiments import write_experiment

import prism_ae.errors
from prism_ae import __main__ as entry
from prism_ae.cli import app as app_module

VERBS = ("doctor", "ls", "download", "train", "plan", "run", "status", "render", "import", "serve", "tune", "convert")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command line in this process: exit code, standard output, standard error."""
    code = entry.run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_help_loads_nothing_heavy() -> None:
    """What makes help instant: it answers before any library that takes its time is imported."""
    command = [sys.executable, "-X", "importtime", "-m", "prism_ae", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Exit codes:" in done.stdout
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "prism_ae" in imported
    assert not imported & {"torch", "numpy", "pandas", "matplotlib", "pydantic", "rich", "tokenizers", "transformers"}


def test_help_documents_every_exit_code() -> None:
    tree = [prism_ae.errors.PrismError]
    while tree:
        error = tree.pop()
        tree += error.__subclasses__()
        assert f"\n  {error.exit_code} " in app_module._HELP
    assert f"\n  {prism_ae.errors.INTERRUPTED} " in app_module._HELP


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"prism-ae {verb}" in out


def test_examples_in_the_help_are_right(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example is parsed as a command line; the verbs themselves are not called."""
    import typer

    command = typer.main.get_command(app_module.app)
    examples = []
    for verb in ("", *VERBS):
        _, out, _ = call(capsys, *filter(None, [verb]), "--help")
        examples += [line.strip() for line in out.splitlines() if line.startswith("    prism-ae ")]
    assert len(examples) > 15
    for example in examples:
        words = example.split("   ")[0].split()[1:]
        context = command.make_context("prism-ae", list(words))
        verb = command.commands[words[0]]  # type: ignore[attr-defined]
        verb.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("verb", ["--help", "ls", "plan", "status", "render", "run"])
def test_no_verb_needs_torch_where_nothing_is_measured(sweep: Sweep, verb: str) -> None:
    words = sweep.arguments(verb) if verb in ("plan", "render", "run", "status") else [verb]
    if verb == "run":
        assert sweep.run(words).returncode == 0
    code = (
        "import sys; from prism_ae.__main__ import run\n"
        f"code = run({words!r})\n"
        "heavy = {'torch', 'transformers', 'sglang'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert code == 0, code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=sweep.folder, env=path())
    assert done.returncode == 0, done.stderr


def path() -> dict[str, str]:
    """The environment in which this package comes first, and the tests' engine is found."""
    paths = [str(Path(prism_ae.__file__).parents[1]), os.environ["PYTHONPATH"]]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["plan", "figur4"], 2, "did you mean 'figure4'"),
        (["plan", "figure4", "--suite", "pape"], 2, "did you mean 'paper'"),
        (["plan", "figure4", "--benches", "humanevil"], 2, "did you mean 'humaneval'"),
        (["plan", "figure4", "--drafters", "prims"], 2, "did you mean 'prism'"),
        (["plan", "figure4", "--scales", "900k"], 2, "--scales: there is no '900k'"),
        (["plan", "figure4", "--targets", "llama-4"], 2, "--targets"),
        (["plan", "figure4", "--benches", "qa,,sum"], 2, "has an empty name"),
        (["plan", "figure4", "--temperatures", "warm"], 2, "'warm' is not a number"),
        (["plan", "figure4", "--temperatures", "-1"], 2, "--temperatures"),
        (["plan", "figure4", "--questions", "0"], 2, "--questions must be at least 1"),
        (["plan", "figure4", "--tree", "6,10"], 2, "is not a draft tree"),
        (["plan", "figure4", "--tree", "2,2,60"], 2, "at most 7 can be verified"),
        (["run", "figure4", "--tree", "3,1,9"], 2, "a chain of 3 steps verifies 4 tokens"),
        (["plan", "figure4", "--engine", "torsh"], 2, "there is no engine 'torsh'"),
        (["plan", "figure4", "--gpus", "a"], 2, "not a list of GPU numbers"),
        (["run", "figure4", "--gpus", "97"], 6, "there is no GPU 97"),
        (["run", "figure4", "--gpus", "0", "--workers", "2"], 2, "exclude each other"),
        (["run", "figure4", "--workers", "0"], 2, "--workers must be from 1 to"),
        (["plan", "figure4", "--batch-size", "4"], 2, "--batch-size: figure4 measures acceptance"),
        (["plan", "figure4", "--paper-compat"], 2, "--paper-compat: figure4 measures acceptance"),
        (["plan", "figure4", "--drafting", "stock"], 2, "--drafting: figure4 is measured with the engine torch"),
        (["run", "figure4", "--tree", "3,2,6", "--tree", "4,4,16"], 2, "--tree: figure4 draws one tree, got 2"),
        (["plan", "figure4", "--batch-size", "four"], 2, "--batch-size"),
        (["plan", "missing.toml"], 3, "missing.toml does not exist"),
        (["ls", "drafter"], 2, "did you mean 'drafters'"),
        (["plan", "figure4", "--gpu", "0"], 2, "--gpus"),
        (["plan"], 2, "EXPERIMENT"),
        (["plot"], 2, "plot"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = call(capsys, *arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_in_a_file_names_file_and_key(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    sweep.suite_file.write_text(sweep.suite_file.read_text().replace("title =", "titel ="))
    code, _, err = call(capsys, "plan", "figure1", "--suite", str(sweep.suite_file))
    assert code == 3
    assert "tiny.toml: " in err
    assert "'titel'" in err


def test_places_that_cannot_be_written_are_refused_before_measuring(
    capsys: pytest.CaptureFixture[str], sweep: Sweep
) -> None:
    blocked = sweep.folder / "file"
    blocked.write_text("")
    code, _, err = call(capsys, *sweep.arguments("run", "--out", str(blocked / "figures")))
    assert code == 7
    assert "--out" in err
    code, _, err = call(capsys, *sweep.arguments("run", "--runs-dir", str(blocked / "runs")))
    assert code == 7
    assert "--runs-dir" in err
    assert not sweep.root.exists()


def test_a_folder_of_something_else_is_refused(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    sweep.root.mkdir(parents=True)
    (sweep.root / "notes.txt").write_text("mine")
    for verb in ("plan", "run", "render"):
        code, _, err = call(capsys, *sweep.arguments(verb))
        assert code == 7
        assert "suite.json" in err


def test_ls_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "ls", "drafters", "--suite", "mini")
    assert (code, err) == (0, "")
    assert re.search(r"^prism_star +PRISM\*", out, re.MULTILINE)
    code, out, _ = call(capsys, "ls", "--json")
    listed = json.loads(out)
    assert listed["suite"] == "paper"
    assert [entry["name"] for entry in listed["experiments"]][:2] == ["figure1", "figure4"]
    assert [entry["name"] for entry in listed["scales"]] == ["100k", "200k", "400k", "600k", "800k"]


def test_plan_says_what_would_happen_and_changes_nothing(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    code, out, err = call(capsys, *sweep.arguments("plan", "--workers", "3"))
    assert (code, err) == (0, "")
    assert "28 cells: 0 measured, 28 to measure" in out
    assert "7 assignments for 3 workers" in out
    assert "targets to load: mini-llama-2, mini-llama-3" in out
    assert "unknown, no cell like these has been measured here yet" in out
    assert not sweep.root.exists()


@pytest.fixture
def timed(sweep: Sweep) -> list[str]:
    """The options of a batches experiment of one's own, over the tiny suite's first target."""
    path = write_experiment(sweep.folder / "my-batches.toml", "batches", batches=[2, 3], benchmarks=["humaneval", "qa"])
    places = ["--models-dir", str(sweep.models), "--runs-dir", str(sweep.folder / "runs")]
    return [str(path), "--suite", str(sweep.suite_file), "--engine", "fake", "--questions", "3", *places]


def test_what_is_timed_is_planned_one_after_the_other(
    capsys: pytest.CaptureFixture[str], sweep: Sweep, timed: list[str]
) -> None:
    code, out, err = call(capsys, "plan", *timed, "--workers", "2")
    assert (code, err) == (0, "")
    assert "12 cells: 0 measured, 12 to measure" in out
    assert "of these 12 measure throughput" in out  # a cell each
    assert "mini-llama-2  vanilla      no tree      batch 3  fake  float32  1 cell" in out
    _, out, _ = call(capsys, "plan", *sweep.arguments("plan")[1:])
    assert "measure throughput" not in out
    listed = json.loads(call(capsys, "plan", *timed, "--batch-size", "1", "--batch-size", "3", "--json")[1])
    batches = [cell["batch"] for one in listed["assignments"] for cell in one["cells"]]
    assert batches == [3] * 6 + [1] * 6
    assert call(capsys, "plan", *timed, "--batch-size", "4")[0] == 2


def test_the_authors_choices_are_other_cells(capsys: pytest.CaptureFixture[str], timed: list[str]) -> None:
    ids = [
        {
            cell["id"]
            for one in json.loads(call(capsys, "plan", *timed, *more, "--json")[1])["assignments"]
            for cell in one["cells"]
        }
        for more in ([], ["--paper-compat"])
    ]
    assert len(ids[0]) == len(ids[1]) == 12
    assert not ids[0] & ids[1]


def test_what_is_timed_is_measured_by_two_workers(
    capsys: pytest.CaptureFixture[str], sweep: Sweep, timed: list[str]
) -> None:
    from prism_ae.cli.measure import measure
    from prism_ae.cli.options import DeviceOptions
    from prism_ae.experiments.options import Options
    from prism_ae.experiments.request import make_request
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import resolve

    request = make_request([timed[0]], str(sweep.suite_file), Options(questions=3, engine="fake", batch_sizes=(2,)))
    resolved = resolve(request.all_points, LocalLookup(sweep.suite, sweep.models))
    _, outcome = measure(request, resolved, sweep.store(), sweep.models, DeviceOptions(workers=2).slots())
    assert (outcome.measured, outcome.left) == (6, 0)
    _, out, _ = call(capsys, "plan", *timed, "--workers", "2")
    assert "12 cells: 6 measured, 6 to measure" in out


def test_what_an_engine_cannot_measure_is_said(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    path = write_experiment(sweep.folder / "my-table.toml", "table")
    places = ["--models-dir", str(sweep.models), "--runs-dir", str(sweep.folder / "runs")]
    command = ["plan", str(path), "--suite", str(sweep.suite_file), "--engine", "torch", "--benches", "qa", *places]
    code, out, _ = call(capsys, *command)
    assert code == 0
    assert "5 cells: 0 measured, 4 to measure, 1 that cannot be measured now" in out
    assert "1 cell cannot be measured: the engine torch drafts with draft heads only" in out
    assert "\n    choose another engine with --engine\n" in out
    assert "5 that cannot be measured now" in call(capsys, *command, "--paper-compat")[1]


def test_expected_time_shares_only_what_may_run_side_by_side() -> None:
    from prism_ae.cli._plan_text import expected_time
    from prism_ae.planning.plan import TimeEstimate

    estimate = TimeEstimate(seconds=3 * 60.0 + 4 * 60.0, timed=3 * 60.0, known=5, unknown=0)
    assert expected_time(estimate, 4, on_cpu=True).startswith("about 4:00 ")
    assert expected_time(estimate, 7, on_cpu=False).startswith("about 1:00 ")


def test_figures_and_tables_are_drawn_to_their_own_folders(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_ae.cli.draw import check_writable, draw
    from prism_ae.experiments import render
    from prism_ae.experiments.options import Options
    from prism_ae.experiments.request import Request, make_request
    from prism_ae.planning.plan import Resolved, make_plan

    monkeypatch.chdir(sweep.folder)
    names = ["figure1", str(write_experiment(sweep.folder / "my-table.toml", "table"))]
    request = make_request(names, str(sweep.suite_file), Options())
    drawn: list[tuple[str, Path]] = []

    def note(drawing: Any, out_dir: Path) -> list[Path]:
        drawn.append((drawing.experiment.name, out_dir))
        return []

    monkeypatch.setattr(render, "render", note)

    def places(out: Path | None, request: Request) -> list[tuple[str, Path]]:
        drawn.clear()
        check_writable(out, request)
        draw(request, make_plan(Resolved({}, {}, ()), {}), sweep.store(), out, with_paper=False)
        return list(drawn)

    assert places(None, request) == [("figure1", Path("figures/out")), ("my-table", Path("tables/out"))]
    assert Path("tables/out/tiny").is_dir()
    assert places(Path("mine"), request) == [("figure1", Path("mine")), ("my-table", Path("mine"))]


def test_a_place_for_tables_that_cannot_be_written_is_refused(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_ae.cli.draw import check_writable
    from prism_ae.errors import StoreError
    from prism_ae.experiments.options import Options
    from prism_ae.experiments.request import make_request

    monkeypatch.chdir(sweep.folder)
    names = ["figure1", str(write_experiment(sweep.folder / "my-table.toml", "table"))]
    Path("tables").write_text("a file where the folder would be")
    check_writable(None, make_request(names[:1], str(sweep.suite_file), Options()))
    with pytest.raises(StoreError, match="tables/out/tiny"):
        check_writable(None, make_request(names, str(sweep.suite_file), Options()))


def test_plan_names_what_is_missing_and_the_command_for_it(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    shutil.rmtree(sweep.models / "mini-llama-2-prism-8x")
    code, out, _ = call(capsys, *sweep.arguments("plan"))
    assert code == 0
    assert "24 to measure, 4 that cannot be measured now" in out
    assert "4 cells cannot be measured:" in out
    assert "prism-ae train mini" in out
    listed = json.loads(call(capsys, *sweep.arguments("plan", "--json"))[1])
    assert {hole["drafter"] for hole in listed["holes"]} == {"prism"}
    assert sum(len(one["cells"]) for one in listed["assignments"]) == 24


def test_run_with_a_missing_model_measures_the_rest_and_ends_incomplete(sweep: Sweep) -> None:
    shutil.rmtree(sweep.models / "mini-llama-2-prism-8x")
    done = sweep.run(sweep.arguments("run"))
    assert done.returncode == 8
    assert "4 of 28 cells" in done.stderr
    assert "prism-ae train mini" in done.stderr
    assert len(sweep.store().records()) == 24
    assert len(done.stdout.split()) == 3


def test_status_and_render_work_without_the_models(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    import shutil

    first = sweep.run(sweep.arguments("run"))
    assert first.returncode == 0
    drawn = {name: Path(name).read_bytes() for name in first.stdout.split()}
    shutil.rmtree(sweep.models)
    code, out, err = call(capsys, *sweep.arguments("render"))
    assert (code, err) == (0, "")
    assert out == first.stdout
    assert {name: Path(name).read_bytes() for name in out.split()} == drawn
    assert call(capsys, *sweep.arguments("run"))[0] == 0


def test_results_of_models_that_are_gone_are_drawn_and_said(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    import shutil

    said = "4 of 28 cells measured with models that are not here now"
    first = sweep.run(sweep.arguments("run"))
    caption = next(Path(name) for name in first.stdout.split() if name.endswith(".json"))
    assert said not in caption.read_text()
    shutil.rmtree(sweep.models / "mini-llama-2-prism-8x")
    code, _, err = call(capsys, *sweep.arguments("run"))
    assert code == 0
    assert "4 cells with" in err
    assert said in caption.read_text()


def test_status_shows_progress_failures_and_damage(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    planned = json.loads(call(capsys, *sweep.arguments("plan", "--json"))[1])
    bad = planned["assignments"][0]["cells"][2]["id"]
    assert sweep.run(sweep.arguments("run", "--workers", "2"), {"silent": [bad]}).returncode == 8
    with (sweep.root / "log.jsonl").open("ab") as log:
        log.write(b'{"record":')
    code, out, err = call(capsys, *sweep.arguments("status"))
    assert code == 0
    assert out.splitlines()[2].split() == ["figure1", "28", "27", "1", "0"]
    assert f"failed: {bad} (mini-llama-" in out
    assert "the engine gave no result" in out
    assert "1 damaged line in" in out
    assert "1 damaged line in" in err
    shown = json.loads(call(capsys, *sweep.arguments("status", "--json"))[1])
    assert shown["experiments"] == {"figure1": {"cells": 28, "measured": 27, "failed": 1, "not_measurable": 0}}
    assert shown["failures"] == {bad: "the engine gave no result"}
    assert [damage["line"] for damage in shown["damaged_lines"]] == [29]


def test_status_lists_failures_of_what_was_asked_otherwise(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    """The end of a run points to ``status``: whatever its options were, its failures are listed until mended."""
    planned = json.loads(call(capsys, *sweep.arguments("plan", "--json"))[1])
    bad = planned["assignments"][0]["cells"][2]["id"]
    assert sweep.run(sweep.arguments("run"), {"silent": [bad]}).returncode == 8
    words = ("status", *sweep.arguments("status")[2:8])
    assert "--engine" not in words
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert re.search(r"^  other options +28 +27 +1$", out, re.MULTILINE)
    assert f"failed: {bad}" in out
    shown = json.loads(call(capsys, *words, "--json")[1])
    assert (shown["others"], list(shown["failures"])) == ({"measured": 27, "failed": 1}, [bad])
    assert sweep.run(sweep.arguments("run")).returncode == 0
    code, out, _ = call(capsys, *words)
    assert re.search(r"^  other options +28 +28 +0$", out, re.MULTILINE)
    assert "failed:" not in out
    assert "other options" not in call(capsys, *sweep.arguments("status"))[1]


def test_a_reader_who_stops_reading_is_no_error(sweep: Sweep) -> None:
    command = [sys.executable, "-m", "prism_ae", *sweep.arguments("plan", "--json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), err) == (0, "")


def test_an_interrupt_anywhere_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import prism_ae.experiments.request

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prism_ae.experiments.request, "make_request", interrupted)
    code, out, err = call(capsys, "plan", "figure4")
    assert (code, out, err) == (130, "", "interrupted; the same command continues\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import prism_ae.experiments.request

    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(prism_ae.experiments.request, "make_request", broken)
    with pytest.raises(ZeroDivisionError):
        entry.run(["plan", "figure4"])


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"prism-ae {prism_ae.__version__}\n", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_place_that_cannot_show_a_letter_gets_a_question_mark(encoding: str) -> None:
    command = [sys.executable, "-m", "prism_ae", "plan", "figureµ∞"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: there is no experiment 'figure")
    assert b"Traceback" not in done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "prism_ae", "ls", "scales"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b"(? 10? K)" in listed.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_results_that_cannot_be_written_are_a_clear_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "prism_ae", "ls"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = "error: cannot write to standard output: No space left on device\n  free some space\n"
    assert (done.returncode, done.stderr) == (7, said)


def test_a_closed_standard_output_is_no_error() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -m prism_ae ls trees >&-', sys.executable], stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_cells_of_a_damaged_manifest_are_missing_among_others(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    folder = sweep.models / "mini-llama-2-prism-8x"
    (folder / "checkpoint.json").write_text("{")
    code, out, _ = call(capsys, *sweep.arguments("plan"))
    assert code == 0
    assert "24 to measure, 4 that cannot be measured now" in out
    said = " ".join(out.split())  # long lines are wrapped
    assert f"{folder / 'checkpoint.json'} " in said
    assert f" {folder}, " in said
    assert call(capsys, *sweep.arguments("render"))[0] == 0


def test_cells_that_failed_alike_are_told_together(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    planned = json.loads(call(capsys, *sweep.arguments("plan", "--json"))[1])
    bad = [cell["id"] for cell in planned["assignments"][0]["cells"]]
    done = sweep.run(sweep.arguments("run", "--workers", "1"), {"silent": bad})
    assert done.returncode == 8
    assert f"  {len(bad)} cells failed: the engine gave no result\n" in done.stderr


def test_a_failure_and_its_hint_are_one_line_of_status(capsys: pytest.CaptureFixture[str], sweep: Sweep) -> None:
    planned = json.loads(call(capsys, *sweep.arguments("plan", "--json"))[1])
    bad = planned["assignments"][0]["cells"][0]["id"]
    assert sweep.run(sweep.arguments("run", "--workers", "1"), {"fail": [bad]}).returncode == 8
    _, out, _ = call(capsys, *sweep.arguments("status"))
    assert f": cell {bad} was told to fail; tell it otherwise\n" in out
