"""GPUs and torch: what the driver says, what the environment hides, and a torch that cannot use them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from environments import environment, wrong

from prism_ae.devices.gpus import Listing, parse_smi
from prism_ae.devices.visible import visible_gpus
from prism_ae.doctor import accelerators
from prism_ae.doctor.accelerators import Torch, judge_gpus, judge_torch, read_torch
from prism_ae.doctor.findings import Finding
from prism_ae.processes.child import Said

TWO = "0, GPU-aaaa1111-0000, NVIDIA A100\n1, GPU-bbbb2222-0000, NVIDIA A100\n"


def found(
    smi: str, variables: dict[str, str] | None = None, gpus: str | None = None, how: str = "", driver: bool = True
) -> list[Finding]:
    listing = parse_smi(Said(smi, how=how))
    visible = visible_gpus(listing, variables or {}, lambda entry: "not asked")
    return list(judge_gpus(listing, visible, signs=driver, gpus=gpus))


@pytest.mark.parametrize(
    ("smi", "how", "words"),
    [
        (TWO + "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", "", "infoROM"),
        (TWO + "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n", "exit code 14", "exit code 14"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "exit code 18", "version mismatch"),
        ("No devices were found\n", "exit code 6", "No devices were found"),
        ("No devices were found\n", "", "No devices were found"),
        ("Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n", "exit code 15", "handle"),
        ("", "no answer within 60 s", "no answer"),
    ],
)
def test_the_drivers_complaints_are_named(smi: str, how: str, words: str) -> None:
    assert words in wrong(found(smi, how=how))["GPUs"].what


def test_a_gpu_that_is_lost_beside_one_that_works() -> None:
    [finding] = wrong(found("0, GPU-aaaa1111-0000, NVIDIA A100\n1, [Unknown Error]\n")).values()
    assert "GPU 1" in finding.what
    assert "Unknown Error" in finding.what


@pytest.mark.parametrize("visible", ["0,0", "GPU-aaaa,0", "1,GPU-bbbb2222", "2,3", "", "-1", "NoDevFiles", "0 0"])
def test_what_the_environment_hides_is_named_with_its_variable(visible: str) -> None:
    [finding] = wrong(found(TWO, {"CUDA_VISIBLE_DEVICES": visible})).values()
    assert f"CUDA_VISIBLE_DEVICES={visible}" in finding.what
    assert "CUDA_VISIBLE_DEVICES" in finding.remedy
    [finding] = wrong(found(TWO, {"CUDA_VISIBLE_DEVICES": visible}, gpus="0")).values()
    assert finding.level == "problem"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "NVIDIA_VISIBLE_DEVICES=void"),
        ({"SLURM_JOB_ID": "7"}, "Slurm"),
        ({"SLURM_JOB_GPUS": "2"}, "SLURM_JOB_GPUS=2"),
        ({"HIP_VISIBLE_DEVICES": "0"}, "AMD"),
    ],
)
def test_where_there_is_no_gpu_the_environments_hints_are_given(variables: dict[str, str], words: str) -> None:
    [finding] = found("", variables, driver=False)
    assert words in finding.what
    assert wrong(found("", variables, gpus="0", driver=False))["GPUs"].level == "problem"


def test_machines_without_a_driver_use_the_cpu() -> None:
    [finding] = found("", driver=False)
    assert finding.level == "ok"


def test_gpus_that_are_asked_for_and_there() -> None:
    assert not wrong(found(TWO, gpus="1"))
    assert wrong(found(TWO, gpus="0,2"))["GPUs"].level == "problem"


def answer(**said: object) -> str:
    given = {"version": "2.13.0", "cuda": "12.8", "devices": ["NVIDIA A100"], "words": []} | said
    return "a library's greeting\n" + json.dumps(given)


@pytest.mark.parametrize(
    ("said", "gpus", "level", "words"),
    [
        (Said(answer()), 1, "ok", "12.8"),
        (Said(answer(cuda=None, devices=[])), 0, "ok", "CPU"),
        (Said(answer(cuda=None, devices=[])), 1, "warning", "CPU"),
        (Said(answer(devices=[], words=["The NVIDIA driver on your system is too old"])), 1, "warning", "too old"),
        (Said(answer()), 2, "warning", "1 of the 2"),
        (Said(json.dumps({"error": "OSError: libcudart.so.12: cannot open"})), 0, "problem", "libcudart"),
        (Said("", how="signal SIGILL"), 0, "problem", "SIGILL"),
        (Said("", "Fatal Python error: init_fs_encoding", "exit code 1"), 0, "problem", "init_fs_encoding"),
        (Said("", how="no answer within 60 s"), 0, "problem", "no answer"),
        (Said("not JSON"), 0, "problem", "not JSON"),
        (Said("[]"), 0, "problem", "[]"),
        (Said(""), 0, "problem", "nothing"),
    ],
)
def test_what_torch_says(said: Said, gpus: int, level: str, words: str) -> None:
    finding = judge_torch(read_torch(said), gpus, asked=False)
    assert finding.level == level
    assert words in finding.what


def test_a_torch_that_cannot_use_gpus_that_are_asked_for_is_a_problem() -> None:
    assert judge_torch(Torch(version="2.13.0+cpu"), 1, asked=True).level == "problem"


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    torch = accelerators.ask_torch()
    assert torch.error == ""
    import torch as ours

    assert torch.version == ours.__version__


def test_a_foreign_torch_is_said_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('no torch today')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert "no torch today" in accelerators.ask_torch().error


def test_the_whole_check_with_a_driver_that_complains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!{sys.executable}\nprint('Failed to initialize NVML: N/A')\nraise SystemExit(255)\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    findings = list(accelerators.check(environment(gpus="0")))
    assert wrong(findings)["GPUs"].level == "problem"
    assert any(finding.name == "torch" for finding in findings)


def test_an_empty_listing_is_no_driver() -> None:
    listing = Listing()
    [finding] = judge_gpus(listing, visible_gpus(listing, {}, lambda entry: ""), signs=False, gpus=None)
    assert finding.level == "ok"


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0,1"},
        {"SLURM_STEP_GPUS": "0"},
        {"SLURM_GPUS_ON_NODE": "2"},
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        {"NVIDIA_VISIBLE_DEVICES": "GPU-aaaa"},
        {"PBS_GPUFILE": "/var/spool/gpus"},
    ],
)
def test_no_gpu_where_one_was_given_is_a_warning(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _level_without_a_gpu(Listing(words=("NVML: absent",)), variables, tmp_path, monkeypatch) == "warning"


@pytest.mark.parametrize(
    "variables",
    [{}, {"NVIDIA_VISIBLE_DEVICES": "void"}, {"NVIDIA_VISIBLE_DEVICES": "none"}, {"SLURM_GPUS_ON_NODE": "0"}],
)
def test_no_gpu_where_none_was_given_is_fine(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _level_without_a_gpu(Listing(words=("NVML: absent",)), variables, tmp_path, monkeypatch) == "ok"
    failed = Listing(words=("NVML: signal SIGABRT",), driver=True)
    assert _level_without_a_gpu(failed, variables, tmp_path, monkeypatch) == "warning"


def _level_without_a_gpu(
    listing: Listing, variables: dict[str, str], nothing: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The level of the whole check's finding, on a machine that has no driver's files."""
    monkeypatch.setattr(accelerators, "_DRIVER", (nothing / "driver",))
    monkeypatch.setenv("PATH", str(nothing))
    monkeypatch.setattr(accelerators, "list_gpus", lambda: listing)
    monkeypatch.setattr(accelerators, "ask_torch", lambda: Torch(version="2"))
    [finding] = [one for one in accelerators.check(environment(variables=variables)) if one.name == "GPUs"]
    return finding.level


@pytest.mark.parametrize("smi", ["0, [Unknown Error]\n1, [GPU is lost]\n", "0, [Unknown Error]\n"])
@pytest.mark.parametrize("driver", [True, False])
def test_lost_gpus_alone_are_not_contradicted(smi: str, driver: bool) -> None:
    findings = found(smi, driver=driver)
    assert {finding.level for finding in findings} == {"warning"}
    assert not [finding for finding in findings if "lists none" in finding.what]
