"""What SGLang is told of a drafter's folder, and which folders it is never told of."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sglang_models import DRAFTERS, LAYER, TARGET

from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError, MissingError, PrismError
from prism_ae.models.checkpoints import save_target
from prism_ae.models.llama import Llama
from prism_ae.sglang_prism import registration
from prism_ae.sglang_prism.algorithm import PRISM, PRISM_CAPTURED
from prism_ae.sglang_prism.description import (
    KEY,
    Described,
    ResolvedTarget,
    describe,
    described_drafter,
    published_capture,
    remove_old_descriptions,
)

SIZES = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 4, "rope_theta": 10000.0}


def _target(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    save_target(folder, Llama(dataclasses.replace(TARGET, **changes)))
    return folder


def _describe(drafter: Path, target: Path, dtype: str = "float32", context: int = 256) -> Described:
    config = json.loads((target / "config.json").read_text())
    return describe(drafter, ResolvedTarget(str(target), TargetSizes.from_hf(config, str(target)), dtype, context))


def _arguments(drafter: Path, target: Path, **changes: Any) -> Any:
    """SGLang's, as far as they are read."""
    config = json.loads((target / "config.json").read_text())
    resolved = SimpleNamespace(
        hf_text_config=SimpleNamespace(to_dict=lambda: config), dtype="torch.bfloat16", context_len=256
    )
    given = {
        "speculative_algorithm": "PRISM",
        "speculative_draft_model_path": str(drafter),
        "speculative_draft_model_revision": None,
        "speculative_draft_model_quantization": None,
        "speculative_num_steps": None,
        "speculative_eagle_topk": None,
        "speculative_num_draft_tokens": None,
        "speculative_draft_window_size": None,
        "speculative_token_map": None,
        "tp_size": 1,
        "enable_multi_layer_eagle": False,
        "tokenizer_worker_num": 1,
        "enable_custom_logit_processor": False,
        "disaggregation_mode": "null",
        "enable_dp_attention": False,
        "quantization_param_path": None,
        "download_dir": None,
        "quantization": None,
        "device": "cuda",
        "model_path": str(target),
        "get_model_config": lambda: resolved,
    }
    return SimpleNamespace(**given | changes)


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
    described = _describe(drafter, target)
    assert described.reads_aux_hidden == (name in ("prism_star", "eagle3"))
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
        "torch_dtype": "float32",
        "tie_word_embeddings": False,
        "target_hidden_size": 32,
    }
    if described.reads_aux_hidden:
        expected["eagle_config"] = {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 2]}
        expected["num_aux_hidden_states"] = 3
    if name == "eagle3":
        expected["draft_vocab_size"] = 24
    own = data.pop(KEY)
    assert data == expected
    assert own == {
        "drafter": str(drafter.resolve()),
        "config": DRAFTERS[name].fields(),
        "target": SIZES,
    }


def test_sglang_is_given_the_description(target: Path, tmp_path: Path) -> None:
    for name, algorithm in (("prism", PRISM), ("prism_star", PRISM_CAPTURED)):
        drafter = _drafter(tmp_path / name, DRAFTERS[name])
        arguments = _arguments(drafter, target)
        registration.describe_drafter(arguments)
        assert arguments.speculative_algorithm == algorithm
        given = Path(arguments.speculative_draft_model_path)
        assert given != drafter
        assert (given / "config.json").exists()


def test_the_target_decides_dtype_and_context(target: Path, tmp_path: Path) -> None:
    """SGLang would choose float16, and refuse a drafter that was made for less than the target reads."""
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism"])
    for dtype, context, positions in (("bfloat16", 4096, 4096), ("float16", 128, 256)):
        data = json.loads((_describe(drafter, target, dtype, context).folder / "config.json").read_text())
        assert (data["torch_dtype"], data["max_position_embeddings"]) == (dtype, positions)
        assert data[KEY]["config"]["layer"]["max_position_embeddings"] == 256  # what it is stays written down


