"""The table "anatomy" as a reader gets it: its numbers, what vanilla decoding has not, holes, the caption's warning."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from layout import check_places, laid_out
from synthetic import measure, render

from prism_ae.analysis.results import Measured
from prism_ae.cells import STAGES, Point
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.sizes import Decoding, sizes
from prism_ae.drawing.table import Table
from prism_ae.experiments.compose import Drawing, compose
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.models.config import LlamaConfig
from prism_ae.suites.load import load_suite

MINI, PAPER = load_suite("mini"), load_suite("paper")
FEW = Options(questions=3)
ANATOMY = load_experiment("anatomy")
TARGET = LlamaConfig(2048, 128, 256, 10, 4, 2, 1e-5, 1e4, 512)
ONE = dataclasses.replace(TARGET, num_hidden_layers=1)
HEADS = {
    "hass2": DrafterConfig("eagle", dataclasses.replace(ONE, num_hidden_layers=2)),
    "hass3": DrafterConfig("eagle", dataclasses.replace(ONE, num_hidden_layers=3)),
    "eagle3": DrafterConfig("eagle3", ONE, aux_hidden_layers=(2, 5, 7), draft_vocab_size=512),
    "prism": DrafterConfig("eagle", ONE, 2, (0, 1)),
    "prism_star": DrafterConfig("eagle", ONE, 2, (0, 1), (3, 6, 8)),
    "prism3": DrafterConfig("eagle", ONE, 3, (0, 1, 2)),
}
SHARES = (0.3, 0.5, 0.12, 0.06)
"""Of the decode seconds, by stage: 2 % are in none."""


def anatomical(points: list[Point], **settings: Any) -> dict[Point, Measured]:
    """Made-up results with stages, sizes and bandwidth."""
    found = {}
    for point, cell in measure(points, MINI).items():
        drafter = HEADS.get(point.drafter, DrafterConfig("eagle", ONE)) if point.tree else None
        said = {"bandwidth": 1.2e10, "sizes": sizes(TARGET, drafter, point.tree, Decoding(1, 80, 4))}
        shares = SHARES if point.tree else (0.0, 0.8, 0.12, 0.06)
        samples = tuple(
            dataclasses.replace(s, stage_seconds=tuple(share * s.decode_seconds for share in shares))
            for s in cell.samples
        )
        found[point] = dataclasses.replace(cell, samples=samples, settings={**cell.settings, **said, **settings})
    return found


def results(options: Options = FEW, **settings: Any) -> dict[Point, Measured]:
    return anatomical(list(expand(ANATOMY, MINI, options)), **settings)


def table(drawing: Drawing) -> Table:
    assert isinstance(drawing.page.content, Table)
    return drawing.page.content


def lines(drawing: Drawing) -> dict[tuple[str, str], dict[str, str]]:
    """Target and method -> column -> text."""
    found, head = table(drawing), [cell.text for cell in table(drawing).head[1]]
    rows = {}
    for block in found.blocks:
        for row in block:
            rows[block[0][0].text, row[1].text] = {key: cell.text for key, cell in zip(head, row, strict=True)}
    return rows


def caption(drawing: Drawing) -> str:
    return " ".join(text.text for text in drawing.page.small_print)


def test_every_number_is_its_quantity() -> None:
    drawing = compose(ANATOMY, MINI, FEW, results())
    rows = lines(drawing)
    assert len(rows) == 15
    for summary in drawing.material.summaries:
        place, values = summary.place, {name: each.value for name, each in summary.values.items()}
        row = rows[MINI.targets[place.target].label, MINI.drafters[place.drafter].label]
        whole = values["step_seconds" if summary.vanilla else "round_seconds"]
        assert row["round"] == f"{1000 * whole:.2f}"
        for stage, share in zip(STAGES, SHARES, strict=True):
            assert summary.vanilla or float(row[stage]) == pytest.approx(1000 * share * whole, abs=0.006)
        assert row["unexplained"] == "2.0 %"
        assert row["MBU"] == f"{100 * values['mbu']:.0f} %"
        assert row["all"] == f"{values['parameters'] / 1e6:.2f}"
        assert row["active"] == f"{values['active_parameters'] / 1e6:.2f}"
        assert row["MB"] == f"{values['read_bytes'] / 1e6:,.2f}"
        if summary.vanilla:
            assert {key for key, text in row.items() if text == "N/A"} == {
                "of target", "draft step", "cost", "tokens", "predicted",
            }  # fmt: skip
            assert row["measured"] == "1.00×"
            continue
        assert float(row["draft step"]) == pytest.approx(1000 * 0.3 * whole / 6, abs=0.006)
        assert row["of target"] == f"{100 * values['parameter_share']:.2f} %"
        assert row["cost"] == f"{values['round_cost']:.2f}"
        assert row["tokens"] == f"{values['tokens_per_round']:.2f}"
        assert row["predicted"] == f"{values['predicted_speed_up']:.2f}×"
        assert row["measured"] == f"{values['decode_speed_up']:.2f}×"


def test_capacity_costs_no_bytes() -> None:
    """PRISM has twice HASS's parameters and reads as much; HASS-2, about as large, reads more."""
    rows = lines(compose(ANATOMY, MINI, FEW, results()))
    hass, prism, stacked = (rows["mini-LLaMA-3", name] for name in ("HASS", "PRISM", "HASS-2"))
    assert float(prism["all"]) == pytest.approx(2 * float(hass["all"]), abs=0.02)
    assert prism["active"] == hass["active"]
    assert prism["MB"] == hass["MB"] < stacked["MB"]


