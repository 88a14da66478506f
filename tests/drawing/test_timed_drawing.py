"""Figures 7 and 8 and the tables as a reader gets them: what is drawn was measured, holes show, nothing overlaps."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from layout import check_places, laid_out
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from synthetic import measure, render

from prism_ae.analysis.results import Measured
from prism_ae.cells import Point, TreeShape
from prism_ae.drawing.latex import as_latex, escaped
from prism_ae.drawing.table import Row, Table, TableCell
from prism_ae.errors import UsageError
from prism_ae.experiments.compose import Drawing, compose
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import experiment_names, load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

MINI, PAPER = (dataclasses.replace(load_suite(name), repeats=1) for name in ("mini", "paper"))
FEW = Options(questions=3)
SOME = Options(questions=4, batch_sizes=(2, 4))
TABLES = ("table4", "table5", "table6", "table7", "drafting", "anatomy")


def measured(name: str, options: Options, drop: str = "", suite: Suite = MINI) -> dict[Point, Measured]:
    points = expand(load_experiment(name), suite, options)
    return measure([point for point in points if not (drop and re.search(drop, str(point)))], suite)


def composed(
    name: str, options: Options, drop: str = "", suite: Suite = MINI, paper: bool = False, **more: Any
) -> Drawing:
    found = measured(name, options, drop, suite)
    return compose(load_experiment(name), suite, options, found, with_paper=paper, **more)


def written(name: str, options: Options, folder: Path, drop: str = "", **how: Any) -> list[dict[str, str]]:
    render(load_experiment(name), MINI, options, measured(name, options, drop), folder, **how)
    with (folder / "mini" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table(drawing: Drawing) -> Table:
    assert isinstance(drawing.page.content, Table)
    return drawing.page.content


def caption(drawing: Drawing) -> str:
    return " ".join(text.text for text in drawing.page.small_print)


def tps(cells: list[Measured]) -> float:
    """The paper's: the mean over benchmarks of generated tokens over wall seconds."""
    return sum(sum(s.generated_tokens for s in cell.samples) / cell.wall_seconds for cell in cells) / len(cells)


def test_bars_are_mean_tps_over_vanillas_mean_tps(tmp_path: Path) -> None:
    """Heights and numbers of figure 7 recomputed from the samples; bars start at 0."""
    results = measured("figure7", SOME)
    drawing = compose(load_experiment("figure7"), MINI, SOME, results)
    figure = laid_out(drawing)
    bars = [bar for group in figure.axes[0].containers for bar in group]
    expected, speeds = {}, {}
    for drafter in ("vanilla", "prism", "eagle2"):
        for batch in (2, 4):
            cells = [c for p, c in results.items() if (p.drafter, p.batch) == (drafter, batch)]
            assert len(cells) == 6
            speeds[drafter, batch] = tps(cells)
    for drafter in ("prism", "eagle2"):
        for batch in (2, 4):
            expected[drafter, batch] = speeds[drafter, batch] / speeds["vanilla", batch]
    assert [bar.get_height() for bar in bars] == pytest.approx(list(expected.values()))
    assert {bar.get_y() for bar in bars} == {0.0}
    assert figure.axes[0].get_ylim()[0] == 0
    texts = [text.get_text() for text in figure.texts]
    assert {f"{speed:,.1f}" for speed in speeds.values()} <= set(texts)
    assert {f"{value:.2f}×" for value in expected.values()} == {text.get_text() for text in figure.axes[0].texts}
    rows = written("figure7", SOME, tmp_path)
    found = {(row["drafter"], int(row["batch"])): float(row["value"]) for row in rows if row["quantity"] == "tps"}
    assert found == pytest.approx(speeds)


