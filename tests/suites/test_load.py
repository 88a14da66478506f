"""The suites that come with the package, and what a suite file may not say."""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest
from raising import raises

from prism_ae.cells import TreeShape
from prism_ae.errors import ConfigError, UsageError
from prism_ae.io.schema import read_toml
from prism_ae.suites.load import load_suite, parse_suite, suite_names
from prism_ae.suites.records import Scale

FOLDER = Path(__file__).parents[2] / "prism_ae" / "suites"
MINI = read_toml(FOLDER / "mini.toml")
PAPER = read_toml(FOLDER / "paper.toml")
SERVED = {"role": "llama-2", "scale": "8x", "folder": "x/y"}


def test_names() -> None:
    assert suite_names() == ("mini", "paper", "smollm2")
    assert [load_suite(name).name for name in suite_names()] == ["mini", "paper", "smollm2"]


def test_both_suites_offer_the_papers_experiments() -> None:
    """What a figure asks for by name exists in both, in the same order."""
    mini, paper = load_suite("mini"), load_suite("paper")
    assert list(mini.benchmarks) == list(paper.benchmarks) == ["mt_bench", "humaneval", "gsm8k", "alpaca", "sum", "qa"]
    assert [b.label for b in mini.benchmarks.values()] == [b.label for b in paper.benchmarks.values()]
    assert [b.turns for b in mini.benchmarks.values()] == [b.turns for b in paper.benchmarks.values()]
    assert mini.trees == paper.trees
    assert mini.roles == paper.roles == ("llama-2", "llama-3")
    assert [s.value for s in mini.scales] == [s.value for s in paper.scales]
    assert {name: drafter.label for name, drafter in paper.drafters.items()}.items() <= {
        name: drafter.label for name, drafter in mini.drafters.items()
    }.items()
    for name, drafter in paper.drafters.items():
        assert set(drafter.roles) <= set(mini.drafters[name].roles)
    assert all(mini.drafters[name].control for name in ("hass_cont", "hass_star", "hass_star_cont", "hass2_cont"))
    assert mini.controls
    assert not paper.controls


def test_the_smollm2_suite_offers_the_papers_experiments_on_one_target() -> None:
    smollm2, paper = load_suite("smollm2"), load_suite("paper")
    assert list(smollm2.targets) == ["smollm2"]
    assert smollm2.roles == paper.roles
    assert smollm2.benchmarks == paper.benchmarks
    assert smollm2.trees == paper.trees
    assert [s.value for s in smollm2.scales] == [s.value for s in paper.scales]
    assert smollm2.hub is not None
    assert paper.hub is not None
    assert (smollm2.hub.questions, smollm2.hub.question_sums) == (paper.hub.questions, paper.hub.question_sums)
    labels = {name: drafter.label for name, drafter in paper.drafters.items()}
    assert labels.items() <= {name: drafter.label for name, drafter in smollm2.drafters.items()}.items()
    assert {name for name, drafter in smollm2.drafters.items() if drafter.absent} == {"standard", "hass3", "prism3"}
    assert smollm2.drafter_folder("smollm2", "prism", "1x") is None
    order = smollm2.hub.packaged_questions["humaneval"].order
    assert (len(order), len(set(order)), max(order) < 164) == (80, 80, True)


