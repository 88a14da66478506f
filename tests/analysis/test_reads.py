"""How near to the memory's limit: from a cell's settings to MBU and predicted speed-up, over several cells."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from measurements import made_up, make_point

from prism_ae.analysis.estimates import Summary, summarise
from prism_ae.analysis.quantities import DECODE_SPEED_UP, LIMIT, SPEED
from prism_ae.analysis.results import Measured, results_of
from prism_ae.cells import Point

DRAFTED = {"round_bytes": 3e6, "drafter_parameters": 500, "drafter_active_parameters": 250}
BASE: dict[str, Any] = {"target_step_bytes": 2e6, "target_parameters": 4000, "target_active_parameters": 3900}
BENCHMARKS = ("gsm8k", "qa")


def points(drafter: str) -> list[Point]:
    return [make_point(drafter=drafter, benchmark=name, batch=1, questions=7) for name in BENCHMARKS]


def sized(point: Point, factor: float = 1.0, **changes: Any) -> Measured:
    own = BASE | (DRAFTED if point.tree else {})
    settings = {"bandwidth": 4e8, "sizes": own | {"round_bytes": factor * 3e6} if point.tree else own} | changes
    return made_up(point, settings=settings)


def summaries(results: dict[Point, Measured]) -> dict[str, Summary]:
    found = summarise(results_of(list(results), results), (*SPEED, *LIMIT))
    return {summary.place.drafter: summary for summary in found}


def test_bytes_over_seconds_over_what_the_device_reads() -> None:
    """Recomputed from the samples, the two benchmarks' rounds together; the second reads twice as much in a round."""
    own, plain = points("prism"), points("vanilla")
    results = {point: sized(point, 1 + number) for number, point in enumerate(own)}
    results |= {point: sized(point) for point in plain}
    found = summaries(results)
    rounds = [sum(sample.rounds for sample in results[point].samples) for point in own]
    tokens = [sum(s.generated_tokens - s.turns for s in results[point].samples) for point in (*own, *plain)]
    seconds = [sum(sample.decode_seconds for sample in results[point].samples) for point in (*own, *plain)]
    read = 3e6 * rounds[0] + 6e6 * rounds[1]
    prism, vanilla = found["prism"].values, found["vanilla"].values
    assert prism["read_bytes"].value == pytest.approx(read / sum(rounds))
    assert prism["mbu"].value == pytest.approx(read / sum(seconds[:2]) / 4e8)
    assert vanilla["read_bytes"].value == 2e6
    assert vanilla["mbu"].value == pytest.approx(2e6 * sum(tokens[2:]) / sum(seconds[2:]) / 4e8)
    per_round = sum(tokens[:2]) / sum(rounds)
    assert prism["predicted_speed_up"].value == pytest.approx(per_round / (read / sum(rounds) / 2e6))
    assert prism["mbu"].bounds is not None
    assert (prism["parameters"].value, prism["active_parameters"].value) == (500, 250)
    assert prism["parameter_share"].value == pytest.approx(500 / 4000)
    assert (vanilla["parameters"].value, vanilla["active_parameters"].value) == (4000, 3900)
    assert not {"parameter_share", "predicted_speed_up"} & set(vanilla)


def test_where_time_is_bytes_the_prediction_is_what_is_measured() -> None:
    """Every step and round takes as long as its bytes take: MBU is 1, and both speed-ups are one."""
    results = {}
    for point in (*points("prism"), *points("vanilla")):
        cell = sized(point)
        size = cell.settings["sizes"]["round_bytes" if point.tree else "target_step_bytes"]
        samples = tuple(
            dataclasses.replace(s, decode_seconds=(s.rounds or s.generated_tokens - s.turns) * size / 4e8)
            if s.rounds or not point.tree
            else dataclasses.replace(s, decode_seconds=0.0)
            for s in cell.samples
        )
        results[point] = dataclasses.replace(cell, samples=samples)
    found = summaries(results)
    assert found["prism"].values["mbu"].value == pytest.approx(1)
    assert found["vanilla"].values["mbu"].value == pytest.approx(1)
    measured = found["prism"].values[DECODE_SPEED_UP.name]
    assert found["prism"].values["predicted_speed_up"].value == pytest.approx(measured.value)


NAMES = {quantity.name for quantity in LIMIT}


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"bandwidth": None}, {"mbu"}),
        ({"bandwidth": "fast"}, {"mbu"}),
        ({"bandwidth": 0}, {"mbu"}),
        ({"sizes": None}, NAMES),
        ({"sizes": {}}, NAMES),
        ({"sizes": {**BASE, **DRAFTED, "drafter_parameters": -1}}, {"parameters", "parameter_share"}),
    ],
)
def test_what_a_cell_does_not_say_is_missing(changes: dict[str, Any], missing: set[str]) -> None:
    """Of one of the two benchmarks: nothing is made of the other alone."""
    own, plain = points("prism"), points("vanilla")
    results = {point: sized(point) for point in (*own, *plain)} | {own[1]: sized(own[1], **changes)}
    assert NAMES - set(summaries(results)["prism"].values) == missing
    assert "round_seconds" in summaries(results)["prism"].values
