"""Where an answer ends, by both engines on one folder: ends that only one file names, and windows that targets and
drafters end differently."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from sglang_prism.sglang_models import Place, make_place

from prism_ae.cells import Result
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.torch_engine import TorchEngine

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, or the plugin's entry point, is not installed",
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("models"))


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data.get("layer", data).update(changes)
    path.write_text(json.dumps(data))


def outcome(results: Sequence[Result]) -> list[tuple[Any, ...]]:
    return [
        (sample.question_id, sample.output_sha256, sample.stops, sample.generated_tokens, sample.histogram)
        for result in results
        for sample in result.samples
    ]


def both(place: Place, drafters: Sequence[str | None], **changes: Any) -> list[list[tuple[Any, ...]]]:
    """Per drafter the outcome, which must be the same by both engines; vanilla is None."""
    found = []
    for drafter in drafters:
        tree = None if drafter is None else "5,4,16"
        kind = drafter or "vanilla"
        cells = [place.cell(kind, tree, benchmark=name, **changes) for name in place.suite.benchmarks]
        by_torch = outcome(place.measure(TorchEngine(place.suite, place.folder, "cpu", 1), cells))
        engine = SGLangEngine(place.suite, place.folder, "cpu", 1)
        try:
            by_sglang = outcome(place.measure(engine, cells))
        finally:
            engine.close()
        assert by_sglang == by_torch
        found.append([one[:4] for one in by_torch])
    return found


def test_ends_that_generation_config_alone_names(place: Place, tmp_path: Path) -> None:
    """A letter that the target writes often ends its answers; without that file they are longer."""
    longer, _ = both(place, [None, "prism"])
    models = tmp_path / "models"
    shutil.copytree(place.folder, models)
    vocabulary = json.loads((models / "target/tokenizer.json").read_text())["model"]["vocab"]
    ends = [vocabulary[letter] for letter in "aeio" if letter in vocabulary]
    (models / "target/generation_config.json").write_text(json.dumps({"eos_token_id": [2, *ends]}))
    vanilla, drafted = both(Place(place.suite, models), [None, "prism"])
    assert vanilla == drafted
    assert sum(one[3] for one in vanilla) < sum(one[3] for one in longer)


def test_windows_are_the_targets(place: Place, tmp_path: Path) -> None:
    """Drafters with fewer and with more positions than the target, and answers that reach its last one."""
    models = tmp_path / "models"
    shutil.copytree(place.folder, models)
    positions = json.loads((models / "target/config.json").read_text())["max_position_embeddings"]
    window = 60
    assert window < positions
    change(models / "target", max_position_embeddings=window)
    change(models / "prism", max_position_embeddings=40)
    change(models / "eagle2", max_position_embeddings=4096)
    vanilla, *drafted = both(
        Place(place.suite, models), [None, "prism", "eagle2"], max_length=window, max_new_tokens=window
    )
    assert all(one == vanilla for one in drafted)
    assert "window" in {stop for one in vanilla for stop in one[2]}
