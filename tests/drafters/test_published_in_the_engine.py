"""A published drafter reads the hidden states that the target's record names for its kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from published import CAPTURE, make_drafter, make_target, write

from prism_ae.engines.pairs import make_pair
from prism_ae.models.checkpoints import save_target
from prism_ae.suites.load import load_suite


@pytest.mark.parametrize(("case", "capture"), [("torch prism_star", CAPTURE), ("torch eagle3", (0, 1, 2))])
def test_each_kind_reads_its_own_states(tmp_path: Path, case: str, capture: tuple[int, ...]) -> None:
    model = make_target()
    (tmp_path / "target").mkdir()
    save_target(tmp_path / "target", model)
    drafter = tmp_path / "drafter"
    drafter.mkdir()
    write(drafter, case, make_drafter(case.split()[1], model))
    record = load_suite("mini").targets["mini-llama-2"]
    record = dataclasses.replace(record, capture=CAPTURE, eagle3_capture=(0, 1, 2))
    assert make_pair(record, tmp_path / "target", drafter, "draft-head", "torch").capture == capture
