"""Variables that change a measurement are named; what a run sets itself is not."""

from __future__ import annotations

import pytest
from environments import environment, levels, wrong

from prism_ae.doctor import variables
from prism_ae.doctor.variables import judge_variables
from prism_ae.engines.sglang.options import engine_environment
from prism_ae.engines.sglang.server import PLUGIN


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SGLANG_SIMULATE_ACC_LEN", "4"),
        ("SGLANG_TEST_RETRACT", "true"),
        ("SGLANG_PLUGINS", "other,mine"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("TORCH_COMPILE_DISABLE", "yes"),
        ("CUDA_LAUNCH_BLOCKING", "1"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ("TORCH_LOGS", "+dynamo"),
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("NVIDIA_TF32_OVERRIDE", "0"),
        ("NCCL_DEBUG", "INFO"),
        ("TRITON_INTERPRET", "1"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so"),
        ("PYTHONMALLOC", "debug"),
        ("PYTHONDEVMODE", "1"),
        ("PYTHONWARNINGS", "error::DeprecationWarning"),
        ("OMP_PROC_BIND", "close"),
        ("KMP_AFFINITY", "compact"),
        ("PRISM_AE_DRAFTING", "stock"),
        ("WORLD_SIZE", "8"),
    ],
)
def test_what_changes_a_measurement_is_named_with_its_remedy(name: str, value: str) -> None:
    found = wrong(judge_variables({name: value}, overridden=()))
    assert list(found) == [name]
    assert f"{name}={value}" in found[name].what
    assert name in found[name].remedy or "torchrun" in found[name].remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_LAUNCH_BLOCKING", "0"),
        ("CUDA_LAUNCH_BLOCKING", ""),
        ("TORCHDYNAMO_DISABLE", "False"),
        ("NCCL_DEBUG", "WARN"),
        ("PYTHONMALLOC", "pymalloc"),
        ("PYTHONWARNINGS", "ignore"),
        ("SGLANG_PLUGINS", f"other, {PLUGIN}"),
        ("SGLANG_SIMULATE_ACC_LEN", ""),
        ("HOME", "/home/me"),
    ],
)
def test_a_switch_that_is_off_is_no_trouble(name: str, value: str) -> None:
    assert levels(judge_variables({name: value}, overridden=())) == {"ok"}


def test_sglangs_other_variables_are_named_without_their_values() -> None:
    given = {"SGLANG_ENABLE_SOMETHING_NEW": "1", "SGLANG_API_KEY": "very-secret", "SGL_OLD": "2"}
    [finding] = wrong(judge_variables(given, overridden=())).values()
    assert "secret" not in finding.what + finding.remedy
    assert all(name in finding.what and name in finding.remedy for name in given)


def test_what_a_run_sets_itself_is_only_noted() -> None:
    findings = list(variables.check(environment(variables={"OMP_NUM_THREADS": "64", "MKL_NUM_THREADS": "8"})))
    assert levels(findings) == {"ok"}
    assert {finding.name for finding in findings} == {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def test_what_a_run_takes_away_is_what_doctor_says_it_takes_away() -> None:
    """The two have one rule: what an engine's environment removes is a finding."""
    given = {"SGLANG_SIMULATE_ACC_LEN": "4", "SGLANG_TEST_X": "1", "SGLANG_PLUGINS": "other", "HOME": "/"}
    from pathlib import Path

    from prism_ae.engines.sglang.options import EngineSetup

    setup = EngineSetup(Path("t"), None, "", None, 1, 64, "float32", 0, "exact", "cpu", ())
    removed = {name for name, value in engine_environment(setup, [], 1, given).items() if value is None}
    assert removed == set(wrong(judge_variables(given, overridden=())))
