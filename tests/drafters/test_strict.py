"""What a layout does not say about a drafter's files is an error that names the tensor and the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import (
    AUTHORS_PLACE,
    CAPTURE,
    DRAFTERS,
    TARGET,
    WRITERS,
    State,
    change_config,
    make_drafter,
    make_target,
    read_state,
    write,
    write_state,
)
from raising import raises

from prism_ae.drafters.layouts.read import read_config, read_drafter
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.errors import CheckpointError

CASES = {case: kind for case, (kind, _) in WRITERS.items()} | {f"own {kind}": kind for kind in DRAFTERS}
SIZES = TargetSizes.of(TARGET)


def written(folder: Path, case: str) -> State:
    write(folder, case, make_drafter(CASES[case], make_target()))
    return read_state(folder)


def used(case: str, state: State) -> str:
    """A tensor that the drafter uses: of its last module, neither square nor an alias."""
    alias = "layers." if case.startswith("torch") else "-"
    return max(name for name in state if name.endswith("mlp.down_proj.weight") and not name.startswith(alias))


def _missing(state: State, name: str) -> tuple[str, ...]:
    del state[name]
    return (name,)


def _renamed(state: State, name: str) -> tuple[str, ...]:
    state[f"x{name}"] = state.pop(name)
    return (name,)


def _extra(state: State, name: str) -> tuple[str, ...]:
    state[f"{name}.stray"] = torch.zeros(1)
    return (f"{name}.stray",)


def _transposed(state: State, name: str) -> tuple[str, ...]:
    state[name] = state[name].T
    return name, "[24, 16]", "[16, 24]"


def _integer(state: State, name: str) -> tuple[str, ...]:
    state[name] = state[name].to(torch.int8)
    return name, "int8"


def _double(state: State, name: str) -> tuple[str, ...]:
    state[name] = state[name].double()
    return name, "float64"


@pytest.mark.parametrize("fault", [_missing, _renamed, _extra, _transposed, _integer, _double])
@pytest.mark.parametrize("case", CASES)
def test_one_wrong_tensor_is_named_with_its_file(
    tmp_path: Path, case: str, fault: Callable[[State, str], tuple[str, ...]]
) -> None:
    state = written(tmp_path, case)
    read_drafter(tmp_path, SIZES, CAPTURE)
    subjects = fault(state, used(case, state))
    write_state(tmp_path, state)
    with raises(CheckpointError, tmp_path / "model.safetensors", *subjects):
        read_drafter(tmp_path, SIZES, CAPTURE)


@pytest.mark.parametrize("case", CASES)
def test_a_drafter_for_another_vocabulary_or_width_is_refused(tmp_path: Path, case: str) -> None:
    written(tmp_path, case)
    for sizes in (TargetSizes(48, 16, 3, 500000.0), TargetSizes(40, 32, 3, 500000.0)):
        with raises(CheckpointError, tmp_path, 40, 16, sizes.vocab_size, sizes.hidden_size):
            read_drafter(tmp_path, sizes, CAPTURE)


@pytest.mark.parametrize("case", [case for case in WRITERS if case != "torch eagle3"])
def test_an_unused_copy_of_the_targets_weights_must_be_the_targets_in_shape(tmp_path: Path, case: str) -> None:
    state = written(tmp_path, case)
    (name,) = state.keys() & {"embed_tokens.weight", "lm_head.weight"}
    state[name] = torch.zeros(48, 16)
    write_state(tmp_path, state)
    with raises(CheckpointError, name, [48, 16], [40, 16]):
        read_drafter(tmp_path, SIZES, CAPTURE)


def test_a_module_that_is_missing_as_a_whole_is_noticed(tmp_path: Path) -> None:
    state = written(tmp_path, "sglang prism")
    write_state(tmp_path, {name: t for name, t in state.items() if not name.startswith(("midlayer.1.", "fc1."))})
    with pytest.raises(CheckpointError, match=r"fc1\.weight|midlayer\.1"):
        read_drafter(tmp_path, SIZES)


@pytest.mark.parametrize("case", [case for case, kind in CASES.items() if kind in ("prism_star", "eagle3")])
def test_hidden_states_that_a_folder_does_not_name_are_asked_for(tmp_path: Path, case: str) -> None:
    written(tmp_path, case)
    if case.startswith("own "):
        assert read_drafter(tmp_path, SIZES).config.aux_hidden_layers == CAPTURE
        assert read_drafter(tmp_path, SIZES, (0, 1, 2)).config.aux_hidden_layers == CAPTURE
        return
    for read in (read_config, lambda folder: read_drafter(folder, SIZES)):
        with pytest.raises(CheckpointError, match="--capture"):
            read(tmp_path)
    assert read_drafter(tmp_path, SIZES, (0, 1, 2)).config.aux_hidden_layers == (0, 1, 2)
    with raises(CheckpointError, 4):
        read_drafter(tmp_path, SIZES, (2, 3, 4))
    entry = "fc" if "eagle3" in case else "fusion_layer"
    with raises(CheckpointError, f"{entry}.weight", [16, 48], [16, 32]):
        read_drafter(tmp_path, SIZES, (2, 3))


def test_a_drafter_of_one_hidden_state_ignores_what_others_read(tmp_path: Path) -> None:
    written(tmp_path, "torch prism")
    assert read_drafter(tmp_path, SIZES, CAPTURE).config.aux_hidden_layers == ()


def _swap(state: State) -> None:
    state["d2t"][[3, 4]] = state["d2t"][[4, 3]] + torch.tensor([1, -1])  # the same tokens, in another order


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (lambda state: state.update(t2d=~state["t2d"]), "'t2d'.*'d2t'"),
        (lambda state: state["t2d"].index_fill_(0, state["t2d"].nonzero()[3], False), "'t2d'.*'d2t'"),
        (_swap, "'t2d'.*'d2t'"),
        (lambda state: state.update(t2d=state["t2d"].to(torch.int64)), "'t2d'.*int64.*bool"),
        (lambda state: state.update(t2d=torch.cat([state["t2d"]] * 2)), r"'t2d'.*\[80\].*\[40\]"),
        (lambda state: state.pop("t2d"), "'t2d'"),
        (lambda state: state.update(d2t=state["d2t"].int()), "'d2t'.*int32.*int64"),
        (lambda state: state["d2t"].add_(40), "'d2t'"),
        (lambda state: state["d2t"][5:6].sub_(1 + state["d2t"][5] - state["d2t"][4]), "'d2t'"),
        (lambda state: state["d2t"][:1].fill_(-1), "'d2t'"),
    ],
)
def test_a_draft_vocabulary_that_disagrees_with_itself_is_refused(
    tmp_path: Path, change: Callable[[State], object], subject: str
) -> None:
    state = written(tmp_path, "torch eagle3")
    change(state)
    write_state(tmp_path, state)
    with pytest.raises(CheckpointError, match=subject):
        read_drafter(tmp_path, SIZES, CAPTURE)


def test_the_authors_eagle3_is_read_with_the_base_it_is_trained_with(tmp_path: Path) -> None:
    """Not with the one in its config, which their evaluation obeys; others' configs of the same layout are right."""
    for place, base in ((AUTHORS_PLACE, 10000.0), (Path("Eagle3-800k"), 500000.0)):
        folder = tmp_path / place
        written(folder, "torch eagle3")
        change_config(folder, lambda data: data.update(rope_theta=500000.0))
        assert read_config(folder, CAPTURE).layer.rope_theta == base
        assert read_config(folder, CAPTURE, rope_theta=700000.0).layer.rope_theta == 700000.0


