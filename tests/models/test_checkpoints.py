"""A folder that exists is complete, and what is read is exactly what was written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from raising import raises
from safetensors.torch import load_file, save_file

from prism_ae.drafters.checkpoint import load_drafter, save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError
from prism_ae.models.checkpoints import MANIFEST, Manifest, load_target, publish, read_manifest, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.models.weights import WEIGHTS

CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=64,
)  # fmt: skip
LAYER = dataclasses.replace(CONFIG, num_hidden_layers=1)
DRAFTERS = {
    "hass2": DrafterConfig("eagle", dataclasses.replace(CONFIG, num_hidden_layers=2)),
    "prism": DrafterConfig("eagle", LAYER, modules=2, step_mapping=(0, 1)),
    "prism_star": DrafterConfig("eagle", LAYER, modules=2, step_mapping=(0, 1), aux_hidden_layers=(1, 2, 3)),
    "eagle3": DrafterConfig("eagle3", LAYER, aux_hidden_layers=(1, 2, 3), draft_vocab_size=20),
}
CPU = torch.device("cpu")


@pytest.fixture
def target() -> Llama:
    torch.manual_seed(0)
    return Llama(CONFIG).eval().requires_grad_(False)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_target_is_read_as_written_and_as_transformers_reads_it(tmp_path: Path, target: Llama) -> None:
    from transformers import LlamaForCausalLM

    save_target(tmp_path, target)
    assert equal(load_target(tmp_path, torch.float32, CPU), target)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = torch.randint(0, 40, (3, 17))
    with torch.no_grad():
        ours, captured = target(ids, torch.arange(17)[None], aux_hidden_layers=(0, 1, 3))
        reference = theirs(ids, output_hidden_states=True)
    torch.testing.assert_close(target.head(ours), reference.logits, atol=1e-5, rtol=1e-5)
    # transformers' last hidden state is the normed one, so the third layer's own output is not among them
    expected = torch.cat([reference.hidden_states[0], reference.hidden_states[1]], dim=-1)
    torch.testing.assert_close(captured[..., :32], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DRAFTERS)
def test_a_drafter_is_read_as_written(tmp_path: Path, target: Llama, name: str) -> None:
    drafter = Drafter(DRAFTERS[name], target)
    if name == "eagle3":
        drafter.draft_ids = torch.randperm(40)[:20]
    save_drafter(tmp_path, drafter)
    assert equal(load_drafter(tmp_path, target, torch.float32, CPU), drafter)
    assert not any("embed_tokens" in key or "lm_head" in key for key in load_file(tmp_path / WEIGHTS))


def damaged(state: dict[str, torch.Tensor], how: str) -> tuple[dict[str, torch.Tensor], str]:
    """A state with one fault, and a word that the message must contain."""
    state, name = dict(state), "modules.1.layers.0.mlp.down_proj.weight"
    if how == "missing":
        del state[name]
    elif how == "renamed":
        state["layers.0.mlp.down_proj.weight"] = state.pop(name)
    elif how == "extra":
        state["stray.weight"] = torch.zeros(1)
        name = "stray.weight"
    elif how == "transposed":
        state[name] = state[name].T.contiguous()
    elif how == "integer":
        state[name] = state[name].to(torch.int8)
    elif how == "key rows":
        name = "modules.0.layers.0.self_attn.k_proj.weight"
        state[name] = state[name][:-1].contiguous()
    return state, name


@pytest.mark.parametrize("how", ["missing", "renamed", "extra", "transposed", "integer", "key rows"])
def test_one_wrong_tensor_is_named(tmp_path: Path, target: Llama, how: str) -> None:
    save_drafter(tmp_path, Drafter(DRAFTERS["prism"], target))
    state, name = damaged(load_file(tmp_path / WEIGHTS), how)
    save_file(state, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=name):
        load_drafter(tmp_path, target, torch.float32, CPU)


def test_a_truncated_file_and_another_targets_drafter_are_refused(tmp_path: Path, target: Llama) -> None:
    save_drafter(tmp_path, Drafter(DRAFTERS["prism"], target))
    wider = Llama(dataclasses.replace(CONFIG, vocab_size=48))
    with raises(CheckpointError, tmp_path, 48, 40):
        load_drafter(tmp_path, wider, torch.float32, CPU)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-7])
    with raises(CheckpointError, weights):
        load_drafter(tmp_path, target, torch.float32, CPU)
    weights.unlink()
    with pytest.raises(MissingError):
        load_drafter(tmp_path, target, torch.float32, CPU)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 8}, "head_dim"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)
def test_a_model_this_code_would_compute_wrongly_is_refused(
    tmp_path: Path, target: Llama, change: dict[str, object], key: str
) -> None:
    save_target(tmp_path, target, change)
    with pytest.raises(CheckpointError, match=key):
        load_target(tmp_path, torch.float32, CPU)


@pytest.mark.parametrize("change", [{"hidden_size": "16"}, {"num_attention_heads": 0}, {"rope_scaling": [1]}])
def test_a_config_that_holds_something_else_is_refused(
    tmp_path: Path, target: Llama, change: dict[str, object]
) -> None:
    save_target(tmp_path, target, change)
    with raises(CheckpointError, tmp_path / "config.json", *change):
        load_target(tmp_path, torch.float32, CPU)


def test_rotary_frequencies_in_a_file_are_compared_with_the_config(tmp_path: Path, target: Llama) -> None:
    """Llama-2's own checkpoint stores them."""
    from transformers import LlamaConfig as TheirConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    save_target(tmp_path, target)
    state = load_file(tmp_path / WEIGHTS)
    table = LlamaRotaryEmbedding(TheirConfig.from_pretrained(tmp_path)).inv_freq
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        save_file(state | {name.format(layer): table.to(dtype, copy=True) for layer in range(3)}, tmp_path / WEIGHTS)
        assert equal(load_target(tmp_path, torch.float32, CPU), target)
    save_file(state | {name.format(1): table * 1.02}, tmp_path / WEIGHTS)
    with raises(CheckpointError, name.format(1), "rope_theta"):
        load_target(tmp_path, torch.float32, CPU)
    save_file(state | {name.format(3): table}, tmp_path / WEIGHTS)
    with raises(CheckpointError, name.format(3)):
        load_target(tmp_path, torch.float32, CPU)


