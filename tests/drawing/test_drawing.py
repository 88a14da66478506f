"""Figures as a reader gets them: what is drawn is what was measured, holes show, nothing overlaps, bytes repeat."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from layout import check_places, laid_out
from matplotlib.collections import LineCollection
from synthetic import measure, render

from prism_ae.analysis.quantities import AL_MACRO, AL_MICRO
from prism_ae.analysis.results import Measured, columns_of
from prism_ae.cells import Point, Sample, TreeShape
from prism_ae.errors import StoreError
from prism_ae.experiments.compose import Drawing, compose
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.io import atomic
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

FEW = Options(questions=3, controls=False)
ENOUGH = Options(questions=8, controls=False)
"""For intervals."""
NAMES = [name for name in experiment_names() if not load_experiment(name).timed]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("mini")


def measured(name: str, suite: Suite, options: Options, drop: str = "") -> dict[Point, Measured]:
    points = expand(load_experiment(name), suite, options)
    return measure([point for point in points if not (drop and re.search(drop, str(point)))], suite)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_three_files_appear(suite: Suite, tmp_path: Path) -> None:
    options = Options(questions=3, scales=("1x", "8x"))
    paths = render(load_experiment("figure9"), suite, options, measured("figure9", suite, options), tmp_path)
    assert paths == [tmp_path / "mini" / f"figure9.{kind}" for kind in ("pdf", "csv", "json")]
    assert sorted(path.name for path in (tmp_path / "mini").iterdir()) == sorted(path.name for path in paths)


@pytest.mark.parametrize("name", ["figure1", "figure4", "figure5", "figure10"])
def test_the_csv_says_what_the_axes_show(suite: Suite, tmp_path: Path, name: str) -> None:
    """Every line's points and every interval, panel by panel, against the rows of the file."""
    experiment = load_experiment(name)
    results = measured(name, suite, FEW, drop="drafter='hass', scale='4x', benchmark='qa'")
    drawing = compose(experiment, suite, FEW, results, with_paper=True)
    render(experiment, suite, FEW, results, tmp_path, with_paper=True)
    quantity = {"figure1": "acceptance_rate"}.get(name, "al_macro")
    rows = [row for row in read(tmp_path / "mini" / f"{name}.csv") if row["quantity"] == quantity]
    scales = {scale.name: scale.value for scale in suite.scales}
    figure = laid_out(drawing)
    seen = 0
    for panel, axes in zip(drawing.page.content.panels, figure.axes, strict=True):
        for layer, count in (("measured", len(panel.curves)), ("paper", len(panel.paper))):
            lines = [line for line in axes.lines if line.get_gid() == layer]
            assert len(lines) == count
            for curve, line in zip(panel.curves if layer == "measured" else panel.paper, lines, strict=True):
                mine = [
                    row
                    for row in rows
                    if row["layer"] == layer
                    and (row["target"], row["drafter"]) == (curve.target, curve.drafter)
                    and float(row["temperature"]) == curve.temperature
                    and row["benchmark"] == (curve.benchmark or "mean")
                ]
                seen += len(mine)
                xs = [scales.get(row["scale"]) if name != "figure1" else float(row["position"]) for row in mine]
                assert xs == list(line.get_xdata())
                values = [float(row["value"] or "nan") for row in mine]
                np.testing.assert_array_equal(values, line.get_ydata())
        bars = [
            tuple(segment[:, 1])
            for part in axes.collections
            if isinstance(part, LineCollection)
            for segment in part.get_segments()
        ]
        keys = {(curve.target, curve.drafter, curve.temperature, curve.benchmark or "mean") for curve in panel.curves}
        intervals = [
            (float(row["low"]), float(row["high"]))
            for row in rows
            if row["low"] and (row["target"], row["drafter"], float(row["temperature"]), row["benchmark"]) in keys
        ]
        assert sorted(bars) == sorted(intervals)
    assert seen == len(rows)


def test_values_are_al_macro_of_the_cells_named(suite: Suite, tmp_path: Path) -> None:
    options = Options(questions=5, targets=("llama-2",), scales=("2x",))
    results = measured("figure4", suite, options)
    render(load_experiment("figure4"), suite, options, results, tmp_path)
    by_id = {result.cell_id: columns_of(result.samples) for result in results.values()}
    rows = read(tmp_path / "mini" / "figure4.csv")
    assert {row["cell_ids"] for row in rows} == set(by_id)
    for row in rows:
        values = {each.name: by_id[row["cell_ids"]].value(each) for each in (AL_MACRO, AL_MICRO)}
        assert values["al_macro"] != values["al_micro"]
        assert float(row["value"]) == values[row["quantity"]]
        assert row["questions"] == "5"


