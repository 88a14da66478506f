"""Devices: what --gpus and --workers mean, and what is refused before anything starts."""

from __future__ import annotations

import pytest
from raising import raises

from prism_ae.devices.slots import plan_slots, usable_cores
from prism_ae.devices.visible import Found, Gpu
from prism_ae.errors import DeviceError, UsageError

TWO = Found({0: Gpu("0", "NVIDIA H200"), 1: Gpu("1", "NVIDIA A800")})


def unasked() -> Found:
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
    with raises(DeviceError, "GPU 2", "0 (NVIDIA H200)", "1 (NVIDIA A800)"):
        plan_slots("0,2", None, 2, "a cpu", lambda: TWO)
    with raises(DeviceError, "GPU 0", "none", "--gpus"):
        plan_slots("0", None, 2, "a cpu", lambda: Found({}))


def test_why_a_gpu_is_not_here_is_part_of_the_message() -> None:
    lost = Found({1: Gpu("GPU-b", "NVIDIA A800")}, {0: "GPU is lost"}, ("CUDA_VISIBLE_DEVICES=5",))
    with raises(DeviceError, "GPU 0", "GPU is lost", "1 (NVIDIA A800)", "--gpus 1"):
        plan_slots("1,0", None, 2, "a cpu", lambda: lost)
    with raises(DeviceError, "GPU 5", "CUDA_VISIBLE_DEVICES=5") as caught:
        plan_slots("5", None, 2, "a cpu", lambda: lost)
    assert "\n" not in caught.value.what
    whys = [slot.why for slot in plan_slots("0,1,5", None, 2, "a cpu", lambda: lost, elsewhere=True)]
    assert whys == ["GPU is lost", "", "CUDA_VISIBLE_DEVICES=5"]


def test_workers_are_for_the_cpu_and_at_least_one() -> None:
    with raises(UsageError, "--gpus", "--workers"):
        plan_slots("0", 2, 2, "a cpu", lambda: TWO)
    with raises(UsageError, "--workers", 0):
        plan_slots(None, 0, 2, "a cpu", unasked)


def test_there_is_at_least_one_core() -> None:
    import os

    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_gpus_of_another_machine_may_be_planned_for_and_say_so() -> None:
    here, absent = plan_slots("1,7", None, 8, "a cpu", lambda: TWO, elsewhere=True)
    assert (here.name, here.here, here.threads) == ("NVIDIA A800", True, 4)
    assert (absent.label, absent.name, absent.here) == ("gpu 7", "not here", False)
    assert absent.environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert not any(slot.here for slot in plan_slots("0,1", None, 2, "a cpu", lambda: Found({}), elsewhere=True))
    with raises(UsageError, "--gpus", "0,0"):
        plan_slots("0,0", None, 2, "a cpu", lambda: Found({}), elsewhere=True)
    with raises(DeviceError, "GPU 7"):
        plan_slots("1,7", None, 8, "a cpu", lambda: TWO)