def test_the_smollm2_template_is_the_tokenizers_own() -> None:
    """The chat template of its tokenizer_config.json, run by the library that transformers runs it by."""
    own = (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    suite = load_suite("smollm2")
    template = suite.templates["chatml"]
    first = template.first.format(system=suite.system_prompt, user=" What?\n")
    said = [{"role": "user", "content": " What?\n"}]
    render = jinja2.Template(own).render
    assert render(messages=said, add_generation_prompt=True) == first
    said += [{"role": "assistant", "content": "That."}, {"role": "user", "content": "Why?"}]
    both = first + template.answer.format(answer="That.") + template.later.format(user="Why?")
    assert render(messages=said, add_generation_prompt=True) == both


def test_the_papers_settings() -> None:
    paper = load_suite("paper")
    # The authors' flags total_token, depth, top_k; depth 5 means 6 draft steps.
    for name, (total_token, depth, top_k) in {"main": (60, 5, 10), "small": (16, 3, 4), "sglang": (16, 5, 4)}.items():
        assert paper.trees[name] == TreeShape(steps=depth + 1, branch=top_k, verified=total_token)
    limits = paper.limits
    assert (limits.questions, limits.max_new_tokens, limits.seed) == (80, 512, 42)
    assert limits.max_length == 2048 - 59 - 10
    assert limits.dtype == "float16"
    assert paper.scales == tuple(Scale(f"{k}k", k / 100) for k in (100, 200, 400, 600, 800))
    assert len(paper.benchmarks) == 6
    assert "while being safe.  Your answers" in paper.system_prompt
    assert paper.system_prompt == paper.system_prompt.strip()
    assert paper.system_prompt.count("\n") == 2


def test_the_published_checkpoints_of_figures_1_4_5_6_are_480_cells() -> None:
    """The authors' grid: 8 pairs of target and drafter, 5 scales, 6 benchmarks, 2 temperatures."""
    paper = load_suite("paper")
    pairs = [
        (target.name, drafter.folder.replace("{drafters}", target.drafter_folder))
        for target in paper.targets.values()
        for drafter in paper.drafters.values()
        if drafter.kind == "draft-head" and drafter.exists_for(target) and not drafter.absent
    ]
    assert pairs == [
        ("llama-2-7b-chat", "Llama-2-7B-drafter/Eagle2-{scale}"),
        ("llama-2-7b-chat", "Llama-2-7B-drafter/HASS-1-{scale}"),
        ("llama-2-7b-chat", "Llama-2-7B-drafter/PRISM-{scale}"),
        ("llama-3-8b-instruct", "Llama-3-8B-drafter/Eagle2-{scale}"),
        ("llama-3-8b-instruct", "Llama-3-8B-drafter/HASS-1-{scale}"),
        ("llama-3-8b-instruct", "Llama-3-8B-drafter/HASS-2-{scale}"),
        ("llama-3-8b-instruct", "Llama-3-8B-drafter/Eagle3-{scale}"),
        ("llama-3-8b-instruct", "Llama-3-8B-drafter/PRISM-{scale}"),
    ]
    assert len(pairs) * len(paper.scales) * len(paper.benchmarks) * 2 == 480


def test_an_unknown_suite() -> None:
    with raises(UsageError, "'papr'", "'paper'"):
        load_suite("papr")
    with raises(ConfigError, "no.toml"):
        load_suite("no.toml")


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    text = (FOLDER / "mini.toml").read_text().replace('name = "mini"', 'name = "mine"', 1)
    (tmp_path / "mine.toml").write_text(text)
    assert load_suite(str(tmp_path / "mine.toml")).name == "mine"


def test_keys_may_be_missing_and_an_empty_text_says_the_same(tmp_path: Path) -> None:
    """Files from before keys could be missing say "" for none."""
    data = copy.deepcopy(MINI)
    for target in data["targets"].values():
        target |= {"folder": "", "drafter_folder": "", "small_folder": ""}
    for drafter in data["drafters"].values():
        drafter |= {"folder": "", "absent": ""}
    for benchmark in data["benchmarks"].values():
        benchmark["file"] = ""
    suite = parse_suite(MINI, "mine.toml")
    assert parse_suite(data, "mine.toml") == suite
    assert load_suite("mini") == dataclasses.replace(suite, recipes=load_suite("mini").recipes, source="mini")
    mini = load_suite("mini")
    assert {mini.targets["mini-llama-2"].folder, mini.drafters["prism"].absent, mini.benchmarks["qa"].file} == {None}
    assert not mini.drafters["standard"].scaled


def test_limits_hold_for_what_says_nothing_else() -> None:
    mini = parse_suite(change(MINI, "limits", MINI["limits"] | {"max_new_tokens": 33}), "mine.toml")
    assert (mini.serving, mini.limits.new_tokens(1), mini.limits.new_tokens(2)) == (mini.limits, 33, 33)
    own = {"serving": MINI["limits"] | {"questions": 3}, "limits": MINI["limits"] | {"turns_max_new_tokens": 7}}
    mini = parse_suite(MINI | own, "mine.toml")
    assert (mini.serving.questions, mini.limits.questions) == (3, 16)
    assert [mini.limits.new_tokens(turns) for turns in (1, 2)] == [96, 7]
    assert [mini.serving.new_tokens(turns) for turns in (1, 2)] == [96, 96]


def test_the_folder_of_a_drafter() -> None:
    """What SGLang's engine reads where something was published for it, and the others where nothing else was."""
    paper, served, published = load_suite("paper"), "PRISM-800K-SGLANG", "Llama-3-8B-drafter/PRISM-800k"
    target, drafter = "llama-3-8b-instruct", "prism_star"
    assert paper.drafter_folder(target, drafter, "800k") == published
    assert paper.drafter_folder(target, drafter, "800k", "sglang") == served
    assert paper.drafter_folder(target, drafter, "400k", "sglang") == "Llama-3-8B-drafter/PRISM-400k"
    assert paper.drafter_folder("llama-2-7b-chat", "prism", "800k") == "LD-800k"
    assert paper.drafter_folder("llama-2-7b-chat", "prism", "400k") is None
    assert paper.drafters[drafter].served_folder(paper.targets["llama-3-8b-instruct"], "800k") == served
    assert paper.drafters[drafter].served_folder(paper.targets["llama-2-7b-chat"], "800k") is None


def change(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of ``data`` with a dotted key set, or deleted for None."""
    changed = copy.deepcopy(data)
    *path, last = key.split(".")
    table: Any = changed
    for part in path:
        table = table[int(part)] if isinstance(table, list) else table[part]
    if value is None:
        del table[last]
    else:
        table[int(last) if isinstance(table, list) else last] = value
    return changed


@pytest.mark.parametrize(
    ("key", "value", "subjects"),
    [
        ("version", None, "'version'"),
        ("scale", [], "'scale' 'scales'"),
        ("name", "My suite", "name:"),
        ("trees.main", "97,1,98", "trees.main: 97 96"),
        (
            "targets.mini-llama-2.templates",
            "x",
            "'targets.mini-llama-2.templates' 'template'",
        ),
        ("targets.mini-llama-2.template", "llama-2", "'llama-2' 'llama-3'"),
        ("targets.mini-llama-2.template", "chatml", "'chatml' llama-2-chat, llama-3"),
        ("targets.mini-llama-2.roles", ["llama-3"], "targets: 'llama-3'"),
        ("targets.mini-llama-2.roles", ["llama-2", "llama-2"], "targets: 'llama-2'"),
        ("targets.mini-llama-2.roles", [], "targets.mini-llama-2.roles:"),
        ("targets.mini-llama-2.name", "other", "targets.mini-llama-2.name: 'other'"),
        ("targets.mini-llama-2.capture", [7, 3], "targets.mini-llama-2.capture:"),
        ("targets.mini-llama-2.capture", [], "targets.mini-llama-2.capture:"),
        ("targets.mini-llama-3.eagle3_capture", [2, 2], "targets.mini-llama-3.eagle3_capture:"),
        ("targets.mini-llama-2.folder", "../x", "targets.mini-llama-2.folder: '../x'"),
        ("targets.mini-llama-2.folder", "/x", "targets.mini-llama-2.folder: '/x'"),
        ("drafters.prism.roles", ["llama2"], "drafters.prism.roles: 'llama2'"),
        ("drafters.prism.roles", [], "drafters.prism.roles:"),
        ("drafters.prism.roles", ["llama-2", "llama-2"], "drafters.prism.roles: 'llama-2'"),
        ("drafters.prism.kind", "head", "drafters.prism.kind: 'vanilla' 'draft-head' 'model'"),
        ("drafters.prism.kind", "vanilla", "drafters.prism.kind: 'vanilla'"),
        ("drafters.vanilla.scaled", True, "drafters.vanilla.scaled:"),
        ("drafters.vanilla.folder", "x", "drafters.vanilla.folder:"),
        ("drafters.lookup.scaled", True, "drafters.lookup.scaled:"),
        ("drafters.lookup.folder", "x", "drafters.lookup.folder:"),
        ("drafters.lookup.max_ngram", 0, "drafters.lookup.min_ngram: 0 1"),
        ("drafters.lookup.min_ngram", None, "drafters.lookup.min_ngram: 3 0"),
        ("drafters.prism.max_ngram", 3, "drafters.prism.min_ngram: 'lookup'"),
        ("drafters.prism.label", "HASS", "drafters: 'HASS'"),
        ("drafters.prism.folder", "x/{size}", "drafters.prism.folder: {size}"),
        ("drafters.prism.folder", "x", "drafters.prism.folder: {scale}"),
        ("drafters.standard.folder", "x-{scale}", "drafters.standard.folder: {scale}"),
        ("drafters.prism.folder", "{drafters}/{scale}", "{drafters} 'mini-llama-2'"),
        ("drafters.standard.folder", "{small}", "{small} 'mini-llama-2'"),
        (
            "drafters.prism.served",
            [{"role": "llama-2", "scale": "8x"}],
            "'drafters.prism.served.0.folder'",
        ),
        ("drafters.prism.served", [SERVED | {"role": "llama2"}], "drafters.prism.served.0.role: 'llama2'"),
        ("drafters.hass2.served", [SERVED], "drafters.hass2.served.0.role: 'llama-2'"),
        ("drafters.prism.served", [SERVED | {"scale": "8"}], "drafters.prism.served.0.scale: '8'"),
        ("drafters.prism.served", [SERVED | {"folder": "../x"}], "drafters.prism.served.0.folder: '../x'"),
        ("drafters.prism.served", [SERVED | {"folder": "/x"}], "drafters.prism.served.0.folder: '/x'"),
        ("drafters.prism.served", [SERVED | {"folder": ""}], "drafters.prism.served.0.folder:"),
        ("drafters.prism.served", [SERVED, SERVED], "drafters.prism.served: 'llama-2'"),
        ("drafters.standard.served", [SERVED], "drafters.standard.served:"),
        ("trees.sglang", None, "trees.sglang:"),
        ("benchmarks.qa.turns", 0, "benchmarks.qa.turns: 1"),
        ("benchmarks.qa.file", "../q.jsonl", "benchmarks.qa.file: '../q.jsonl'"),
        ("benchmarks", {}, "benchmarks:"),
        ("templates.llama-3.first", "{user}", "templates.llama-3.first: {system}"),
        ("templates.llama-3.later", "{user}{system}", "templates.llama-3.later: {system}"),
        ("templates.llama-3.answer", "x", "templates.llama-3.answer: {answer}"),
        ("templates.llama-3.stop", [], "templates.llama-3.stop:"),
        ("trees.main", None, "trees.main:"),
        ("trees.main", "6,10", "trees.main: '6,10'"),
        ("trees.main", 6, "trees.main:"),
        ("trees.small", "1,4,16", "trees.small: 1,4,16 1 4"),
        ("trees.small", "4,1,16", "trees.small: 4,1,16 4 5"),
        ("scales.1.value", 1, "scales.1.value: 1"),
        ("scales.0.value", 0, "scales.0.value: 0"),
        ("scales.1.name", "1x", "scales: '1x'"),
        ("seed_scales", ["2x", "3x"], "seed_scales.1: '3x'"),
        ("seed_scales", ["2x", "2x"], "seed_scales: '2x'"),
        ("limits.questions", 0, "limits.questions: 1"),
        ("limits.seed", -1, "limits.seed:"),
        ("limits.max_length", 96, "limits.max_length:"),
        ("limits.dtype", "float8", "limits.dtype: 'float32' 'bfloat16' 'float16'"),
        ("limits.dtype", "float23", "'float32'"),
    ],
)
def test_a_wrong_mini_suite_is_refused(key: str, value: Any, subjects: str) -> None:
    with raises(ConfigError, "mine.toml: ", *subjects.split()):
        parse_suite(change(MINI, key, value), "mine.toml")


@pytest.mark.parametrize(
    ("key", "value", "subjects"),
    [
        ("drafters.eagle2.folder", "", "'llama-2-7b-chat' 'absent'"),
        ("drafters.eagle2.absent", "lost", "drafters.eagle2"),
        ("targets.llama-3-8b-instruct.small_folder", "", "{small} 'llama-3-8b-instruct'"),
    ],
)
def test_a_wrong_paper_suite_is_refused(key: str, value: Any, subjects: str) -> None:
    with raises(ConfigError, "mine.toml: ", *subjects.split()):
        parse_suite(change(PAPER, key, value), "mine.toml")


def test_every_contradiction_is_told_at_once() -> None:
    data = change(change(MINI, "limits.seed", -1), "drafters.prism.roles", [])
    with pytest.raises(ConfigError) as caught:
        parse_suite(data, "mine.toml")
    assert caught.value.what.count("mine.toml: ") == 2


def test_the_suite_of_the_page_on_ones_own_target_is_sound() -> None:
    page = (FOLDER.parents[1] / "docs/own-target.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    suite = parse_suite(tomllib.loads(text), "own-target.md")
    assert suite.templates["chatml"] == load_suite("smollm2").templates["chatml"]
    assert suite.drafter_folder("my-llama", "prism", "all") == "my-llama-prism-all"
