"""A drafter without a folder in a plan: it is always here, and its options are part of every cell."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from raising import raises

from prism_ae.cells import Point
from prism_ae.engines.registry import problem
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.models.locate import DrafterKey, Located, Parameterless, locate_drafter
from prism_ae.planning.lookup import AssumeAvailable, LocalLookup
from prism_ae.planning.plan import make_plan, resolve
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Suite

MINI = load_suite("mini")
KEY = DrafterKey("mini-llama-2", "lookup", None)


def of(suite: Suite, folder: Path) -> str:
    found = LocalLookup(suite, folder).drafter(KEY)
    assert isinstance(found, Parameterless)
    assert found.path is None
    return found.fingerprint


def asked(name: str, **options: object) -> list[Point]:
    points = expand(load_experiment(name), MINI, Options(drafters=("lookup",), **options))  # type: ignore[arg-type]
    return [point for point in points if point.drafter == "lookup"]


def test_its_options_are_its_fingerprint(tmp_path: Path) -> None:
    wider = dataclasses.replace(MINI.drafters["lookup"], max_ngram=4)
    other = dataclasses.replace(MINI, drafters=MINI.drafters | {"lookup": wider})
    assert of(MINI, tmp_path) == of(MINI, tmp_path / "elsewhere") != of(other, tmp_path)
    with raises(ValueError, "lookup"):
        locate_drafter(MINI, KEY, tmp_path)


def test_its_cells_wait_for_the_target_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, lookup = asked("table4", repeats=1), LocalLookup(MINI, tmp_path)
    assert {one.reason for one in resolve(points, lookup).missing} == {
        "target mini-llama-2 is not trained yet", "target mini-llama-3 is not trained yet",
    }  # fmt: skip
    hopeful = AssumeAvailable(lookup)
    assert hopeful.drafter(KEY) == lookup.drafter(KEY)
    monkeypatch.setattr(lookup, "target", lambda target: Located(Path(target), target))
    monkeypatch.setattr(lookup, "prompts", lambda *of: "prompts")
    monkeypatch.setattr(lookup, "pair_problem", lambda point: None)
    resolved = resolve(points, lookup)
    assert {cell.fingerprints.drafter for cell in resolved.cells.values()} == {of(MINI, tmp_path)}
    (first, second) = make_plan(resolved, {}).assignments
    assert (first.drafter_path, str(first.tree), len(first.cells), len(second.cells)) == (None, "6,1,7", 12, 12)


def test_sglang_is_not_driven_for_it() -> None:
    (point, *_) = asked("figure7", batch_sizes=(1,))
    assert "NGRAM" in problem("sglang", point, "lookup")
    for figure in ("figure1", "table4"):
        assert problem("torch", asked(figure)[0], "lookup") == ""