def test_a_base_that_no_config_names_is_not_guessed(tmp_path: Path) -> None:
    written(tmp_path, "sglang prism")
    change_config(tmp_path, lambda data: data.pop("rope_theta"))
    with raises(CheckpointError, "rope_theta", 500000.0):
        read_drafter(tmp_path, SIZES)
    assert read_drafter(tmp_path, SIZES, rope_theta=500000.0).config.layer.rope_theta == 500000.0
    llama2 = TargetSizes(40, 16, 3, 10000.0)
    assert read_drafter(tmp_path, llama2).config.layer.rope_theta == 10000.0


@pytest.mark.parametrize(
    ("case", "change", "subject"),
    [
        ("own prism", lambda data: data.update(format="prism-ae-drafter-9"), "prism-ae-drafter-9"),
        ("own prism", lambda data: data.update(modules=10**12), "modules.*1000000000000"),
        ("own prism", lambda data: data["layer"].update(num_hidden_layers=10**12), "num_hidden_layers.*1000000000000"),
        ("own prism", lambda data: data["layer"].update(hidden_size="16"), "hidden_size.*'16'"),
        ("own prism", lambda data: data["layer"].update(num_attention_heads=0), "num_attention_heads.*0"),
        ("own prism", lambda data: data["layer"].update(num_attention_heads=3), "3 heads"),
        ("own prism", lambda data: data["layer"].update(rope_theta=float("nan")), "rope_theta.*nan"),
        ("own prism", lambda data: data["layer"].pop("hidden_size"), "hidden_size"),
        ("own prism", lambda data: data.update(cell="other"), "'other'"),
        ("own prism", lambda data: data.update(capture=["3"]), "capture"),
        ("own prism", lambda data: data.update(step_mapping=[0, 0]), "step_mapping"),
        ("own eagle3", lambda data: data.update(draft_vocab_size="24"), "draft_vocab_size.*'24'"),
        ("torch prism", lambda data: data.update(use_adapter=True), "use_adapter"),
        ("torch prism", lambda data: data.update(moe_config={"experts": 2}), "moe_config"),
        ("torch prism", lambda data: data.update(num_step_models=10**12), "num_step_models.*1000000000000"),
        ("torch prism", lambda data: data.update(num_steps=2), "step_mapping.* 2 "),
        ("torch prism", lambda data: data["step_mapping"].update({"1": 0, "2": 0}), "step_mapping.* 2 "),
        ("torch prism", lambda data: data.update(step_mapping={"0": 0, "2": 1, "1": 1}), "step_mapping.* 3 "),
        ("torch prism", lambda data: data.pop("step_mapping"), "step_mapping"),
        ("torch prism", lambda data: data["eagle_config"].pop("hidden_size"), "hidden_size"),
        (
            "torch prism",
            lambda data: data["eagle_config"].update(rope_scaling={"type": "linear"}),
            "rope.*linear",
        ),
        ("torch hass2", lambda data: data["eagle_config"].update(num_hidden_layers=1), r"'layers\.1\."),
        ("torch eagle3", lambda data: data.update(draft_vocab_size=23), r"\[24.*\[23"),
        ("torch eagle3", lambda data: data.update(num_hidden_layers=2), "num_hidden_layers|layer"),
        ("torch eagle3", lambda data: data.pop("draft_vocab_size"), r"'d2t'.*\[24\].*\[40"),
        ("sglang prism", lambda data: data.update(architectures=["Other"]), "Other.*fc0.bias"),
        ("sglang prism", lambda data: data.update(attention_bias=True), "attention_bias"),
        ("sglang eagle2", lambda data: data.update(num_hidden_layers=2), r"'layers\.1\."),
        ("sglang prism_star", lambda data: data.update(architectures=["LlamaForCausalLMLD"]), "fusion_layer.bias"),
    ],
)
def test_a_config_that_is_not_its_layouts_is_refused(
    tmp_path: Path, case: str, change: Callable[[dict[str, Any]], object], subject: str
) -> None:
    written(tmp_path, case)
    change_config(tmp_path, change)
    with pytest.raises(CheckpointError, match=subject) as caught:
        read_drafter(tmp_path, SIZES, CAPTURE)
    assert str(tmp_path) in caught.value.what


def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path) -> None:
    written(tmp_path, "sglang prism")
    change_config(tmp_path, lambda data: data.pop("architectures"))
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    for name in ("prism-ae-drafter-1", "torch-large-drafter", "torch-eagle3", "sglang-ld", "sglang-prism"):
        assert name in caught.value.hint


def test_sizes_of_a_target_come_from_either_config() -> None:
    assert TargetSizes.from_hf(TARGET.to_hf(), "here") == SIZES == TargetSizes(40, 16, 3, 500000.0)
    newer = TARGET.to_hf() | {"rope_theta": None, "rope_parameters": {"rope_theta": 500000.0}}
    assert TargetSizes.from_hf(newer, "here") == SIZES
    with raises(CheckpointError, "here", "vocab_size"):
        TargetSizes.from_hf({}, "here")
