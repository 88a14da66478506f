"""A suite of one's own, as README shows it, in every verb; and what is left out of "all" for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeps import write_suite

import prism_ae.suites
from prism_ae import __main__ as entry
from prism_ae.experiments.load import experiment_names
from prism_ae.models.locate import Absent, DrafterKey, locate_drafter
from prism_ae.suites.load import load_suite

Call = Callable[..., tuple[int, str, str]]
REQUEST = ("--drafters", "prism", "--benches", "qa")


@pytest.fixture
def readme(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """README's suite as a file, alone in the current folder."""
    (text,) = re.findall(r'```toml\n(name = "mine"\n.*?)```', (repository / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    path = Path("mine.toml")
    path.write_text(text)
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str) -> tuple[int, str, str]:
        code = entry.run(list(words))
        return code, *capsys.readouterr()

    return run


def left_out(out: str) -> set[str]:
    return set(re.findall(r"\b(?:(?:figure|table)\d+|drafting|anatomy)\b", out.partition("left out")[2]))


def test_readmes_own_suite_works_in_every_verb(readme: Path, call: Call) -> None:
    code, out, err = call("ls", "drafters", "--suite", str(readme))
    assert (code, err) == (0, "")
    assert "prism" in out
    code, out, err = call("status", "--suite", str(readme))
    assert (code, err) == (0, "")
    assert left_out(out) == set(experiment_names())
    code, out, err = call("status", "--suite", str(readme), *REQUEST)
    assert (code, err) == (0, "")
    assert re.search(r"^  figure5 +2 +0 +0 +2$", out, re.MULTILINE)
    assert "figure5" not in left_out(out)
    assert {"figure7", "table4"} <= left_out(out)
    code, out, _ = call("plan", "figure5", "--suite", str(readme), *REQUEST)
    assert code == 0
    assert "2 cells: 0 measured" in out
    code, out, _ = call("plan", "all", "--suite", str(readme), *REQUEST, "--json")
    assert code == 0
    assert json.loads(out)["cells"] == 4, "figure 6 has another tree"
    code, out, err = call("render", "all", "--suite", str(readme), *REQUEST)
    assert code == 0
    assert "figures/out/mine/figure5.pdf" in out
    assert "left out" in err
    code, _, err = call("run", "figure5", "--suite", str(readme), *REQUEST)
    assert code == 8, "its models are not here"
    assert err.count("error: ") == 1


@pytest.mark.parametrize("verb", ["run", "plan", "render"])
def test_a_suite_that_fills_nothing_as_it_is(readme: Path, call: Call, verb: str) -> None:
    code, out, err = call(verb, "all", "--suite", str(readme))
    assert (code, out, err.count("error: ")) == (3, "", 1)
    assert "mine.toml" in err
    assert "'mt_bench'" in err


@pytest.mark.parametrize("verb", ["run", "plan", "render", "status"])
def test_an_experiment_that_is_named_says_why_it_cannot_be(readme: Path, call: Call, verb: str) -> None:
    code, _, err = call(verb, "figure5", "--suite", str(readme))
    assert (code, err.count("error: ")) == (3, 1)
    assert "'mt_bench'" in err
    assert "--benches" in err
    code, _, err = call(verb, "figure7", "--suite", str(readme), *REQUEST)
    assert (code, err.count("error: ")) == (3, 1)
    assert "[drafters.vanilla]" in err


@pytest.mark.parametrize(
    ("changes", "without", "why"),
    [
        ({r"\[drafters\.hass3\].*?(?=\n\[)": ""}, {"figure6"}, "no drafter 'hass3'"),
        ({r"\[drafters\.standard\].*?(?=\n\[)": ""}, {"table4", "table6", "drafting"}, "no drafter 'standard'"),
        ({r"\[benchmarks\.gsm8k\].*?(?=\n\[)": ""}, {"figure4", "figure5", "table4"}, "no benchmark 'gsm8k'"),
        ({r'(roles = \[[^]]*)"llama-3"': r'\1"llama-9"'}, {"figure1", "figure5"}, "no target 'llama-3'"),
        (
            {r'("\{drafters\}-prism)-\{scale\}"(.*?)scaled = true': r'\1"\2scaled = false'},
            {"figure4", "figure5"},
            "'prism' unfit: it is not trained at several scales",
        ),
        (
            {r"max_new_tokens = (\d+)": r"max_new_tokens = \1\nturns_max_new_tokens = 7"},
            {"figure8"},
            "answers are shorter",
        ),
    ],
)
def test_what_a_suite_cannot_fill_is_left_out_of_all_and_said(
    tmp_path: Path, call: Call, changes: dict[str, str], without: set[str], why: str
) -> None:
    text = write_suite(tmp_path).read_text()
    for old, new in changes.items():
        text, count = re.subn(old, new, text, flags=re.DOTALL)
        assert count
    path = tmp_path / "mine.toml"
    path.write_text(text)
    words = ("--suite", str(path), "--models-dir", str(tmp_path), "--runs-dir", str(tmp_path))
    code, out, err = call("status", *words)
    assert (code, err) == (0, "")
    assert why in out
    assert without <= left_out(out) < set(experiment_names())
    shown = json.loads(call("status", *words, "--json")[1])
    assert set(shown["left_out"]) == left_out(out)
    assert set(shown["experiments"]) == set(experiment_names()) - left_out(out)


def copied(folder: Path, changes: dict[str, str]) -> tuple[Path, tuple[str, ...]]:
    """The mini suite's file as one of a user's, changed, and what a command is told of it."""
    text = (Path(prism_ae.suites.__file__).parent / "mini.toml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text.replace('name = "mini"', 'name = "mine"'))
    return path, ("--suite", str(path), "--models-dir", str(folder), "--runs-dir", str(folder))


def test_a_copy_of_the_mini_suite_with_a_model_that_nothing_trains(tmp_path: Path, call: Call) -> None:
    """Its folder is not named: its cells are missing and say so, no error of a lookup."""
    path, words = copied(tmp_path, {"[drafters.prism]": "[drafters.mine]", 'label = "PRISM"': 'label = "Mine"'})
    for verb in ("status", "plan"):
        assert call(verb, "figure1", *words, "--drafters", "mine")[0] == 0
    suite = load_suite(path)
    key = DrafterKey(suite.target_of("llama-3").name, "mine", suite.scales[-1].name)
    found = locate_drafter(suite, key, tmp_path)
    assert isinstance(found, Absent)
    assert "drafters.mine: 'folder'" in found.reason
    assert "suite's file" in found.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"[targets.mini-llama-3]": "[targets.my-llama]"}, "suite mine has no target 'mini-llama-3'"),
        ({'name = "8x"': 'name = "9x"', '"2x", "8x"': '"2x", "9x"'}, "passes: scale '9x' is missing"),
    ],
)
def test_a_copy_of_the_mini_suite_that_its_recipes_do_not_fit(
    tmp_path: Path, call: Call, changes: dict[str, str], said: str
) -> None:
    _, words = copied(tmp_path, changes)
    for verb in ("status", "plan"):
        code, _, err = call(verb, "figure1", *words, "--drafters", "prism_star")
        assert code == 3
        assert "mini.toml: " in err
        assert said in " ".join(err.split())