def test_a_hole_is_a_gap_a_count_and_a_line_in_the_caption(suite: Suite, tmp_path: Path) -> None:
    experiment = load_experiment("figure5")
    results = measured("figure5", suite, FEW, drop="drafter='prism', scale='4x', benchmark='qa', temperature=0")
    render(experiment, suite, FEW, results, tmp_path)
    said = json.loads((tmp_path / "mini" / "figure5.json").read_text())
    assert said["cells"] == {"asked": 180, "measured": 179}
    assert said["title"].endswith("179 of 180 cells")
    assert said["missing"] == [
        {"target": "mini-llama-3", "drafter": "prism", "scale": "4x", "benchmark": "qa", "temperature": 0.0}
    ]
    assert "PRISM: 1 cell is not measured." in said["caption"]
    holes = [row for row in read(tmp_path / "mini" / "figure5.csv") if row["value"] == ""]
    assert [hole["quantity"] for hole in holes] == ["al_macro", "al_micro"]
    for hole in holes:
        assert (hole["drafter"], hole["scale"], hole["cells_asked"], hole["cells_measured"]) == (
            "prism",
            "4x",
            "6",
            "5",
        )
    figure = laid_out(compose(experiment, suite, FEW, results))
    gaps = [np.isnan(line.get_ydata()).sum() for line in figure.axes[0].lines if line.get_gid() == "measured"]
    assert sorted(gaps) == [0, 0, 0, 0, 0, 1]


def test_an_unmeasured_drafter_is_named_with_its_reason() -> None:
    paper = load_suite("paper")
    results = measured("figure6", paper, FEW, drop="drafter='(hass3|prism)'")
    drawing = compose(load_experiment("figure6"), paper, FEW, results)
    caption = [text.text for text in drawing.page.small_print]
    assert "HASS-3: 60 cells are not measured: the authors published no HASS-3 checkpoint." in caption
    labels = [text.get_text() for legend in laid_out(drawing).legends for text in legend.get_texts()]
    assert "HASS-3 (not measured)" in labels
    assert "HASS-2" in labels
    assert drawing.page.title.text.endswith("60 of 180 cells")


def test_the_authors_rope_base_is_said_where_it_is_drawn() -> None:
    paper = load_suite("paper")
    said = (
        "As in the authors' own runs (--paper-compat): EAGLE-3 drafts with the RoPE base that its config.json "
        "names, not with the one it was trained with."
    )
    claims = []
    for imitated in (True, False):
        options = dataclasses.replace(FEW, paper_compat=imitated)
        drawing = compose(load_experiment("figure5"), paper, options, measured("figure5", paper, options))
        assert (said in [text.text for text in drawing.page.small_print]) == imitated
        assert len(drawing.results.done) == len(drawing.results.points)
        claims.append([(len(one.contrasts), one.measured) for one in drawing.verdicts])
    assert claims[0] == claims[1]


def test_nothing_measured_is_still_a_figure(suite: Suite, tmp_path: Path) -> None:
    for name in ("figure1", "figure4", "figure6"):
        render(load_experiment(name), suite, Options(), {}, tmp_path)
        said = json.loads((tmp_path / "mini" / f"{name}.json").read_text())
        assert said["cells"]["measured"] == 0
        assert {claim["verdict"] for claim in said["claims"]} == {"incomplete"}


def test_a_trend_that_does_not_show_is_said_on_the_figure(suite: Suite) -> None:
    """PRISM's and EAGLE-2's answers exchanged."""
    results = measured("figure4", suite, ENOUGH)
    other = {"prism": "eagle2", "eagle2": "prism"}
    swapped = {
        point: results[dataclasses.replace(point, drafter=other.get(point.drafter, point.drafter))] for point in results
    }
    for data, word in ((results, "reproduced"), (swapped, "contradicted")):
        drawing = compose(load_experiment("figure4"), suite, ENOUGH, data)
        (text,) = (t for t in drawing.page.small_print if t.text.startswith("Claim F4a: "))
        assert f": {word} (" in text.text
        assert text.warning == (word == "contradicted")