def test_a_description_can_be_described_again(target: Path, tmp_path: Path) -> None:
    """SGLang's offline benchmarks make its arguments from themselves again."""
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism_star"])
    arguments = _arguments(drafter, target)
    registration.describe_drafter(arguments)
    first = Path(arguments.speculative_draft_model_path)
    registration.describe_drafter(arguments)
    again = Path(arguments.speculative_draft_model_path)
    assert again != first
    assert arguments.speculative_algorithm == PRISM_CAPTURED
    assert (again / "config.json").read_text() == (first / "config.json").read_text()
    # A folder from elsewhere that names another is not followed.
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text(json.dumps({KEY: {"drafter": str(drafter)}}))
    assert described_drafter(foreign) == foreign


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"speculative_num_steps": 0, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 4}, "at least 1"),
        ({"speculative_num_steps": 3, "speculative_eagle_topk": 0, "speculative_num_draft_tokens": 4}, "at least 1"),
        ({"speculative_num_steps": 3, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 1}, "at least 2"),
        ({"speculative_num_steps": 1, "speculative_eagle_topk": 2, "speculative_num_draft_tokens": 64}, "at most 3"),
        ({"speculative_num_steps": 3, "speculative_eagle_topk": 31, "speculative_num_draft_tokens": 8}, "of 30 tokens"),
        ({"speculative_num_steps": 3, "speculative_eagle_topk": 2}, "all of"),
        ({"enable_multi_layer_eagle": True}, "--enable-multi-layer-eagle"),
        ({"tokenizer_worker_num": 2}, "--tokenizer-worker-num"),
        ({"enable_custom_logit_processor": True}, "--enable-custom-logit-processor"),
        ({"disaggregation_mode": "decode"}, "--disaggregation-mode"),
        ({"enable_dp_attention": True}, "--enable-dp-attention"),
        ({"quantization_param_path": "scales.json"}, "--quantization-param-path"),
        ({"speculative_draft_model_quantization": "awq"}, "--speculative-draft-model-quantization"),
    ],
)
def test_what_no_engine_can_do_is_refused_by_name(
    changes: dict[str, Any], says: str, target: Path, tmp_path: Path
) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism"])
    with pytest.raises(ValueError, match=says):
        registration.describe_drafter(_arguments(drafter, target, **changes))


@pytest.mark.parametrize("tree", [(None, None, None), (5, 4, 16), (3, 1, 4), (3, 1, 9), (3, 1, None), (2, 30, 900)])
def test_trees_that_can_be_built_are_served(tree: tuple[int | None, ...], target: Path, tmp_path: Path) -> None:
    """None is SGLang's own choice; of a chain it corrects the number of tokens itself."""
    names = ("speculative_num_steps", "speculative_eagle_topk", "speculative_num_draft_tokens")
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism"])
    registration.describe_drafter(_arguments(drafter, target, **dict(zip(names, tree, strict=True))))


def test_the_branch_fits_the_drafters_own_vocabulary(target: Path, tmp_path: Path) -> None:
    """EAGLE-3 drafts 24 of the target's 30 tokens."""
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["eagle3"])
    tree = {"speculative_num_steps": 2, "speculative_num_draft_tokens": 20}
    registration.describe_drafter(_arguments(drafter, target, **tree, speculative_eagle_topk=24))
    with pytest.raises(ValueError, match="of 24 tokens"):
        registration.describe_drafter(_arguments(drafter, target, **tree, speculative_eagle_topk=25))


@pytest.mark.parametrize("name", ["prism", "prism_star"])
def test_a_draft_vocabulary_is_told_to_sglang(target: Path, tmp_path: Path, name: str) -> None:
    drafter = _drafter(tmp_path / "drafter", dataclasses.replace(DRAFTERS[name], draft_vocab_size=20))
    arguments = _arguments(drafter, target)
    registration.describe_drafter(arguments)
    described = json.loads((Path(arguments.speculative_draft_model_path) / "config.json").read_text())
    assert described["draft_vocab_size"] == 20
    with pytest.raises(ValueError, match="--speculative-token-map"):
        registration.describe_drafter(_arguments(drafter, target, speculative_token_map="map.pt"))
    with pytest.raises(ValueError, match=r"--tensor-parallel-size.* 2 processes"):
        registration.describe_drafter(_arguments(drafter, target, tp_size=2))


def test_only_a_user_quantises_a_drafter() -> None:
    """SGLang would give it the target's --quantization."""
    for algorithm, given, kept in (
        ("PRISM", None, "unquant"),
        ("prism", "fp8", "fp8"),
        ("PRISM_CAPTURED", None, "unquant"),
        ("EAGLE", None, None),
        (None, None, None),
    ):
        arguments: Any = SimpleNamespace(
            speculative_algorithm=algorithm, speculative_draft_model_quantization=given, quantization="fp8"
        )
        registration.keep_the_drafter_unquantised(arguments)
        assert arguments.speculative_draft_model_quantization == kept


