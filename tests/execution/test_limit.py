"""What a worker records beside a timed cell: the device's bandwidth, once, and the sizes of what was measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import shells

from prism_ae.cells import Cell, EngineSettings, Fingerprints, Point, Result, Sample, TreeShape
from prism_ae.devices.slots import Slot
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.sizes import Decoding, sizes
from prism_ae.engines.protocol import Assignment
from prism_ae.execution.limit import Limit, mean_context
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")
TREE = TreeShape(2, 1, 3)
POINT = Point(
    "mini", "mini-llama-2", "prism", "8x", "qa", 0.0, TREE, "sglang", 1, 2, 96, 512, 42, "bfloat16"
)  # fmt: skip
HEAD = DrafterConfig("eagle", dataclasses.replace(shells.CONFIG, num_hidden_layers=1))


def sample(name: str, prompt: int, generated: int, turns: int = 1) -> Sample:
    return Sample(name, turns, prompt, generated, (), ("end",) * turns, 0.1, 0.2, "0")


RESULT = Result((sample("a", 30, 10), sample("b", 60, 20)), 1.0, EngineSettings(torch="2", others={"rows": 1}))


class Measuring:
    """Counts how often the bandwidth is asked for."""

    def __init__(self, answer: float | None = 5e9) -> None:
        self.answer, self.asked = answer, []

    def __call__(self, device: str, threads: int) -> float | None:
        self.asked.append((device, threads))
        return self.answer


def limit(measuring: Measuring) -> Limit:
    return Limit(MINI, Slot("cpu slot 0", "cpu", "a cpu", 2, {}), measuring)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shells.write_target(tmp_path / "target", "llama-2")
    shells.write_drafter(tmp_path / "drafter")
    return tmp_path


def recorded(measuring: Measuring, folder: Path, **changes: object) -> dict[str, object]:
    """What is in the settings in the end."""
    point = dataclasses.replace(POINT, **changes)
    drafter = {"vanilla": None, "standard": folder / "target"}.get(point.drafter, folder / "drafter")
    cell = Cell(point, Fingerprints("t", None, "p", "e", "v"))
    assignment = Assignment((cell,), folder / "target", drafter)
    one = limit(measuring)
    one.prepare(assignment)
    asked = list(measuring.asked)
    one.prepare(assignment)
    found = one.recorded(cell, assignment, RESULT)
    assert measuring.asked == asked, "once, and before the cell"
    assert found.samples == RESULT.samples
    return found.settings.to_json()


def test_bandwidth_and_sizes_stand_beside_what_the_engine_said(folder: Path) -> None:
    measuring = Measuring()
    found = recorded(measuring, folder)
    assert measuring.asked == [("cpu", 2)]
    assert (found["torch"], found["rows"], found["bandwidth"]) == ("2", 1, 5e9)
    context = (10 * (30 + 5) + 20 * (60 + 10)) / 30
    assert found["sizes"] == sizes(shells.CONFIG, HEAD, TREE, Decoding(1, context, 2))
    assert json.loads(json.dumps(found)) == found


def test_numbers_have_the_width_of_the_cells_dtype_and_a_batch_its_contexts(folder: Path) -> None:
    context = mean_context(RESULT.samples)
    found = recorded(Measuring(), folder, dtype="float32", batch=4)
    assert found["sizes"] == sizes(shells.CONFIG, HEAD, TREE, Decoding(4, context, 4))


def test_vanilla_and_a_model_of_its_own(folder: Path) -> None:
    how = Decoding(1, mean_context(RESULT.samples), 2)
    plain = recorded(Measuring(), folder, drafter="vanilla", tree=None)
    assert plain["sizes"] == sizes(shells.CONFIG, None, None, how)
    standard = recorded(Measuring(), folder, drafter="standard", scale=None)
    assert standard["sizes"] == sizes(shells.CONFIG, shells.CONFIG, TREE, how)


def test_what_is_not_known_is_not_there(folder: Path) -> None:
    """A target that is no Llama, which SGLang may serve; a device that cannot be measured."""
    data = json.loads((folder / "target" / "config.json").read_text())
    (folder / "target" / "config.json").write_text(json.dumps(data | {"architectures": ["QwenForCausalLM"]}))
    found = recorded(Measuring(None), folder)
    assert not {"bandwidth", "sizes"} & set(found)


@pytest.mark.parametrize("changes", [{"batch": None}, {"engine": "fake"}])
def test_nothing_is_measured_for_cells_without_time_or_models(folder: Path, changes: dict[str, object]) -> None:
    measuring = Measuring()
    assert recorded(measuring, folder, **changes) == RESULT.settings.to_json()
    assert measuring.asked == []


def test_the_context_is_that_of_the_tokens() -> None:
    """Two turns: each has half of the prompts and of the tokens."""
    assert mean_context([sample("a", 100, 40, turns=2)]) == 50 + 10
    assert mean_context([sample("a", 10, 30), sample("b", 100, 10)]) == (30 * (10 + 15) + 10 * (100 + 5)) / 40
    assert mean_context([sample("a", 10, 0)]) == 0