def test_the_papers_values_are_a_labelled_layer_on_request(suite: Suite) -> None:
    experiment = load_experiment("figure5")
    results = measured("figure5", suite, FEW)
    without = compose(experiment, suite, FEW, results)
    assert without.material.known == ()
    assert "paper's values" not in " ".join(text.text for text in without.page.small_print)
    drawing = compose(experiment, suite, FEW, results, with_paper=True)
    assert len({(each.drafter, each.temperature) for each in drawing.material.known}) == 3 * 2
    assert any("of other models" in text.text for text in drawing.page.small_print)
    labels = [text.get_text() for legend in laid_out(drawing).legends for text in legend.get_texts()]
    assert "pale: the paper's values" in labels
    # A mean over six benchmarks is no reference for one over two.
    fewer = Options(questions=3, benches=("qa", "sum"))
    some = compose(experiment, suite, fewer, results, with_paper=True)
    assert some.material.known == ()
    assert any("paper's values are not drawn" in text.text for text in some.page.small_print)
    # Nor are values of another draft tree.
    chain = Options(questions=3, trees=(TreeShape(6, 1, 7),))
    other = compose(experiment, suite, chain, measured("figure5", suite, chain), with_paper=True)
    assert other.material.known == ()


def test_one_question_has_no_error_bars_and_the_caption_says_so(suite: Suite) -> None:
    one = Options(questions=1, scales=("1x", "2x"), benches=("qa",))
    drawing = compose(load_experiment("figure5"), suite, one, measured("figure5", suite, one))
    caption = " ".join(text.text for text in drawing.page.small_print)
    assert "1 question per benchmark. No intervals: they need 5 questions of each benchmark." in caption
    assert "Student" not in caption
    assert not [
        item for axes in laid_out(drawing).axes for item in axes.collections if isinstance(item, LineCollection)
    ]


@pytest.mark.parametrize(
    ("dtype", "faults", "ties", "says", "warns"),
    [
        ("float32", None, "", "Lossless decoding is not seen: 1 of 4 texts are not the same", True),
        ("float16", None, "", "Not examined whether lossless up to rounding: 1 of 4 texts are not the same", False),
        ("float16", 0, "ab", "Lossless up to rounding: 1 of 4 texts are not the same", False),
        ("float16", 0, "aa", "Lossless decoding is not seen: 1 of 4 texts are not the same", True),
    ],
)
def test_the_caption_says_whether_all_drafters_wrote_the_same_texts(
    suite: Suite, dtype: str, faults: int | None, ties: str, says: str, warns: bool
) -> None:
    experiment, options = load_experiment("figure9"), Options(benches=("qa",), questions=2, dtype=dtype)

    def examined(sample: Sample, token: str) -> Sample:
        near = ((0, 2, "0123abcd", ord(token)),) if token else ()
        return dataclasses.replace(sample, faults=faults, near_ties=near)

    results = {
        point: dataclasses.replace(result, samples=tuple(examined(one, ties[:1]) for one in result.samples))
        for point, result in measured("figure9", suite, options).items()
    }
    same = compose(experiment, suite, options, results)
    said = [text for text in same.page.small_print if text.text.startswith("Lossless: each of 4 texts is the same")]
    assert [text.warning for text in said] == [False]
    point, result = next(iter(results.items()))
    sample = dataclasses.replace(examined(result.samples[0], ties[1:]), output_sha256="1" * 64)
    results[point] = dataclasses.replace(result, samples=(sample, *result.samples[1:]))
    parted = compose(experiment, suite, options, results)
    said = [text for text in parted.page.small_print if "1 of 4 texts are not the same" in text.text]
    assert [text.warning for text in said] == [warns]
    assert said[0].text.startswith(says)
    assert ("near ties" in said[0].text) != warns  # half precision turns them
    assert ("--dtype float32 tells" in said[0].text) == (dtype == "float16" and faults is None)
    assert ("1 tie within rounding, 0 faults" in said[0].text) == (ties == "ab")
    assert ("0 ties within rounding, 1 fault." in said[0].text) == (ties == "aa")


def test_the_caption_warns_of_tokens_that_were_not_the_targets(suite: Suite) -> None:
    """Also where every drafter wrote the same text."""
    experiment, options = load_experiment("figure9"), Options(benches=("qa",), questions=2, dtype="float16")
    results = measured("figure9", suite, options)
    point, result = next(iter(results.items()))
    samples = (dataclasses.replace(result.samples[0], faults=3), *result.samples[1:])
    results[point] = dataclasses.replace(result, samples=samples)
    drawing = compose(experiment, suite, options, results)
    said = [text for text in drawing.page.small_print if "3 tokens of these answers" in text.text]
    assert [text.warning for text in said] == [True]
    assert json.loads(drawing.as_json())["texts"]["wrong_tokens"] == 3


