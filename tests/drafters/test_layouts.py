"""A drafter is the same one, whichever layout its authors published it in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published import CAPTURE, DRAFTERS, TARGET, WRITERS, make_drafter, make_target, write

from prism_ae.drafters.checkpoint import load_drafter, parameter_names
from prism_ae.drafters.layouts.read import read_config, read_drafter, read_layout
from prism_ae.drafters.layouts.records import TargetSizes, stored_shapes
from prism_ae.drafters.model import Drafter
from prism_ae.models.llama import causal, published_state

CPU = torch.device("cpu")
CASES = {case: kind for case, (kind, _) in WRITERS.items()} | {f"own {kind}": kind for kind in DRAFTERS}
SIZES = TargetSizes.of(TARGET)


def run(drafter: Drafter) -> list[torch.Tensor]:
    """Logits and token ids of four draft steps on random input."""
    torch.manual_seed(2)
    states = len(drafter.config.aux_hidden_layers) or 1
    embedding, features = torch.randn(2, 9, TARGET.hidden_size), torch.randn(2, 9, states * TARGET.hidden_size)
    rotation = drafter.rotary(torch.arange(20, 29)[None])
    hidden, results = drafter.project_hidden(features), []
    for step in range(4):
        hidden = drafter.step(step, embedding, hidden, rotation, causal)
        logits = drafter.logits(hidden)
        results += [logits, drafter.token_ids(logits.argmax(-1))]
    return results


@pytest.mark.parametrize("case", CASES)
def test_a_published_drafter_computes_what_its_original_does(tmp_path: Path, case: str) -> None:
    target = make_target()
    original = make_drafter(CASES[case], target)
    write(tmp_path, case, original)
    loaded = load_drafter(tmp_path, target, torch.float32, CPU, capture=CAPTURE)
    assert loaded.config == original.config == read_config(tmp_path, CAPTURE)
    for ours, theirs in zip(run(loaded), run(original), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", DRAFTERS)
def test_the_shapes_that_are_checked_are_those_of_the_model(kind: str) -> None:
    drafter = make_drafter(kind, make_target())
    state = published_state(drafter, parameter_names(drafter.config), drafter.config.layer)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if kind == "eagle3":
        expected["draft_ids"] = tuple(drafter.draft_ids.shape)
    assert stored_shapes(drafter.config) == expected


def test_a_drafter_is_read_without_a_model(tmp_path: Path) -> None:
    original = make_drafter("prism_star", make_target())
    write(tmp_path, "torch prism_star", original)
    stored = read_drafter(tmp_path, SIZES, CAPTURE)
    assert stored.layout == read_layout(tmp_path) == "torch-large-drafter"
    assert {name: tuple(tensor.shape) for name, tensor in stored.state.items()} == stored_shapes(original.config)
    assert "embed_tokens.weight" in stored.ignored
    assert "layers.0.mlp.up_proj.weight" in stored.ignored


def test_what_a_folder_holds_is_told_without_torch(tmp_path: Path) -> None:
    write(tmp_path, "sglang prism", make_drafter("prism", make_target()))
    code = (
        "import sys; from pathlib import Path; from prism_ae.drafters.layouts.read import read_layout;"
        "print(read_layout(Path(sys.argv[1])), 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True) == "sglang-ld False\n"
