"""Devices: what --gpus and --workers mean, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from prism_ae.errors import DeviceError, UsageError
from prism_ae.execution.devices import Gpu, plan_slots, usable_cores, visible_gpus

ANSWER = "0, GPU-aaaa1111, NVIDIA H200\n1, GPU-bbbb2222, NVIDIA A800\n2, GPU-cccc3333, NVIDIA A800\n"
TWO = (Gpu("0", "NVIDIA H200"), Gpu("1", "NVIDIA A800"))


def unasked() -> tuple[Gpu, ...]:
    raise AssertionError("nobody asked for GPUs")


def test_the_cpu_has_a_worker_per_core_with_one_thread() -> None:
    slots = plan_slots(None, None, 4, "a cpu", unasked)
    assert len(slots) == 4
    assert {(slot.device, slot.name, slot.threads) for slot in slots} == {("cpu", "a cpu", 1)}
    assert slots[0].environment == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    assert len(plan_slots(None, 3, 4, "a cpu", unasked)) == 3


def test_each_gpu_has_a_worker_that_sees_it_alone() -> None:
    slots = plan_slots("1,0", None, 8, "a cpu", lambda: TWO)
    assert [(slot.label, slot.device, slot.name) for slot in slots] == [
        ("gpu 1", "cuda:0", "NVIDIA A800"),
        ("gpu 0", "cuda:0", "NVIDIA H200"),
    ]
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["1", "0"]
    assert {slot.threads for slot in slots} == {4}


@pytest.mark.parametrize("text", ["", "0,", "a", "0;1", "-1", "0,0", "0.5", "²"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        plan_slots(text, None, 2, "a cpu", lambda: TWO)


def test_a_gpu_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(DeviceError, match=r"no GPU 2; GPUs here: 0 \(NVIDIA H200\), 1 \(NVIDIA A800\)"):
        plan_slots("0,2", None, 2, "a cpu", lambda: TWO)
    with pytest.raises(DeviceError, match=r"GPUs here: none\n  leave --gpus out"):
        plan_slots("0", None, 2, "a cpu", lambda: ())


def test_workers_are_for_the_cpu_and_at_least_one() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        plan_slots("0", 2, 2, "a cpu", lambda: TWO)
    with pytest.raises(UsageError, match="at least 1"):
        plan_slots(None, 0, 2, "a cpu", unasked)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333"]),
        ("2,0", ["2", "0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("", []),
        ("1,9,0", ["1"]),
        ("MIG-1234", ["MIG-1234"]),
    ],
)
def test_numbers_count_within_what_the_environment_allows(visible: str | None, expected: list[str]) -> None:
    assert [gpu.visible for gpu in visible_gpus(ANSWER, visible)] == expected


def test_a_name_follows_its_gpu() -> None:
    assert [gpu.name for gpu in visible_gpus(ANSWER, "2,0")] == ["NVIDIA A800", "NVIDIA H200"]


def test_there_is_at_least_one_core() -> None:
    import os

    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_gpus_of_another_machine_may_be_planned_for_and_say_so() -> None:
    here, absent = plan_slots("1,7", None, 8, "a cpu", lambda: TWO, elsewhere=True)
    assert (here.name, here.here, here.threads) == ("NVIDIA A800", True, 4)
    assert (absent.label, absent.name, absent.here) == ("gpu 7", "not here", False)
    assert absent.environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert not any(slot.here for slot in plan_slots("0,1", None, 2, "a cpu", lambda: (), elsewhere=True))
    with pytest.raises(UsageError, match="names a GPU twice"):
        plan_slots("0,0", None, 2, "a cpu", lambda: (), elsewhere=True)
    with pytest.raises(DeviceError, match="no GPU 7"):
        plan_slots("1,7", None, 8, "a cpu", lambda: TWO)