def test_the_caption_says_what_was_done(suite: Suite) -> None:
    options = Options(questions=3, trees=(TreeShape(3, 2, 6),), benches=("qa",), controls=True)
    results = measured("figure10", suite, options)
    drawing = compose(load_experiment("figure10"), suite, options, results, notes=("Recipes: as published.",))
    caption = " ".join(text.text for text in drawing.page.small_print)
    for piece in (
        "Mini suite: tiny models trained here, their own numbers.",
        "Target mini-LLaMA-3",
        "draft tree 3,2,6",
        "engine torch (PyTorch 2.13.0), float32, on CPU",
        "newest measurement 2026-11-21",
        "acceptance length (macro)",
        "Natural Ques. only",
        "3 questions per benchmark",
        "Asked differently from the experiment's file: --benches qa --questions 3 --tree 3,2,6 --controls",
        "Recipes: as published.",
    ):
        assert piece in caption
    controls = [style for style in drawing.page.styles.values() if style.control]
    assert [style.label for style in controls] == [
        suite.drafters[name].label for name in ("hass_cont", "hass_star", "hass_star_cont")
    ]


def test_several_trainings_are_drawn_as_their_mean(suite: Suite) -> None:
    """At the scales that have several; the interval is over them, too, and the caption says so."""
    experiment, seeds = load_experiment("figure9"), dataclasses.replace(ENOUGH, seeds=2)
    results = measured("figure9", suite, seeds)
    assert {point.training_seed for point in results} == {0, 1}
    drawing = compose(experiment, suite, seeds, results)
    single = [
        compose(
            experiment, suite, ENOUGH,
            {dataclasses.replace(p, training_seed=0): r for p, r in results.items() if p.training_seed == seed},
        )
        for seed in (0, 1)
    ]  # fmt: skip
    for both, first, second in zip(
        drawing.material.summaries, *(one.material.summaries for one in single), strict=True
    ):
        values = [one.values["al_macro"].value for one in (first, second) if one.values]
        assert len(values) == (2 if both.place.scale in suite.seed_scales else 1)
        assert both.values["al_macro"].value == pytest.approx(sum(values) / len(values))
        assert both.values["al_macro"].seeds == len(values)
    assert "questions and 2 training seeds" in " ".join(text.text for text in drawing.page.small_print)


def test_a_drafter_that_the_figure_does_not_know_is_drawn_in_a_style_of_its_own(suite: Suite) -> None:
    options = Options(questions=3, drafters=("prism", "hass2"))
    drawing = compose(load_experiment("figure5"), suite, options, measured("figure5", suite, options))
    assert drawing.page.styles["hass2"].label == "HASS-2"
    assert drawing.page.styles["hass2"].color != drawing.page.styles["prism"].color


def _pages(suite: Suite) -> Iterator[tuple[str, Drawing]]:
    long = ("A long note. " * 40,)
    for name in NAMES:
        options = Options(questions=3, controls=True)
        results = measured(name, suite, options)
        yield f"{name} full", compose(load_experiment(name), suite, options, results, with_paper=True, notes=long)
        one = Options(questions=3, benches=("humaneval",), scales=("4x",))
        results = measured(name, suite, one, drop="drafter='prism'")
        yield f"{name} one", compose(load_experiment(name), suite, one, results)
    options = Options(questions=3, targets=("llama-2", "llama-3"), temperatures=(0, 0.5, 1))
    for name in ("figure1", "figure10"):
        yield f"{name} wide", compose(load_experiment(name), suite, options, measured(name, suite, options))


def test_no_text_is_cut_off_or_lies_on_another(suite: Suite) -> None:
    for name, drawing in _pages(suite):
        figure = laid_out(drawing)
        check_places(name, figure)


def test_tick_labels_are_exact(suite: Suite) -> None:
    """The artifact prints 5.25 as 5.2; a label here is the tick's own value. Scales are spaced by value."""
    for name in ("figure1", "figure4", "figure5"):
        figure = laid_out(compose(load_experiment(name), suite, FEW, measured(name, suite, FEW)))
        for axes in figure.axes:
            for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
                if label.get_text():
                    position = label.get_position()
                    value = position[0] if label in axes.get_xticklabels() else position[1]
                    assert float(label.get_text()) == pytest.approx(value, abs=1e-9)
        if name != "figure1":
            assert list(figure.axes[0].get_xticks()) == [1, 2, 4, 6, 8]


