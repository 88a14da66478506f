"""Labels of users: whatever they are, a page shows them whole, shortens them, or refuses them by name."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from layout import check_places, laid_out
from synthetic import measure, render

from prism_ae import __main__ as entry
from prism_ae.drawing.canvas import undrawable
from prism_ae.drawing.text import shortened, width_of, wrap
from prism_ae.errors import ConfigError
from prism_ae.experiments.compose import Drawing, compose
from prism_ae.experiments.expand import expand
from prism_ae.experiments.labels import check_labels
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

OPTIONS = Options(questions=2, benches=("qa", "sum"))
UNBROKEN = "x" * 120
KINDS = ("figure1", "figure4", "figure5", "figure7", "figure8", "table4", "table6", "drafting", "anatomy")


def relabelled(name: str, label: str) -> tuple[Experiment, Suite]:
    """An experiment and the mini suite, every label of theirs ``label`` with a number behind it."""
    suite, experiment, replace = load_suite("mini"), load_experiment(name), dataclasses.replace

    def each(records: dict[str, Any]) -> dict[str, Any]:
        return {key: replace(one, label=f"{label} {number}") for number, (key, one) in enumerate(records.items())}

    parts = {table: each(getattr(suite, table)) for table in ("targets", "drafters", "benchmarks")}
    look = experiment.look
    words = {key: f"{label} {key}" for key in ("x_label", "y_label", "right_label") if getattr(look, key, "")}
    series = tuple(replace(one, label="") for one in experiment.series)
    return (
        replace(experiment, title=label, look=replace(look, **words), series=series),
        replace(suite, title=label, scale_axis=label, **parts),
    )


def composed(name: str, label: str) -> Drawing:
    experiment, suite = relabelled(name, label)
    return compose(experiment, suite, OPTIONS, measure(expand(experiment, suite, OPTIONS), suite), with_paper=True)


@pytest.mark.parametrize("label", [UNBROKEN, "a long label of many words " * 8, ""], ids=["unbroken", "words", "empty"])
def test_labels_of_any_length_stay_on_the_page_and_off_each_other(label: str) -> None:
    for name in KINDS:
        figure = laid_out(composed(name, label))
        check_places(name, figure)
        texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert len(texts) == len(set(texts)), "two entries of a legend look the same"


@pytest.mark.parametrize("space", ["\n", "\n\n", "\t", "\r\n", "\u2028", "\u00a0", "   "])
def test_line_breaks_and_other_spaces_are_one_space(space: str, tmp_path: Path) -> None:
    experiment, suite = relabelled("table4", f"a{space}b")
    results = measure(expand(experiment, suite, OPTIONS), suite)
    render(experiment, suite, OPTIONS, results, tmp_path)
    with (tmp_path / "mini" / "table4.csv").open(newline="") as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    assert {label.rpartition(" ")[0] for label in labels} == {"a b"}
    plain = tmp_path / "plain"
    render(*relabelled("table4", "a b"), OPTIONS, results, plain)
    assert (tmp_path / "mini/table4.tex").read_text() == (plain / "mini/table4.tex").read_text()


@pytest.mark.parametrize("label", ["$x_1$ 100 % \\frac{", "_hidden", "Ünïcödé Ω мод ≥ ½ ™", "#&~^"])
def test_letters_that_mean_something_elsewhere_are_letters_here(label: str) -> None:
    figure = laid_out(composed("figure5", label))
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sum(text.startswith(label) for text in texts) == 6
    check_places("figure5", figure)


@pytest.mark.parametrize(
    ("label", "letter"),
    [
        ("我的模型", "我"),
        ("my 模型", "模"),
        ("ひらがな", "ひ"),
        ("한국어", "한"),
        ("🙂 model", "🙂"),
        ("model 🚀", "🚀"),
        ("สวัสดี", "ส"),
        ("हिन्दी", "ह"),
        ("نموذج", "ن"),
        ("מודל", "מ"),
        ("bell\x07", "\x07"),
        ("esc\x1b[31m", "\x1b"),
        ("zero\u200bwidth", "\u200b"),
        ("turned \u202eround", "\u202e"),
    ],
)
def test_what_cannot_be_drawn_is_named(label: str, letter: str) -> None:
    assert undrawable(label) == letter
    experiment, suite = load_experiment("figure5"), load_suite("mini")
    points = expand(experiment, suite, OPTIONS)
    for table, name in (("drafters", "prism"), ("targets", points[0].target), ("benchmarks", "qa")):
        records = getattr(suite, table)
        bad = dataclasses.replace(
            suite, **{table: {**records, name: dataclasses.replace(records[name], label=f"good {label}")}}
        )
        with pytest.raises(ConfigError) as caught:
            check_labels(experiment, bad, points)
        assert f"{table}.{name}.label" in caught.value.what
        assert f"U+{ord(letter):04X}" in caught.value.what
        assert str(caught.value).isprintable() or "\n  " in str(caught.value)
        assert letter.isprintable() or letter not in str(caught.value)
    for key in ("title", "scale_axis"):
        with pytest.raises(ConfigError, match=rf"suite mini: {key}: "):
            check_labels(experiment, dataclasses.replace(suite, **{key: label}), points)
    with pytest.raises(ConfigError, match=r"experiment figure5: title: "):
        check_labels(dataclasses.replace(experiment, title=label), suite, points)


def test_what_is_not_drawn_may_have_any_label() -> None:
    experiment, suite = load_experiment("figure5"), load_suite("mini")
    hass2 = dataclasses.replace(suite.drafters["hass2"], label="我的模型")
    other = dataclasses.replace(suite, drafters={**suite.drafters, "hass2": hass2})
    check_labels(experiment, other, expand(experiment, other, OPTIONS))


@pytest.mark.parametrize("verb", ["run", "render", "plan"])
@pytest.mark.parametrize(("key", "label"), [("label", "我的模型"), ("label", "🙂"), ("title", "نموذج")])
def test_a_command_refuses_it_before_anything_is_done(
    verb: str, key: str, label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import prism_ae.suites

    text = (Path(prism_ae.suites.__file__).parent / "mini.toml").read_text()
    old = 'label = "PRISM"' if key == "label" else next(line for line in text.splitlines() if line.startswith("title"))
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, f'{key} = "{label}"').replace('name = "mini"', 'name = "mine"'))
    out, runs = tmp_path / "out", tmp_path / "runs"
    words = [verb, "figure5", "--suite", str(path), "--runs-dir", str(runs), "--models-dir", str(tmp_path)]
    code = entry.run([*words, *(() if verb == "plan" else ("--out", str(out)))])
    said = capsys.readouterr().err
    assert (code, said.count("error: ")) == (3, 1), said
    assert f"{path}: " in said
    assert ("drafters.prism.label" if key == "label" else "title") in said
    assert f"U+{ord(label[0]):04X}" in said
    assert not list(tmp_path.rglob("*.pdf"))
    assert not runs.exists()


def test_shortened_keeps_both_ends_and_fits() -> None:
    assert shortened("PRISM", 3, 15) == "PRISM"
    for width in (0.5, 1.0, 3.0):
        cut = shortened(f"A{UNBROKEN}Z", width, 15)
        assert width_of(cut, 15) <= width
        assert cut.startswith("Ax")
        assert cut.count("…") == 1
        assert width_of(cut, 15) > width - 3 * width_of("x", 15), "there was room for more"
    assert shortened(f"A{UNBROKEN}Z", 3, 15).endswith("Z")


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    text = f"a word, {UNBROKEN} and {UNBROKEN}{UNBROKEN}, end"
    lines = wrap(text, 3, 10)
    assert all(width_of(line, 10) <= 3 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("", 3, 10) == []