def test_what_was_not_measured_is_a_dash() -> None:
    points = list(expand(ANATOMY, MINI, FEW))
    drawing = compose(ANATOMY, MINI, FEW, measure(points, MINI))
    row = lines(drawing)["mini-LLaMA-2", "PRISM"]
    assert [key for key, text in row.items() if text == "–"] == [
        "all", "of target", "active", "MB", "draft step", *STAGES, "unexplained", "MBU", "predicted",
    ]  # fmt: skip
    assert "MBU)" not in caption(drawing)
    nothing = lines(compose(ANATOMY, MINI, FEW, {}))["mini-LLaMA-2", "HASS"]
    assert {text for key, text in nothing.items() if key not in ("Target", "Method")} == {"–"}


def test_it_asks_for_table_4s_cells() -> None:
    """So that nothing is measured twice."""
    shared = set(load_experiment("table4").drafters) & set(ANATOMY.drafters)
    mine = {point for point in expand(ANATOMY, MINI, Options()) if point.drafter in shared}
    assert mine
    assert mine <= set(expand(load_experiment("table4"), MINI, Options()))


def test_several_temperatures_are_blocks_and_one_benchmark_is_its_own(tmp_path: Path) -> None:
    options = Options(questions=3, temperatures=(0, 1), targets=("llama-2",), benches=("qa",))
    drawing = compose(ANATOMY, MINI, options, results(options))
    assert [block[0][0].text for block in table(drawing).blocks] == ["mini-LLaMA-2, T = 0", "mini-LLaMA-2, T = 1"]
    render(ANATOMY, MINI, options, results(options), tmp_path)
    with (tmp_path / "mini" / "anatomy.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["drafter"] == "prism" and row["temperature"] == "1.0"]
    assert {"mbu", "read_bytes", "draft_step_seconds", "predicted_speed_up"} <= {row["quantity"] for row in rows}
    assert (tmp_path / "mini" / "anatomy.tex").exists()


@pytest.mark.parametrize("name", ["anatomy", "table6"])
@pytest.mark.parametrize(
    ("device", "share", "said", "warning"),
    [
        ("cuda:0", 0.48, "less than the usual", True),
        ("cuda:0", 0.52, "within the usual", False),
        ("cuda:0", 0.78, "within the usual", False),
        ("cuda:0", 0.82, "more than the usual", True),
        ("cpu", 0.3, "CPU's caches", False),
    ],
)
def test_how_near_vanilla_is_to_the_limit_is_said_and_warned_about_on_gpus(
    name: str, device: str, share: float, said: str, warning: bool
) -> None:
    """A made-up step takes 10.2 ms, give or take a hundredth."""
    step_bytes = sizes(TARGET, None, None, Decoding(1, 80, 4))["target_step_bytes"]
    experiment, options = load_experiment(name), Options(questions=3, temperatures=(0,), targets=("llama-2",))
    found = anatomical(list(expand(experiment, MINI, options)), device=device, bandwidth=step_bytes / 0.0102 / share)
    (text,) = (t for t in compose(experiment, MINI, options, found).page.small_print if "(MBU)" in t.text)
    assert said in text.text
    (percent,) = re.findall(r" (\d+) % of", text.text)
    assert abs(int(percent) - 100 * share) <= 1.5
    assert text.warning == warning


def test_nothing_on_its_page_lies_on_anything_else() -> None:
    for suite, options in ((MINI, FEW), (PAPER, Options(questions=3))):
        found = anatomical(list(expand(ANATOMY, suite, options))) if suite is MINI else {}
        check_places("anatomy", laid_out(compose(ANATOMY, suite, options, found)))