def test_repeats_are_counted_and_what_spreads_is_said(tmp_path: Path) -> None:
    """EAGLE-2's times hang on the first measurement, all others took half as long again: its cells are unstable."""
    several = dataclasses.replace(SOME, repeats=3)
    found = measured("figure7", several)
    for point, cell in found.items():
        if point.drafter == "eagle2" and point.repeat:
            samples = tuple(dataclasses.replace(s, decode_seconds=1.5 * s.decode_seconds) for s in cell.samples)
            found[point] = dataclasses.replace(cell, samples=samples)
    drawing = compose(load_experiment("figure7"), MINI, several, found)
    said = caption(drawing)
    assert "12 of 36 times are unstable (EAGLE-2 8x): without one of their measurements they would be more" in said
    assert re.search(r"than 3% longer, up to \d+%\. Other programs", said), said
    assert re.search(r"places that were taken, in the mean over the cells: \d+% of 2, \d+% of 4", said)
    rows = list(csv.DictReader(io.StringIO(drawing.rows.to_csv(index=False))))
    mine = [row for row in rows if row["layer"] == "measured"]
    counted = {(row["repeats"], row["cells_asked"], row["cells_measured"]) for row in mine}
    assert counted == {("3", "18", "18")}
    assert {(row["drafter"], row["unstable"]) for row in mine} == {("vanilla", "0"), ("prism", "0"), ("eagle2", "6")}
    holes = composed("figure7", several, drop="repeat=2")
    assert holes.page.title.text.endswith(": 72 of 108 cells")
    assert all(not row["value"] for row in holes.rows.to_dict("records") if row["quantity"] == "tps")
    assert any(row["value"] for row in holes.rows.to_dict("records") if row["quantity"] == "al_micro")


def test_every_ratio_stands_beside_what_it_divides(tmp_path: Path) -> None:
    """Vanilla's values are rows of their own, found by the ids that a ratio's row names."""
    seen = 0
    for name in ("figure7", "figure8", "table6", "drafting"):
        options = dataclasses.replace(SOME if name == "figure7" else FEW, targets=("llama-2",))
        rows = [row for row in written(name, options, tmp_path) if row["value"]]
        values = {(row["cell_ids"], row["quantity"]): float(row["value"]) for row in rows}
        for row in rows:
            own, plain = row["cell_ids"], row["vanilla_cell_ids"]
            if row["quantity"] == "speed_up":
                expected = values[own, "tps"] / values[plain, "tps"]
            elif row["quantity"] == "round_cost":
                expected = values[own, "round_seconds"] / values[plain, "step_seconds"]
            elif row["quantity"] == "decode_speed_up" and row["tree"]:
                expected = values[own, "tokens_per_round"] / values[own, "round_cost"]
            else:
                continue
            seen += 1
            assert float(row["value"]) == pytest.approx(expected), (name, row["quantity"])
    assert seen > 100


def test_trees_are_bars_and_a_line_with_gaps() -> None:
    trees = (TreeShape(3, 2, 6), TreeShape(6, 4, 16), TreeShape(8, 8, 64))
    drawing = composed("figure8", Options(questions=4, trees=trees), drop="verified=16")
    left, right = laid_out(drawing).axes
    lengths = [entry.values["al_micro"].value for entry in drawing.material.summaries if entry.values]
    assert [bar.get_height() for group in left.containers for bar in group] == lengths
    assert left.get_ylim()[0] == right.get_ylim()[0] == 0
    (line,) = (line for line in right.lines if line.get_gid() == "measured")
    speeds = [entry.values["tps"].value if entry.values else None for entry in drawing.material.summaries]
    assert [None if y != y else y for y in line.get_ydata()] == speeds  # NaN is the gap
    assert speeds[1] is None
    assert len([line for line in left.lines if line.get_gid() == "hole"]) == 1
    assert [label.get_text() for label in left.get_xticklabels()] == ["3,2,6", "6,4,16", "8,8,64"]
    assert left.containers[0][0].get_facecolor()[:3] == pytest.approx(matplotlib.colors.to_rgb("#82b0d2"))
    assert matplotlib.colors.to_hex(line.get_color()) == "#fa7f6f"


