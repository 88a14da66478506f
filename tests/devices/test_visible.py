"""CUDA_VISIBLE_DEVICES: read as CUDA reads it, and named where it hides a GPU."""

from __future__ import annotations

import pytest

from prism_ae.devices.gpus import Device, Listing, Part
from prism_ae.devices.visible import Found, Gpu, visible_gpus

NAMES = ("NVIDIA A800",) * 4
UUIDS = ("GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333", "GPU-cccc4444")
FOUR = Listing(tuple(Device(number, UUIDS[number], "NVIDIA A800") for number in range(4)))
MIXED = Listing((Device(0, UUIDS[0], "T4"), Device(1, UUIDS[1], "NVIDIA H200")))
PARTS = (Part("MIG-1111", "A100 MIG 1g.10gb"), Part("MIG-2222", "A100 MIG 2g.20gb"))


def unasked(entry: str) -> Part | str:
    raise AssertionError("the order is certain")


def visible(value: str | None, listing: Listing = FOUR, **more: str) -> Found:
    environ = more if value is None else {"CUDA_VISIBLE_DEVICES": value, **more}
    return visible_gpus(listing, environ, unasked)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, list(UUIDS)),
        ("2,0", ["2", "0"]),
        (" 2 , 0 ", ["2", "0"]),
        ("0,", ["0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("GPU-bbbb,0", ["GPU-bbbb", "0"]),
        ("1,9,0", ["1"]),
        ("1,-1,0", ["1"]),
        ("MIG-1234", ["MIG-1234"]),
    ],
)
def test_numbers_count_within_what_the_environment_allows(value: str | None, expected: list[str]) -> None:
    assert [gpu.visible for gpu in visible(value).gpus.values()] == expected


@pytest.mark.parametrize(
    "value",
    ["", "-1", "NoDevFiles", "none", "4,5", "0x1", "0 1", "0;1", "²", "GPU-dddd", "GPU-cccc", "GPU-", "cuda:0", "\x1b"],
)
def test_what_hides_all_is_named(value: str) -> None:
    found = visible(value)
    assert not found.gpus
    assert f"CUDA_VISIBLE_DEVICES={value if value.isprintable() else '?'}" in found.notes[0]


@pytest.mark.parametrize(
    "value", ["0,0", "0,1,0", "GPU-aaaa,0", "0,GPU-aaaa1111", "GPU-aaaa,GPU-aaaa11", "00,0", "MIG-1234,MIG-1234"]
)
def test_a_gpu_that_is_named_twice_hides_all(value: str) -> None:
    found = visible(value)
    assert not found.gpus
    assert f"CUDA_VISIBLE_DEVICES={value}" in found.notes[0]
    assert "one GPU" in found.notes[0]


def test_what_limits_is_named_too() -> None:
    assert "CUDA_VISIBLE_DEVICES=1" in visible("1").notes[0]
    assert "'9'" in visible("1,9,0").notes[0]
    assert visible(None).notes == ()


def test_a_number_means_what_cuda_means() -> None:
    """CUDA counts by speed: of different GPUs only CUDA knows which is its first."""
    asked: list[str] = []

    def ask(entry: str) -> Part | str:
        asked.append(entry)
        return Part(UUIDS[1 - int(entry)], ("NVIDIA H200", "T4")[int(entry)])

    found = visible_gpus(MIXED, {"CUDA_VISIBLE_DEVICES": "0,1"}, ask)
    assert found.gpus == {0: Gpu(UUIDS[1], "NVIDIA H200"), 1: Gpu(UUIDS[0], "T4")}
    assert asked == ["0", "1"]
    twice = visible_gpus(MIXED, {"CUDA_VISIBLE_DEVICES": f"0,{UUIDS[1]}"}, ask)
    assert "one GPU" in twice.notes[0]
    assert visible("1", MIXED, CUDA_DEVICE_ORDER="PCI_BUS_ID").gpus == {0: Gpu("1", "NVIDIA H200")}
    assert visible(UUIDS[1], MIXED).gpus == {0: Gpu(UUIDS[1], "NVIDIA H200")}


def test_a_number_that_nobody_can_tell_is_no_gpu() -> None:
    found = visible_gpus(MIXED, {"CUDA_VISIBLE_DEVICES": "1"}, lambda entry: "cuInit failed with CUDA error 999")
    assert not found.gpus
    assert "CUDA_VISIBLE_DEVICES=1" in found.unusable[0]
    assert "999" in found.unusable[0]


def test_a_lost_gpu_keeps_its_number() -> None:
    listing = Listing(FOUR.devices[1:], {0: "GPU is lost"})
    found = visible(None, listing)
    assert list(found.gpus) == [1, 2, 3]
    assert found.unusable == {0: "GPU is lost"}
    # CUDA may not count it: numbers behind it are CUDA's to tell, whatever the order.
    found = visible_gpus(
        listing, {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, lambda entry: Part(UUIDS[2], "x")
    )
    assert found.unusable == {0: "GPU is lost"}
    assert found.gpus == {1: Gpu(UUIDS[2], "NVIDIA A800")}


def test_a_divided_gpu_is_no_whole_one() -> None:
    """CUDA would take its first MIG device, and a number would be recorded for a GPU that is larger."""
    several = Listing((Device(0, UUIDS[0], "A100", True, PARTS), Device(1, UUIDS[1], "A100")))
    found = visible(None, several)
    assert list(found.gpus) == [1]
    assert "MIG-1111, MIG-2222" in found.unusable[0]
    assert visible("MIG-2222", several).gpus == {0: Gpu("MIG-2222", "A100 MIG 2g.20gb")}
    assert "one GPU" in visible("MIG-2222,MIG-22", several).notes[0]
    one = Listing((Device(0, UUIDS[0], "A100", True, PARTS[:1]),))
    for value in (None, "0", UUIDS[0]):
        assert visible(value, one).gpus == {0: Gpu("MIG-1111", "A100 MIG 1g.10gb")}
    none = Listing((Device(0, UUIDS[0], "A100", True),))
    assert "MIG" in visible(None, none).unusable[0]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "NVIDIA_VISIBLE_DEVICES=void"),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, "NVIDIA_VISIBLE_DEVICES=none"),
        ({"HIP_VISIBLE_DEVICES": "0"}, "HIP_VISIBLE_DEVICES"),
        ({"ROCR_VISIBLE_DEVICES": ""}, "ROCR_VISIBLE_DEVICES"),
        ({"SLURM_JOB_ID": "7"}, "Slurm gave this job no GPU"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2,3"}, "SLURM_JOB_GPUS=2,3"),
        ({"GPU_DEVICE_ORDINAL": "0"}, "GPU_DEVICE_ORDINAL=0"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "CUDA_VISIBLE_DEVICES=0"),
    ],
)
def test_what_in_the_environment_may_be_the_reason(environ: dict[str, str], said: str) -> None:
    found = visible_gpus(Listing(words=("no devices were found",)), environ, unasked)
    assert not found.gpus
    assert "no devices were found" in found.notes
    assert said in "; ".join(found.notes)
    assert said not in "; ".join(visible_gpus(FOUR, environ, unasked).notes) or said.startswith("CUDA")
