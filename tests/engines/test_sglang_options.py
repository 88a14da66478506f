"""How an SGLang engine is started, and for what a running one can be used."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from prism_ae.cells import TreeShape
from prism_ae.drafters.config import DrafterConfig
from prism_ae.engines.sglang.options import SLACK, EngineSetup, architecture_text, engine_environment, engine_options
from prism_ae.models.config import LlamaConfig
from prism_ae.suites.compat import GRAPHS_BATCH_1, WARM_CACHE

CPU = EngineSetup(
    target=Path("models/target"),
    drafter=Path("models/prism"),
    architecture="{}",
    tree=TreeShape(6, 10, 60),
    batch=8,
    max_seq_len=512,
    dtype="float32",
    seed=42,
    drafting="exact",
    device="cpu",
    server_flags=(),
)
GPU = dataclasses.replace(CPU, device="cuda:0", dtype="bfloat16")
VANILLA = {"drafter": None, "architecture": "", "tree": None}


def with_(setup: EngineSetup, **changes: Any) -> EngineSetup:
    return dataclasses.replace(setup, **changes)


@pytest.mark.parametrize("running", [CPU, GPU])
@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, True),
        ({"drafter": Path("models/other")}, True),
        ({"batch": 1}, True),
        ({"max_seq_len": 100}, True),
        ({"batch": 9}, False),
        ({"max_seq_len": 513}, False),
        ({"target": Path("models/other")}, False),
        ({"architecture": "{2}"}, False),
        ({"dtype": "float16"}, False),
        ({"seed": 43}, False),
        ({"device": "cuda:1"}, False),
        ({"server_flags": (WARM_CACHE,)}, False),
        ({"tree": TreeShape(7, 10, 60)}, False),
        ({"tree": TreeShape(6, 11, 60)}, False),
        ({"tree": TreeShape(6, 10, 61)}, False),
        (VANILLA, False),
    ],
)
def test_what_a_running_engine_serves(running: EngineSetup, changes: dict[str, Any], served: bool) -> None:
    assert running.serves(with_(running, **changes)) == served


@pytest.mark.parametrize(
    "changes", [{"tree": TreeShape(6, 4, 16)}, {"tree": TreeShape(3, 1, 4)}, {"drafting": "stock"}]
)
def test_smaller_trees_and_drafting_are_served_on_a_cpu_alone(changes: dict[str, Any]) -> None:
    assert CPU.serves(with_(CPU, **changes))
    assert not GPU.serves(with_(GPU, **changes))


@pytest.mark.parametrize("running", [CPU, GPU])
def test_vanilla_serves_vanilla_alone(running: EngineSetup) -> None:
    vanilla = with_(running, **VANILLA)
    assert vanilla.serves(with_(vanilla, batch=2))
    assert not vanilla.serves(running)


def test_options_on_a_cpu() -> None:
    assert engine_options(CPU) == {
        "model_path": "models/target",
        "page_size": 1,
        "skip_tokenizer_init": True,
        "trust_remote_code": False,
        "dtype": "float32",
        "context_length": 512 + SLACK + 60,
        "max_running_requests": 8,
        "random_seed": 42,
        "disable_radix_cache": False,
        "log_level": "info",
        "decode_log_interval": 1_000_000,
        "device": "cpu",
        "attention_backend": "intel_amx",
        "sampling_backend": "pytorch",
        "disable_cuda_graph": True,
        "disable_overlap_schedule": True,
        "sleep_on_idle": True,
        "mem_fraction_static": 0.2,
        "max_total_tokens": 8 * (512 + SLACK + 60 + 2 * 60) + 4096,
        "speculative_algorithm": "PRISM",
        "speculative_draft_model_path": "models/prism",
        "speculative_num_steps": 6,
        "speculative_eagle_topk": 10,
        "speculative_num_draft_tokens": 60,
    }


def test_options_of_vanilla_name_no_drafter() -> None:
    for setup in (CPU, GPU):
        names = engine_options(with_(setup, **VANILLA))
        assert not [name for name in names if name.startswith("speculative")]
        assert names["model_path"] == "models/target"


def test_a_separate_model_drafts_alone() -> None:
    assert engine_options(with_(CPU, architecture="standard"))["speculative_algorithm"] == "STANDALONE"


def test_graphs_cover_the_batch() -> None:
    """Unless the authors' server is imitated, whose graphs are of batch 1 whatever the batch."""
    assert engine_options(GPU)["cuda_graph_max_bs_decode"] == 8
    assert engine_options(with_(GPU, batch=32))["cuda_graph_max_bs_decode"] == 32
    assert engine_options(with_(GPU, server_flags=(GRAPHS_BATCH_1, WARM_CACHE)))["cuda_graph_max_bs_decode"] == 1
    assert engine_options(GPU)["device"] == "cuda"
    assert not {"disable_cuda_graph", "mem_fraction_static"} & set(engine_options(GPU))
    assert "cuda_graph_max_bs_decode" not in engine_options(CPU)