def test_a_hole_in_figure_7_is_a_cross_a_dash_and_a_red_title(tmp_path: Path) -> None:
    drawing = composed("figure7", SOME, drop="'prism'.*'qa'.*batch=4")
    figure = laid_out(drawing)
    assert len([line for line in figure.axes[0].lines if line.get_gid() == "hole"]) == 1
    assert len([bar for group in figure.axes[0].containers for bar in group]) == 3
    assert [text.get_text() for text in figure.texts].count("–") == 1
    assert drawing.page.title.warning
    assert drawing.page.title.text.endswith("35 of 36 cells")
    assert "PRISM: 1 cell is not measured." in caption(drawing)
    (verdict,) = (each for each in drawing.verdicts if each.claim.id == "F7a")
    assert (len(verdict.contrasts), verdict.measured, verdict.verdict) == (2, 1, "incomplete")
    written("figure7", SOME, tmp_path, drop="'prism'.*'qa'.*batch=4")
    (missing,) = json.loads((tmp_path / "mini" / "figure7.json").read_text())["missing"]
    assert (missing["batch"], missing["drafting"], missing["tree"]) == (4, "exact", "6,4,16")


def test_without_vanilla_there_is_no_bar_but_the_speed_is_said() -> None:
    drawing = composed("figure7", SOME, drop="'vanilla'.*batch=4")
    figure = laid_out(drawing)
    assert len([line for line in figure.axes[0].lines if line.get_gid() == "hole"]) == 2
    assert [text.get_text() for text in figure.texts].count("–") == 1


def body(found: Table) -> list[list[str]]:
    """Texts of the body's rows, a cell of several columns once."""
    return [[cell.text for cell in row] for block in found.blocks for row in block]


