"""What SGLang is told of a drafter's folder, and which folders it is never told of."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sglang_models import DRAFTERS, LAYER, TARGET

from prism_ae.checkpoints import save_target
from prism_ae.drafters.layout import save_drafter
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drafters.model import Drafter, DrafterConfig
from prism_ae.errors import CheckpointError, MissingError, PrismError
from prism_ae.llama import Llama
from prism_ae.sglang_prism import registration
from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED
from prism_ae.sglang_prism.description import KEY, describe, published_capture

SIZES = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 4, "rope_theta": 10000.0}


def _target(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    save_target(folder, Llama(dataclasses.replace(TARGET, **changes)))
    return folder


def _drafter(folder: Path, config: DrafterConfig, **target: Any) -> Path:
    folder.mkdir()
    save_drafter(folder, Drafter(config, Llama(dataclasses.replace(TARGET, **target))))
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _target(tmp_path_factory.mktemp("models") / "target")


@pytest.mark.parametrize(
    ("name", "model", "layers"),
    [
        ("eagle2", "PrismDraftModel", 1),
        ("hass2", "PrismDraftModel", 2),
        ("prism", "PrismDraftModel", 1),
        ("prism_star", "PrismDraftModel", 1),
        ("eagle3", "PrismEagle3DraftModel", 1),
    ],
)
def test_every_architecture_is_described(name: str, model: str, layers: int, target: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS[name])
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in drafter.iterdir()}
    described = describe(drafter, target)
    assert described.captures == (name in ("prism_star", "eagle3"))
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in drafter.iterdir()} == before
    assert described.folder.parent != drafter
    links = [path for path in described.folder.iterdir() if path.is_symlink()]
    assert [link.resolve() for link in links] == [drafter.resolve() / "model.safetensors"]
    data = json.loads((described.folder / "config.json").read_text())
    expected = {
        "architectures": [model],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bias": False,
        "vocab_size": 30,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "target_hidden_size": 32,
    }
    if described.captures:
        expected["eagle_config"] = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
        expected["num_aux_hidden_states"] = 3
    if name == "eagle3":
        expected["draft_vocab_size"] = 24
    own = data.pop(KEY)
    assert data == expected
    assert own == {
        "drafter": str(drafter.resolve()),
        "config": json.loads(json.dumps(dataclasses.asdict(DRAFTERS[name]))),
        "target": SIZES,
    }


def test_sglang_is_given_the_description(target: Path, tmp_path: Path) -> None:
    for name, algorithm in (("prism", PRISM), ("prism_star", PRISM_CAPTURED)):
        drafter = _drafter(tmp_path / name, DRAFTERS[name])
        arguments: Any = SimpleNamespace(
            speculative_algorithm="PRISM", speculative_draft_model_path=str(drafter), model_path=str(target)
        )
        registration.describe_drafter(arguments)
        assert arguments.speculative_algorithm == algorithm
        given = Path(arguments.speculative_draft_model_path)
        assert given != drafter
        assert (given / "config.json").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 31}, "vocab_size is 30, that of the target"),
        ({"hidden_size": 64}, "hidden_size is 32, that of the target"),
        ({"num_hidden_layers": 3}, "reads hidden state 3; SGLang captures 1 to 2"),
    ],
)
def test_another_targets_drafter_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    other = _target(tmp_path / "other", **changes)
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism_star"])
    with pytest.raises(CheckpointError, match=says) as caught:
        describe(drafter, other)
    assert str(drafter) in caught.value.what
    assert "trained for this target" in caught.value.hint
    arguments: Any = SimpleNamespace(
        speculative_algorithm="PRISM", speculative_draft_model_path=str(drafter), model_path=str(other)
    )
    with pytest.raises(ValueError, match=says):
        registration.describe_drafter(arguments)


@pytest.mark.parametrize("capture", [(0, 1, 2), (1, 2, 4)])
def test_states_that_sglang_cannot_capture_are_refused(capture: tuple[int, ...], target: Path, tmp_path: Path) -> None:
    """The embedding, and what leaves the last layer."""
    drafter = _drafter(tmp_path / "drafter", DrafterConfig("eagle", LAYER, capture=capture))
    with pytest.raises(CheckpointError, match=r"SGLang captures 1 to 3"):
        describe(drafter, target)


def _break(folder: Path, how: str) -> None:
    config = folder / "config.json"
    data = json.loads(config.read_text())
    if how == "no config":
        config.unlink()
    elif how == "no JSON":
        config.write_text("{")
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "no layer":
        del data["layer"]
        config.write_text(json.dumps(data))
    elif how == "odd mapping":
        config.write_text(json.dumps(data | {"step_mapping": [0, 7]}))
    else:
        config.write_text(json.dumps({"architectures": ["Mystery"]}))


@pytest.mark.parametrize("how", ["no config", "no JSON", "no weights", "no layer", "odd mapping", "unknown"])
def test_a_malformed_folder_is_refused_by_name(how: str, target: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism"])
    _break(drafter, how)
    with pytest.raises(PrismError) as caught:
        describe(drafter, target)
    assert str(drafter) in caught.value.what
    assert isinstance(caught.value, MissingError if how in ("no config", "no weights") else CheckpointError)


def test_the_description_is_gone_when_the_process_ends(target: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["eagle2"])
    code = """
import sys, pathlib
from prism_ae.sglang_prism.description import describe
folder = describe(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])).folder
assert (folder / "config.json").exists()
print(folder)
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(drafter), str(target)], capture_output=True, text=True, check=True
    )
    assert not Path(process.stdout.strip()).exists()
    assert (drafter / "model.safetensors").exists()


def test_published_drafters_read_where_their_makers_captured() -> None:
    """Numbers of the authors' fork for 32 layers; EAGLE-3's are SGLang's own places."""
    assert published_capture("anything", 32) == (3, 17, 30)
    assert published_capture(EAGLE3.name, 32) == (2, 16, 29)
