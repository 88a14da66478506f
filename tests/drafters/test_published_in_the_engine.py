"""The torch engine gives a published drafter the hidden states that the target's record names for its kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from published import CAPTURE, make_drafter, make_target, write

from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.suites.load import load_suite


@pytest.mark.parametrize(("case", "capture"), [("torch prism_star", CAPTURE), ("torch eagle3", (0, 1, 2))])
def test_each_kind_reads_its_own_states(tmp_path: Path, case: str, capture: tuple[int, ...]) -> None:
    target = make_target()
    write(tmp_path, case, make_drafter(case.split()[1], target))
    suite = load_suite("mini")
    record = dataclasses.replace(suite.targets["mini-llama-2"], capture=CAPTURE, eagle3_capture=(0, 1, 2))
    engine = TorchEngine(dataclasses.replace(suite, targets={record.name: record}), tmp_path, "cpu", 1)
    asked: Any = SimpleNamespace(
        drafter_path=tmp_path, cells=(SimpleNamespace(point=SimpleNamespace(target=record.name, compat=())),)
    )
    loaded: Any = SimpleNamespace(model=target, dtype=torch.float32)
    drafter = engine._load_drafter(asked, loaded)
    assert drafter is not None
    assert drafter.config.capture == capture