def test_table_6_says_its_cells() -> None:
    drawing = composed("table6", FEW)
    found = table(drawing)
    lines = body(found)
    head = [cell.text for cell in found.head[1]]
    methods = ["Vanilla", "Standard", "EAGLE-2", "HASS", "PRISM", "PRISM*"]
    assert head == ["Benchmark", "", *methods, *methods]
    assert [line[0] for line in lines if line[0]] == [
        *(benchmark.label for benchmark in MINI.benchmarks.values()), "Mean over 6",
    ]  # fmt: skip
    entries = {
        (drawing.material.styles[e.place.drafter].label, e.place.temperature, e.place.benchmark): e
        for e in drawing.material.summaries
    }
    names = list(MINI.benchmarks)
    for number, line in enumerate(lines[:12]):
        for column, text in enumerate(line[2:]):
            entry = entries[head[2 + column], float(column // 6), names[number // 2]]
            quantity, form = (("al_micro", "{:.2f}"), ("tps", "{:,.1f}"))[number % 2]
            vanilla_length = entry.vanilla and quantity == "al_micro"
            assert text == ("N/A" if vanilla_length else form.format(entry.values[quantity].value))
    assert [line[1] for line in lines[12:]] == ["AL", "TPS", "Speed-up", "Round cost", "Decode"]
    assert lines[14][2] == "1.00×"
    mean = entries["PRISM", 0.0, None]
    assert [line[6] for line in lines[14:]] == [
        f"{mean.values['speed_up'].value:.2f}×",
        f"{mean.values['round_cost'].value:.2f}",
        f"{mean.values['decode_speed_up'].value:.2f}×",
    ]


def test_table_4_has_the_same_numbers_on_rows() -> None:
    drawing = composed("table4", FEW)
    found = table(drawing)
    assert found.columns == 3 + 6 * 2 + 5
    for block, (target, temperature) in zip(
        found.blocks, [(t, T) for t in ("mini-llama-2", "mini-llama-3") for T in (0.0, 1.0)], strict=True
    ):
        asked = [*load_experiment("table4").drafters, *load_experiment("table4").added]
        record = MINI.targets[target]
        for row, drafter in zip(block, [d for d in asked if MINI.drafters[d].exists_for(record)], strict=True):
            entries = [
                e
                for e in drawing.material.summaries
                if (e.place.target, e.place.temperature, e.place.drafter) == (target, temperature, drafter)
            ]
            assert len(entries) == 7
            speeds = [f"{speed.value:,.1f}" if (speed := entry.values.get("tps")) else "–" for entry in entries]
            assert ("–" in speeds) == (drafter == "lookup")
            assert [cell.text for cell in row[4:17:2]] == speeds


def test_what_the_papers_table_has_not_is_marked_and_disturbs_nothing_of_the_papers() -> None:
    asked = load_experiment("table4")
    drawing = composed("table4", FEW, paper=True)
    labels = {row[2] for row in body(table(drawing))}
    assert {f"{MINI.drafters[name].label}†" for name in asked.added} <= labels
    assert {MINI.drafters[name].label for name in asked.drafters} <= labels
    assert not {MINI.drafters[name].label for name in asked.added} & labels
    assert "† Not in the paper's table: added here." in caption(drawing)
    alone = composed("table4", dataclasses.replace(FEW, drafters=asked.drafters), paper=True)
    assert drawing.material.known == alone.material.known
    assert len(alone.material.known) == sum(len(curve.y) for curve in asked.paper.values)
    assert "†" not in caption(alone)


def test_prompt_lookup_has_an_acceptance_length_and_no_speed(tmp_path: Path) -> None:
    """Measured by another engine, without a time: nothing of it may be taken for a speed."""
    drawing = composed("table4", FEW, paper=True)
    (first, *_) = (row for row in body(table(drawing)) if row[2] == "Prompt lookup†")
    shown = dict(zip([cell.text for cell in table(drawing).head[1]][3:], first[3:], strict=True))
    assert {name for name, text in shown.items() if text == "–"} == {"TPS", "Speed-up", "Round cost", "Decode"}
    entries = [e for e in drawing.material.summaries if e.place.drafter == "lookup"]
    assert {name for e in entries for name in e.values} == {"al_micro", "al_macro", "tokens_per_round"}
    assert f"{entries[0].values['al_micro'].value:.2f}" == first[3]
    assert not drawing.page.title.warning
    said = caption(drawing)
    assert "draft tree 6,4,16 (steps, branch, verified)" in said
    assert (
        "Prompt lookup† drafts, without a model, what followed the last 3 to 1 tokens where they occurred last" in said
    )
    assert (
        "a chain of up to 6 tokens. Its acceptance is measured by the engine torch, and no speed: SGLang's own" in said
    )
    rows = written("table4", FEW, tmp_path)
    valued = {row["quantity"] for row in rows if row["drafter"] == "lookup" and row["value"]}
    assert valued == {"al_micro", "al_macro", "tokens_per_round"}


def test_a_suite_that_has_none_of_the_added_drafters_fills_the_table() -> None:
    asked = load_experiment("table4")
    few = {name: record for name, record in MINI.drafters.items() if name not in asked.added}
    drawing = composed("table4", FEW, suite=dataclasses.replace(MINI, drafters=few))
    assert {e.place.drafter for e in drawing.material.summaries} == set(asked.drafters)


def bold(row: Row) -> list[bool]:
    return [cell.bold for cell in row]


def test_the_best_is_bold_and_the_cheapest_round_is_the_best() -> None:
    found = table(composed("table6", Options(questions=3, temperatures=(0,))))
    rows = [row for block in found.blocks for row in block]
    for row in rows:
        values = [float(cell.text.strip("×").replace(",", "")) for cell in row[2:] if cell.text != "N/A"]
        best = min(values) if row[1].text == "Round cost" else max(values)
        marked = {float(cell.text.strip("×").replace(",", "")) for cell in row[2:] if cell.bold}
        assert marked == {best}


def test_holes_of_a_table_are_dashes_and_take_the_means_with_them() -> None:
    lines = body(table(composed("table6", Options(questions=3, temperatures=(0,)), drop="'hass'.*'qa'")))
    column = 2 + load_experiment("table6").drafters.index("hass")
    assert [line[column] for line in lines[10:]] == ["–"] * 7
    assert "–" not in {line[column] for line in lines[:10]}


def test_one_benchmark_has_no_mean_beside_it() -> None:
    options = Options(questions=3, benches=("qa",), temperatures=(0,))
    assert [line[0] for line in body(table(composed("table6", options)))] == ["Natural Ques.", "", "", "", ""]
    found = table(composed("table4", options))
    assert found.columns == 3 + 5


def test_acceptance_lengths_are_micro_unless_macro_is_asked_for() -> None:
    """Of the same cells: it is a choice of the view."""
    found = measured("table6", FEW)
    for al in ("micro", "macro"):
        drawing = compose(load_experiment("table6"), MINI, dataclasses.replace(FEW, al=al), found)
        entry = next(e for e in drawing.material.summaries if e.place.drafter == "prism")
        assert f"{entry.values['al_micro'].value:.2f}" != f"{entry.values['al_macro'].value:.2f}"
        assert body(table(drawing))[0][6] == f"{entry.values[f'al_{al}'].value:.2f}"
        assert f"acceptance length ({al})" in caption(drawing)


def test_every_imitated_choice_is_said() -> None:
    said = caption(composed("table6", Options(questions=3, paper_compat=True)))
    for piece in (
        "CUDA graphs are captured for batch 1 only",
        "decoded greedily at T > 0, too",
        "on a prefix cache that holds its prompts",
    ):
        assert piece in said
        assert piece not in caption(composed("table6", FEW))


def test_the_title_names_the_device_that_was_measured() -> None:
    results = {p: dataclasses.replace(r, device="NVIDIA H200") for p, r in measured("table4", FEW).items()}
    drawing = compose(load_experiment("table4"), MINI, FEW, results)
    assert drawing.page.title.text == "Table 4: Acceptance length and tokens per second on NVIDIA H200 (mini suite)"
    nothing = compose(load_experiment("table4"), MINI, FEW, {})
    assert nothing.page.title.text.endswith("per second (mini suite): 0 of 204 cells")
    assert "A800" not in nothing.page.title.text


def test_two_devices_are_a_warning_and_no_ratio() -> None:
    results = measured("figure7", SOME)
    mixed = {
        p: dataclasses.replace(r, device="another") if p.drafter == "vanilla" and p.batch == 2 else r
        for p, r in results.items()
    }
    drawing = compose(load_experiment("figure7"), MINI, SOME, mixed)
    (warning,) = (text for text in drawing.page.small_print if "2 devices" in text.text)
    assert warning.warning
    assert {(e.place.batch, "speed_up" in e.values) for e in drawing.material.summaries if not e.vanilla} == {
        (2, False),
        (4, True),
    }


def test_the_way_of_drafting_is_said_and_never_mixed() -> None:
    for way, words in (("exact", "Drafted exactly"), ("stock", "SGLang's own drafting")):
        options = dataclasses.replace(FEW, drafting=way)
        for name in ("figure8", "table6"):
            assert words in caption(composed(name, options))
    for name in ("figure7", "figure8", "table4", "table7"):
        both = dataclasses.replace(SOME if name == "figure7" else FEW, drafting="both")
        with pytest.raises(UsageError, match="draws one way of drafting"):
            compose(load_experiment(name), MINI, both, {})


def test_drafting_compares_the_same_questions() -> None:
    drawing = composed(
        "drafting", Options(questions=6, drafters=("prism",), targets=("llama-2",), benches=("qa", "sum"))
    )
    exact, own, apart, interval = body(table(drawing))
    assert [row[2] for row in (exact, own, apart, interval)] == ["exact", "SGLang's own", "difference", "95 % interval"]
    found = {(e.place.drafting, e.place.benchmark): e for e in drawing.material.summaries if not e.vanilla}
    for number, benchmark in enumerate(("sum", "qa", None)):
        lengths = [found[way, benchmark].values["al_micro"].value for way in ("exact", "stock")]
        rounds = [1000 * found[way, benchmark].values["round_seconds"].value for way in ("exact", "stock")]
        for column, (one, other) in ((3 + 2 * number, lengths), (4 + 2 * number, rounds)):
            assert (exact[column], own[column]) == (f"{one:.2f}", f"{other:.2f}")
            assert apart[column] == f"{one - other:+.2f}".replace("-", "−")
            low, high = (float(end.replace("−", "-")) for end in interval[column].split(" … "))
            assert low < one - other + 0.01
            assert high > one - other - 0.01


def test_a_difference_is_bold_where_its_interval_leaves_out_0() -> None:
    """Every round of the stock loop made slower by a fifth."""
    options = Options(questions=6, drafters=("prism",), targets=("llama-2",), benches=("qa",))
    results = measured("drafting", options)
    exact = next(point for point in results if point.tree and point.drafting == "exact")
    slower = tuple(dataclasses.replace(s, decode_seconds=1.2 * s.decode_seconds) for s in results[exact].samples)
    stock = next(point for point in results if point.drafting == "stock")
    results[stock] = dataclasses.replace(results[exact], samples=slower, cell_id="other")
    rows = [
        row for block in table(compose(load_experiment("drafting"), MINI, options, results)).blocks for row in block
    ]
    assert bold(rows[2]) == [False, False, False, False, True]
    assert (rows[2][3].text, rows[3][3].text) == ("+0.00", "+0.00 … +0.00")


def test_a_drafter_without_a_checkpoint_for_a_target_has_no_rows() -> None:
    """One-hidden-state PRISM is published for LLaMA-2 alone; the paper's values of it can still be drawn."""
    drop = "'hass3'|'prism3'|'prism'.*'800k'.*llama-3|llama-3.*'prism'"
    drawing = composed("table4", FEW, drop=drop, suite=PAPER, paper=True)
    names = {(entry.place.target, entry.place.drafter) for entry in drawing.material.summaries}
    assert ("llama-2-7b-chat", "prism") in names
    assert ("llama-3-8b-instruct", "prism") not in names
    assert "PRISM is not among LLaMA-3-8B's methods: the authors published no torch checkpoint" in caption(drawing)
    assert not drawing.page.title.warning
    assert ("llama-3-8b-instruct", "hass2") in names
    assert not {"hass3", "prism3"} & {drafter for _, drafter in names}
    assert "HASS-3 is not among LLaMA-3-8B's methods: the authors published no HASS-3 checkpoint" in caption(drawing)
    assert len(drawing.results.points) == 144 - 12 + 4 * 12
    printed = [line for line in body(table(drawing)) if line[2] == "PRISM, paper"]
    assert [line[3:5] for line in printed] == [["4.29", "201.5"]]


def test_a_checkpoint_that_is_published_but_not_here_is_a_plain_hole() -> None:
    said = caption(composed("figure7", SOME, drop="'prism'", suite=PAPER))
    assert "PRISM: 12 cells are not measured." in said


def test_the_papers_values_are_labelled_and_only_on_request() -> None:
    for name in ("figure7", "figure8", "table4", "table6", "table7"):
        options = SOME if name == "figure7" else FEW
        assert composed(name, options).material.known == ()
        drawing = composed(name, options, paper=True)
        assert drawing.material.known
        assert "Grey: the paper's values, not measured here, of other models" in caption(drawing)
    cells = [cell for row in table(composed("table4", FEW, paper=True)).rows for cell in row]
    assert {"HASS, paper", "HASS, re-run"} <= {cell.text for cell in cells if cell.pale}
    # Of other benchmarks or another tree there are none.
    for options in (Options(questions=4, benches=("qa",)), Options(questions=4, trees=(TreeShape(3, 2, 6),))):
        other = composed("figure7", dataclasses.replace(options, batch_sizes=(2,)), paper=True)
        assert other.material.known == ()
        assert "The paper's values are not drawn: none is known for what was asked here." in caption(other)
    assert "The paper's values are not drawn: none is known." in caption(composed("table5", FEW, paper=True))


def test_the_caption_says_how_it_was_served() -> None:
    said = caption(composed("figure7", SOME, notes=("A note.",)))
    for piece in (
        "draft tree 6,4,16",
        "training scale 8x",
        "engine sglang (SGLang 0.5.17, PyTorch 2.13.0), float32, on CPU; CUDA graphs none (eager), prefix cache off, "
        "overlapped scheduling off, requests in flight 64",
        "TPS: generated tokens / wall seconds of the whole run, prefill included",
        "No intervals: they need 5 questions of each benchmark",
        "Asked differently from the experiment's file: --questions 4 --batch-size 2 --batch-size 4",
        "A note.",
    ):
        assert piece in said
    assert "each time was measured once" in caption(composed("figure8", Options(questions=5)))
    results = measured("figure8", FEW)
    graphs = {p: dataclasses.replace(r, settings={**r.settings, "cuda_graphs": [1, 2, 4]}) for p, r in results.items()}
    assert "CUDA graphs for batches 1 2 4" in caption(compose(load_experiment("figure8"), MINI, FEW, graphs))


def test_differing_greedy_texts_are_a_warning_in_float32_alone() -> None:
    for suite, warned in ((MINI, True), (PAPER, False)):
        results = measured("figure8", FEW, suite=suite)
        point, result = next(iter(results.items()))
        other = dataclasses.replace(result.samples[0], output_sha256="1" * 64)
        results[point] = dataclasses.replace(result, samples=(other, *result.samples[1:]))
        drawing = compose(load_experiment("figure8"), suite, FEW, results)
        (said,) = (text for text in drawing.page.small_print if "1 of 3 texts are not the same" in text.text)
        assert said.warning == warned


def test_a_table_is_four_files_and_a_figure_three(tmp_path: Path) -> None:
    for name, kinds in (("table6", ("csv", "json", "pdf", "tex")), ("figure8", ("csv", "json", "pdf"))):
        paths = render(load_experiment(name), MINI, FEW, measured(name, FEW), tmp_path / name)
        assert sorted(path.name for path in paths) == [f"{name}.{kind}" for kind in kinds]
        again = render(load_experiment(name), MINI, FEW, measured(name, FEW), tmp_path / "again")
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_nothing_measured_is_still_a_page(tmp_path: Path) -> None:
    for name in ("figure7", "figure8", *TABLES):
        options = Options(questions=32) if name == "figure7" else FEW
        render(load_experiment(name), MINI, options, {}, tmp_path)
        said = json.loads((tmp_path / "mini" / f"{name}.json").read_text())
        assert said["cells"]["measured"] == 0
        assert {claim["verdict"] for claim in said["claims"]} <= {"incomplete"}


def test_vanilla_alone_is_refused_where_there_is_nothing_to_draw() -> None:
    only = Options(questions=3, drafters=("vanilla",))
    for name in ("figure8", "drafting"):
        with pytest.raises(UsageError, match="nothing to draw of vanilla"):
            compose(load_experiment(name), MINI, only, {})


@pytest.mark.parametrize("name", TABLES)
def test_latex_is_well_formed(name: str, tmp_path: Path) -> None:
    render(load_experiment(name), MINI, FEW, measured(name, FEW, drop="'hass'.*'qa'"), tmp_path, with_paper=True)
    text = (tmp_path / "mini" / f"{name}.tex").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    code = "\n".join(lines)
    columns = len(re.fullmatch(r"\\begin\{tabular\}\{@\{\}([lc]+)@\{\}\}", lines[0])[1])  # type: ignore[index]
    assert columns == table(composed(name, FEW)).columns
    assert lines[1] == r"\toprule"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines if line.endswith(r"\\")]
    for row in rows:
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        cells = len(re.findall(r"(?<!\\)&", row)) + 1
        assert cells + sum(spans) - len(spans) == columns, row
    assert set(re.findall(r"\\([a-z]+)", code)) <= {
        "begin", "end", "toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "textbf", "textit", "times",
        "ldots", "dag",
    }  # fmt: skip
    assert code.count("{") == code.count("}")
    assert not re.search(r"(?<!\\)[#_%^~]", code)
    assert code.isascii()
    assert len(rows) == len(table(composed(name, FEW, paper=True)).rows)


def test_specials_are_escaped() -> None:
    assert escaped(r"a & b_1 50% {x} $2 #3 ~ ^ \n") == (
        r"a \& b\_1 50\% \{x\} \$2 \#3 \textasciitilde{} \textasciicircum{} \textbackslash{}n"
    )
    row = (TableCell("PRISM*"), TableCell("a & b", bold=True), TableCell("[1]", pale=True))
    text = as_latex(Table(1, (row,), ((row,),), (0.5, 0.2)), "100 %\nof it", ["a\nb"])
    assert r"PRISM{*} & \textbf{a \& b} & \textit{{[}1]} \\" in text
    assert text.startswith("% 100 % of it\n% a b\n")


def _pages() -> Iterator[tuple[str, Drawing]]:
    long = {"notes": ("A long note. " * 40,)}
    every = ("eagle2", "hass", "prism", "prism_star", "standard")
    for name in experiment_names():
        if load_experiment(name).timed:
            options = Options(questions=8, batch_sizes=(2, 4, 8)) if name == "figure7" else FEW
            yield f"{name} full", composed(name, options, paper=True, **long)
    wide = Options(questions=4, batch_sizes=(2, 4), targets=("llama-2", "llama-3"), temperatures=(0, 1), drafters=every)
    yield "figure7 wide", composed("figure7", wide, drop="'hass'.*batch=4")
    sizes = Options(questions=32, batch_sizes=(1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32), benches=("qa",))
    yield "figure7 many", composed("figure7", sizes)
    one = Options(questions=3, benches=("mt_bench",), targets=("llama-2",))
    for name in ("figure7", "figure8", "table4", "table6"):
        single = dataclasses.replace(one, batch_sizes=(2,)) if name == "figure7" else one
        yield f"{name} one", composed(name, single, drop="'prism'")
    yield "figure8 two", composed("figure8", dataclasses.replace(FEW, drafters=("hass", "prism"), temperatures=(0, 1)))
    yield "table6 two", composed("table6", dataclasses.replace(FEW, targets=("llama-2", "llama-3")), paper=True)
    yield "table4 paper", composed("table4", FEW, suite=PAPER, paper=True)


def _numbers_are_inside_their_panels(figure: Figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        panel = axes.get_window_extent(renderer)
        for text in axes.texts:
            box = text.get_window_extent(renderer)
            across = panel.x0 - 1 <= box.x0 and box.x1 <= panel.x1 + 1
            assert across, text.get_text()
            assert panel.y0 <= box.y0 < box.y1 <= panel.y1 + 1, text.get_text()


def test_no_text_is_cut_off_or_lies_on_another() -> None:
    for name, drawing in _pages():
        figure = laid_out(drawing)
        _numbers_are_inside_their_panels(figure)
        check_places(name, figure)


def test_turned_names_of_trees_stay_on_the_page_and_off_the_axis_label() -> None:
    figure = laid_out(composed("figure8", Options(questions=3, trees=(TreeShape(20, 16, 1024), TreeShape(3, 2, 6)))))
    renderer = FigureCanvasAgg(figure).get_renderer()
    labels = [label.get_window_extent(renderer) for label in figure.axes[0].get_xticklabels()]
    (title,) = (t.get_window_extent(renderer) for t in figure.texts if t.get_text().startswith("Configuration"))
    assert all(box.x0 >= 0 and box.y0 > title.y1 for box in labels)