def test_variables_that_simulate_are_said(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism"])
    registration.describe_drafter(_arguments(drafter, target))
    assert "simulated" not in caplog.text
    monkeypatch.setenv("SGLANG_SIMULATE_ACC_LEN", "4")
    registration.describe_drafter(_arguments(drafter, target))
    assert "SGLANG_SIMULATE_ACC_LEN=4 is set" in caplog.text


def test_the_log_says_what_drafts(target: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism_star"])
    registration.describe_drafter(_arguments(drafter, target, speculative_draft_window_size=64))
    assert f"PRISM drafts with {drafter}: eagle cell, 2 module(s) of 1 layer(s), step mapping [0, 1]" in caplog.text
    assert "reads hidden states [1, 2, 3]" in caplog.text
    assert "keeps to --speculative-draft-window-size" not in caplog.text  # SGLang warns that it has no effect
    eagle3 = _drafter(tmp_path / "eagle3", DRAFTERS["eagle3"])
    registration.describe_drafter(_arguments(eagle3, target, speculative_draft_window_size=64))
    assert "keeps to --speculative-draft-window-size" in caplog.text
    assert "beyond that fewer drafts" not in caplog.text
    longer = _arguments(drafter, target)
    longer.get_model_config().context_len = 4096
    registration.describe_drafter(longer)
    assert "trained for 256 tokens, the target for 4096" in caplog.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 31}, "vocabulary 30 and hidden size 32 does not fit a target of 31 and 32"),
        ({"hidden_size": 64}, "vocabulary 30 and hidden size 32 does not fit a target of 30 and 64"),
        ({"num_hidden_layers": 3}, "reads hidden state 3; SGLang captures 1 to 2"),
    ],
)
def test_another_targets_drafter_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    other = _target(tmp_path / "other", **changes)
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["prism_star"])
    with pytest.raises(CheckpointError, match=says) as caught:
        _describe(drafter, other)
    assert str(drafter) in caught.value.what
    assert "target" in caught.value.hint
    arguments = _arguments(drafter, other)
    with pytest.raises(ValueError, match=says):
        registration.describe_drafter(arguments)


@pytest.mark.parametrize("capture", [(0, 1, 2), (1, 2, 4)])
def test_states_that_sglang_cannot_capture_are_refused(capture: tuple[int, ...], target: Path, tmp_path: Path) -> None:
    """The embedding, and what leaves the last layer."""
    drafter = _drafter(tmp_path / "drafter", DrafterConfig("eagle", LAYER, aux_hidden_layers=capture))
    with pytest.raises(CheckpointError, match=r"SGLang captures 1 to 3"):
        _describe(drafter, target)


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
        _describe(drafter, target)
    assert str(drafter) in caught.value.what
    assert isinstance(caught.value, MissingError if how in ("no config", "no weights") else CheckpointError)


def test_the_description_is_gone_when_the_process_ends(target: Path, tmp_path: Path) -> None:
    drafter = _drafter(tmp_path / "drafter", DRAFTERS["eagle2"])
    code = """
import sys, pathlib
from prism_ae.drafters.layouts.records import TargetSizes
from prism_ae.sglang_prism.description import ResolvedTarget, describe
sizes = TargetSizes(30, 32, 4, 10000.0)
folder = describe(pathlib.Path(sys.argv[1]), ResolvedTarget("target", sizes, "float32", 256)).folder
assert (folder / "config.json").exists()
print(folder)
"""
    process = subprocess.run([sys.executable, "-c", code, str(drafter)], capture_output=True, text=True, check=True)
    assert not Path(process.stdout.strip()).exists()
    assert (drafter / "model.safetensors").exists()


def test_what_servers_that_were_killed_left_behind_goes_after_a_day(tmp_path: Path) -> None:
    for name, days in (("prism-ae-drafter-old", 2.0), ("prism-ae-drafter-new", 0.5), ("other", 9.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        then = time.time() - days * 86400
        os.utime(tmp_path / name, (then, then))
    (tmp_path / "prism-ae-drafter-link").symlink_to(tmp_path / "other")
    remove_old_descriptions(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"prism-ae-drafter-new", "prism-ae-drafter-link", "other"}
    assert (tmp_path / "other" / "config.json").exists()


def test_published_drafters_read_where_their_makers_captured() -> None:
    """Numbers of the authors' fork for 32 layers; EAGLE-3's are SGLang's own places."""
    assert published_capture("anything", 32) == (3, 17, 30)
    assert published_capture(EAGLE3.name, 32) == (2, 16, 29)
