"""A target's head is what its config.json says, and both engines say so before anything is started."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.errors import CheckpointError
from prism_ae.models import checkpoints, weights
from prism_ae.models.checkpoints import check_target_head, load_target, save_target
from prism_ae.models.llama import Llama, LlamaConfig
from prism_ae.suites.load import load_suite

CPU = torch.device("cpu")
CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=64,
)  # fmt: skip
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write(folder: Path, tied: Any, head: str, pickled: bool = False) -> Path:
    """A target whose config says ``tied``; ``head``: "equal", "rounded", "differs", "shape" or "none" is stored."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_target(folder, Llama(CONFIG), {"tie_word_embeddings": tied})
    state = load_file(folder / "model.safetensors")
    embedding = state[EMBEDDING] = state[EMBEDDING].bfloat16().float()
    state[HEAD] = embedding.clone()
    if head == "rounded":  # stored in fewer bits, and the same
        state[HEAD] = embedding.bfloat16()
    if head == "differs":
        state[HEAD][-1, -1] += 0.5
    if head == "shape":
        state[HEAD] = embedding[:-1].clone()
    if head == "none":
        del state[HEAD]
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return folder


def wanted(folder: Path) -> Any:
    """What the SGLang engine does before it starts SGLang, for vanilla decoding of a mini target."""
    engine = SGLangEngine(load_suite("mini"), folder, "cpu", 1)
    point: Any = SimpleNamespace(
        drafter="vanilla", target="mini-llama-2", max_length=32, dtype="float32", seed=1, drafting="exact", compat=()
    )
    room: Any = SimpleNamespace(batch=1, tree=None, max_seq_len=32)
    assignment: Any = SimpleNamespace(
        cells=(SimpleNamespace(point=point),), target_path=folder, drafter_path=None, tree=None, room=room
    )
    return engine._wanted(assignment)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("tied", "head"),
    [(True, "none"), (True, "equal"), (True, "rounded"), (False, "equal"), (False, "differs"), (None, "differs")],
)
def test_a_head_that_is_what_the_config_says(tmp_path: Path, tied: Any, head: str, pickled: bool) -> None:
    from transformers import LlamaForCausalLM

    folder = write(tmp_path, tied, head, pickled)
    assert wanted(folder).target == folder
    target = load_target(folder, torch.float32, CPU)
    assert (target.head.weight is target.embedding.weight) == bool(tied)
    if not pickled and tied is not None:  # transformers takes no null
        ids = torch.randint(40, (1, 20))
        theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        ours = target.head(target(ids, torch.arange(20)[None])[0])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("tied", "head", "said"),
    [
        (True, "differs", "tie_word_embeddings"),
        (True, "shape", "tie_word_embeddings"),
        (False, "none", "is missing"),
        (None, "none", "is missing"),
        ("absent", "none", "is missing"),
    ],
)
def test_a_head_that_is_not_what_the_config_says(
    tmp_path: Path, tied: Any, head: str, said: str, pickled: bool
) -> None:
    folder = write(tmp_path, None if tied == "absent" else tied, head, pickled)
    if tied == "absent":
        data = json.loads((folder / "config.json").read_text())
        del data["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(data))
    for use in (wanted, check_target_head, lambda folder: load_target(folder, torch.float32, CPU)):
        with pytest.raises(CheckpointError) as caught:
            use(folder)
        assert said in caught.value.what
        assert HEAD in caught.value.what
        assert str(folder) in caught.value.what
        assert caught.value.hint


def test_two_tensors_are_read_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = write(tmp_path, True, "equal"), []

    class Spy:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._file = safe_open(*arguments, **options)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None: ...

        def keys(self) -> list[str]:
            return list(self._file.keys())

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return self._file.get_tensor(name)

    monkeypatch.setattr("safetensors.safe_open", Spy)
    check_target_head(folder)
    assert read == [EMBEDDING, HEAD]
    assert not hasattr(checkpoints, "safe_open")
    assert not hasattr(weights, "safe_open")


def test_a_target_of_another_architecture_is_left_to_sglang(tmp_path: Path) -> None:
    folder = write(tmp_path, False, "none")
    data = json.loads((folder / "config.json").read_text()) | {"architectures": ["GemmaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(data))
    check_target_head(folder)


def test_a_quantised_head_is_a_head(tmp_path: Path) -> None:
    folder = write(tmp_path, False, "none")
    state = load_file(folder / "model.safetensors") | {"lm_head.qweight": torch.zeros(2, 40, dtype=torch.int32)}
    save_file(state, folder / "model.safetensors")
    check_target_head(folder)
    with pytest.raises(CheckpointError, match="quantised"):
        load_target(folder, torch.float32, CPU)


def test_a_tied_target_is_loaded_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tied = Llama(dataclasses.replace(CONFIG, tie_word_embeddings=True))
    save_target(tmp_path, tied)
    assert HEAD not in load_file(tmp_path / "model.safetensors")
    assert torch.equal(load_target(tmp_path, torch.float32, CPU).head.weight, tied.head.weight)