def test_a_target_is_not_filled_with_random_values_first(tmp_path: Path, target: Llama) -> None:
    save_target(tmp_path, target)
    before = torch.get_rng_state()
    load_target(tmp_path, torch.float32, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_target_whose_head_is_its_embedding_is_read_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tied = Llama(dataclasses.replace(CONFIG, tie_word_embeddings=True))
    save_target(tmp_path, tied)
    loaded = load_target(tmp_path, torch.float32, CPU)
    assert equal(loaded, tied)
    assert loaded.head.weight is loaded.embedding.weight


def test_null_in_a_config_means_the_default(tmp_path: Path, target: Llama) -> None:
    null = {"head_dim": None, "rope_scaling": None, "num_key_value_heads": None}
    many = dataclasses.replace(CONFIG, num_key_value_heads=4)
    assert LlamaConfig.from_hf(many.to_hf() | null, "here") == many


def test_nothing_half_written_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "one"

    def fails(place: Path) -> None:
        (place / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    with raises(StoreError, "No space left on device"):
        publish(folder, Manifest("target", "one", None, {}), fails)
    assert list(folder.parent.iterdir()) == []

    manifest = publish(folder, Manifest("target", "one", None, {"a": 1}), lambda place: (place / "x").write_text("1"))
    again = publish(folder, Manifest("target", "one", None, {"a": 1}), lambda place: (place / "x").write_text("2"))
    assert again == manifest == read_manifest(folder)
    assert (folder / "x").read_text() == "1"
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert json.loads((folder / MANIFEST).read_text())["files"] == manifest.files


@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_file_that_changed_after_it_was_published_is_refused(tmp_path: Path, target: Llama, file: str) -> None:
    """What is measured with it would be recorded as measured with the published one."""
    publish(tmp_path / "t", Manifest("target", "one", None, {}), lambda place: save_target(place, target))
    drafter = Drafter(DRAFTERS["prism"], target)
    publish(tmp_path / "d", Manifest("drafter", "prism", "1x", {}), lambda place: save_drafter(place, drafter))
    assert equal(load_target(tmp_path / "t", torch.float32, CPU), target)
    assert equal(load_drafter(tmp_path / "d", target, torch.float32, CPU), drafter)
    for folder in (tmp_path / "t", tmp_path / "d"):
        content = bytearray((folder / file).read_bytes())
        content[-2] ^= 1  # in the last weight; in the JSON file, the last bracket
        (folder / file).write_bytes(content)
    with raises(CheckpointError, tmp_path / "t" / file):
        load_target(tmp_path / "t", torch.float32, CPU)
    with raises(CheckpointError, tmp_path / "d" / file):
        load_drafter(tmp_path / "d", target, torch.float32, CPU)
    (tmp_path / "d" / file).unlink()
    with raises(CheckpointError, tmp_path / "d" / file):
        load_drafter(tmp_path / "d", target, torch.float32, CPU)


def test_a_full_disk_is_a_clear_error_also_for_weights(tmp_path: Path, target: Llama) -> None:
    """The library that writes them has an error of its own for it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreError, match=WEIGHTS) as caught:
            publish(tmp_path / "one", Manifest("target", "one", None, {}), lambda place: save_target(place, target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_errors_survive_the_way_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(CheckpointError("what", "hint")))
    assert (type(error), str(error)) == (CheckpointError, "what\n  hint")
    assert isinstance(error, PrismError)


def test_a_bf16_model_keeps_its_rotary_tables_in_fp32(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    long = Llama(dataclasses.replace(CONFIG, max_position_embeddings=2000))
    save_target(tmp_path, long)
    ours = load_target(tmp_path, torch.bfloat16, CPU)
    assert ours.rotary.table.dtype == torch.float32
    assert torch.equal(ours.rotary.table, long.rotary.table)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    positions = torch.tensor([[1500, 1777, 1999]])
    cosine, sine = theirs.model.rotary_emb(torch.zeros(1, dtype=torch.bfloat16), positions)
    negated = torch.where(torch.arange(sine.shape[-1]) < sine.shape[-1] // 2, -sine, sine)
    for mine, reference in zip(ours.rotary(positions), (cosine, negated), strict=True):
        assert torch.equal(mine[:, 0], reference)


@pytest.mark.parametrize("name", DRAFTERS)
def test_models_are_read_onto_their_device(tmp_path: Path, target: Llama, name: str) -> None:
    """torch's ``meta`` device stands for a GPU: what was left on the CPU shows."""
    meta = torch.device("meta")
    for folder in ("target", "drafter"):
        (tmp_path / folder).mkdir()
    save_target(tmp_path / "target", target)
    save_drafter(tmp_path / "drafter", Drafter(DRAFTERS[name], target))
    there = load_target(tmp_path / "target", torch.float16, meta)
    drafter = load_drafter(tmp_path / "drafter", there, torch.float16, meta)
    for model in (there, drafter):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
        assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert torch.get_default_dtype() == torch.float32


_LOAD_WITHIN = """
import resource, sys
from pathlib import Path
import torch
from prism_ae.models.checkpoints import load_target
from prism_ae.models.llama import Llama

folder, room = Path(sys.argv[1]), int(sys.argv[2])
used = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData")][0]
resource.setrlimit(resource.RLIMIT_DATA, (used + room,) * 2)
load_target(folder, torch.float16, torch.device("cpu"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts a process' data as Linux does")
def test_a_target_is_held_once_while_it_is_read(tmp_path: Path) -> None:
    """Beside the model there is only the file, mapped into memory and counted here, whose pages may be let go."""
    config = dataclasses.replace(
        CONFIG, vocab_size=8000, hidden_size=1024, intermediate_size=2816, num_attention_heads=8
    )
    save_target(tmp_path, Llama(config).half())
    size = (tmp_path / WEIGHTS).stat().st_size
    for times, fits in ((2.2, True), (1.7, False)):
        command = [sys.executable, "-c", _LOAD_WITHIN, str(tmp_path), str(int(times * size))]
        assert (subprocess.run(command, capture_output=True).returncode == 0) == fits, times


def test_other_users_may_read_what_is_published(tmp_path: Path, target: Llama) -> None:
    publish(tmp_path / "x", Manifest("target", "x", None, {}), lambda folder: save_target(folder, target))
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "x").iterdir()} == {"0o644"}