def test_every_cell_has_the_same_attention_and_sampling_kernels() -> None:
    """SGLang takes others for trees than for vanilla on some GPUs; a speed-up would compare those."""
    chain = {"tree": TreeShape(3, 1, 4)}
    for setup in (CPU, GPU):
        kernels = {
            (options["attention_backend"], options["sampling_backend"])
            for changes in ({}, VANILLA, chain, {"architecture": "standard"})
            for options in [engine_options(with_(setup, **changes))]
        }
        assert len(kernels) == 1


def test_what_would_falsify_a_measurement_is_taken_away() -> None:
    ours = {
        "SGLANG_SIMULATE_ACC_LEN": "4",
        "SGLANG_SIMULATE_ACC_METHOD": "multinomial",
        "SGLANG_TEST_RETRACT": "1",
        "SGLANG_PLUGINS": "another",
        "SGLANG_LOG_MS": "1",
        "HOME": "/somewhere",
    }
    for setup in (CPU, GPU):
        given = engine_environment(setup, [], 1, ours)
        assert {name for name, value in given.items() if value is None} == set(ours) - {"SGLANG_LOG_MS", "HOME"}
        assert "SGLANG_LOG_MS" not in given


def test_compiled_kernels_are_kept_from_start_to_start() -> None:
    """Where the user keeps such things, or says; never in the engine's own temporary folder."""
    kept = engine_environment(GPU, [], 1, {"HOME": "/me"})
    assert kept["TORCHINDUCTOR_CACHE_DIR"] == "/me/.cache/prism-ae/inductor"
    assert kept["TRITON_CACHE_DIR"] == "/me/.cache/prism-ae/triton"
    kept = engine_environment(GPU, [], 1, {"HOME": "/me", "XDG_CACHE_HOME": "/cache", "TRITON_CACHE_DIR": "/mine"})
    assert kept["TORCHINDUCTOR_CACHE_DIR"] == "/cache/prism-ae/inductor"
    assert kept["TRITON_CACHE_DIR"] == "/mine"


def test_the_environment() -> None:
    stand_ins = [Path("site/kernels"), Path("site/vision")]
    cpu = engine_environment(with_(CPU, drafting="stock"), stand_ins, 2)
    assert cpu["PRISM_AE_DRAFTING"] == "stock"
    assert cpu["OMP_NUM_THREADS"] == "2"
    assert cpu["SGLANG_USE_CPU_ENGINE"] == "1"
    assert cpu["PYTHONPATH"] == f"site/kernels{os.pathsep}site/vision"
    gpu = engine_environment(GPU, stand_ins, 4)
    assert gpu["PRISM_AE_DRAFTING"] == "exact"
    assert gpu["OMP_NUM_THREADS"] == "4"
    # Never a stand-in beside real kernels, nor the compiler switched off.
    assert not {"PYTHONPATH", "SGLANG_USE_CPU_ENGINE", "TORCHDYNAMO_DISABLE"} & set(gpu)
    assert gpu["HF_HUB_OFFLINE"] == cpu["HF_HUB_OFFLINE"] == "1"


def test_architectures_differ_in_whatever_the_weights_cannot_change() -> None:
    layer = LlamaConfig(30, 32, 48, 1, 4, 2, 1e-5, 10000.0, 256)
    configs = [
        DrafterConfig("eagle", layer),
        DrafterConfig("eagle", layer, 2, (0, 1)),
        DrafterConfig("eagle", layer, 2, (1, 0)),
        DrafterConfig("eagle", layer, 2, (0, 0, 1)),
        DrafterConfig("eagle", layer, 2, (0, 1), (1, 2, 3)),
        DrafterConfig("eagle", layer, 2, (0, 1), (1, 2, 4)),
        DrafterConfig("eagle", dataclasses.replace(layer, num_hidden_layers=2)),
        DrafterConfig("eagle", dataclasses.replace(layer, rope_theta=5e5)),
    ]
    texts = [architecture_text(config) for config in configs]
    assert len(set(texts)) == len(configs)
    assert architecture_text(DrafterConfig("eagle", dataclasses.replace(layer))) == texts[0]