SCRIPT = """
import sys
sys.path[:0] = [{folder!r}, {folder!r} + "/.."]
from pathlib import Path
from layout import check_places, laid_out
from synthetic import measure, render
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite
suite, options, experiment = load_suite("mini"), Options(questions=3, controls=True), load_experiment("figure5")
measured = measure(expand(experiment, suite, options), suite)
render(experiment, suite, options, measured, Path({out!r}), with_paper=True)
"""


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    """In other processes, with other hash seeds, at another time."""
    found: list[Mapping[str, bytes]] = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        code = SCRIPT.format(folder=str(Path(__file__).parent), out=str(out))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        found.append({path.name: path.read_bytes() for path in (out / "mini").iterdir()})
    assert found[0] == found[1]
    assert b"CreationDate" not in found[0]["figure5.pdf"]


def test_fonts_are_embedded_as_truetype(suite: Suite, tmp_path: Path) -> None:
    options = Options(questions=3, scales=("1x",))
    pdf = render(load_experiment("figure9"), suite, options, measured("figure9", suite, options), tmp_path)[0]
    content = pdf.read_bytes()
    fonts = set(re.findall(rb"/BaseFont /([\w+-]+)", content))
    assert fonts
    assert all(re.fullmatch(rb"[A-Z]{6}\+STIXGeneral(-\w+)?", font) for font in fonts)
    assert content.count(b"/FontFile2") == len(fonts)
    assert b"/Type3" not in content


def test_metadata_names_the_cells(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(questions=3, scales=("1x",))
    results = measured("figure9", suite, options)
    arguments = (load_experiment("figure9"), suite, options, results, tmp_path)
    content = render(*arguments)[0].read_bytes()
    assert all(result.cell_id.encode() in content for result in results.values())
    monkeypatch.setattr("prism_ae.experiments.render.MOST_IDS", 5)
    content = render(*arguments)[0].read_bytes()
    assert not any(result.cell_id.encode() in content for result in results.values())
    assert re.search(rb"24 cells, sha256 [0-9a-f]{64}", content)
    assert b"figure9.csv" in content


def test_a_folder_that_cannot_be_written(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        render(load_experiment("figure9"), suite, FEW, {}, tmp_path / "file")


def test_a_full_disk_leaves_the_old_figure(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("figure9")
    paths = render(experiment, suite, FEW, {}, tmp_path)
    before = [path.read_bytes() for path in paths]
    write = atomic.write_new

    def full(path: Path, data: bytes) -> None:
        if ".pdf" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(atomic, "write_new", full)
    with pytest.raises(StoreError, match=r"cannot write .*figure9\.pdf: No space left"):
        render(experiment, suite, FEW, measured("figure9", suite, FEW), tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(path.name for path in (tmp_path / "mini").iterdir()) == sorted(path.name for path in paths)


def test_a_users_matplotlib_settings_do_not_change_a_figure(suite: Suite, tmp_path: Path) -> None:
    arguments = (load_experiment("figure9"), suite, FEW, {})
    plain = render(*arguments, tmp_path / "plain")[0].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "pdf.fonttype": 3}):
        assert render(*arguments, tmp_path / "styled")[0].read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_at_one_scale_open_markers_tell_temperatures_apart(suite: Suite) -> None:
    """No line joins single points, so that line styles would say nothing; they stand side by side in the panel."""

    def faces(options: Options) -> dict[float, set[str]]:
        drawing = compose(load_experiment("figure4"), suite, options, measured("figure4", suite, options))
        figure = laid_out(drawing)
        found: dict[float, set[str]] = {}
        for axes, panel in zip(figure.axes, drawing.page.content.panels, strict=True):
            lines = [line for line in axes.lines if line.get_gid() == "measured"]
            places = [line.get_window_extent().x0 for line in lines]
            assert len({round(place) for place in places}) == len(places)
            assert axes.bbox.x0 <= min(places) <= max(places) <= axes.bbox.x1
            for line, curve in zip(lines, panel.curves, strict=True):
                same = line.get_markerfacecolor() == line.get_color()
                found.setdefault(curve.temperature, set()).add("filled" if same else "open")
        return found

    assert faces(Options(questions=3, scales=("1x",))) == {0.0: {"filled"}, 1.0: {"open"}}
    everyone = ("eagle2", "hass", "prism", "prism_star", "hass2", "hass3", "eagle3", "hass_cont")
    faces(Options(questions=3, scales=("8x",), benches=("qa",), drafters=everyone))
    assert faces(Options(questions=3, scales=("1x", "8x"), benches=("qa",))) == {0.0: {"filled"}, 1.0: {"filled"}}
