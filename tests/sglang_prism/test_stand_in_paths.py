"""An installed package is never shadowed; an absent one is stood in for, in the processes of an engine alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from prism_ae.sglang_prism.stand_ins import paths


def _install(monkeypatch: pytest.MonkeyPatch, origins: dict[str, str | None]) -> list[str]:
    """Pretend that exactly these packages are found, there; returns the names of the packages stood in for."""
    specs = {name: ModuleSpec(name, None, origin=origin) for name, origin in origins.items()}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    return [next(folder.iterdir()).name for folder in paths.stand_in_paths()]


def test_each_package_is_stood_in_for_only_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = "/usr/lib/python3/site-packages/{}/__init__.py"
    kernel, vision, audio = "sgl_kernel", "torchvision", "soundfile"
    assert _install(monkeypatch, {}) == [kernel, vision, audio]
    assert _install(monkeypatch, {kernel: elsewhere.format(kernel)}) == [vision, audio]
    assert _install(monkeypatch, {vision: elsewhere.format(vision)}) == [kernel, audio]
    assert _install(monkeypatch, {vision: None, kernel: elsewhere, audio: elsewhere}) == []


def test_a_stand_in_on_the_path_is_not_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    here: dict[str, str | None] = {
        package: f"{folder}/{package}/__init__.py" for package, folder in paths._FOLDERS.items()
    }
    assert _install(monkeypatch, here) == ["sgl_kernel", "torchvision", "soundfile"]


def test_the_stand_ins_import_and_leave_existing_ops_alone() -> None:
    code = """
import torch
library = torch.library.Library("sgl_kernel", "DEF")
library.define("decode_attention_cpu(Tensor q) -> Tensor")
real = torch.ops.sgl_kernel.decode_attention_cpu
import sgl_kernel, soundfile, torchvision
from prism_ae.sglang_prism.stand_ins.attention import extend_attention_cpu
assert torch.ops.sgl_kernel.decode_attention_cpu is real
assert torch.ops.sgl_kernel.extend_attention_cpu is extend_attention_cpu
assert all(callable(getattr(sgl_kernel, name)) for name in sgl_kernel.__all__)
from torchvision.io import decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional, Resize
for refused, package in (
    (decode_jpeg, "torchvision"),
    (functional.resize, "torchvision"),
    (Resize, "torchvision"),
    (soundfile.read, "soundfile"),
):
    try:
        refused()
    except NotImplementedError as error:
        assert f"{package} is not installed" in str(error), error
    else:
        raise AssertionError(refused)
assert not hasattr(torchvision, "__path_of_nothing__")
"""
    folders = ":".join(map(str, paths._FOLDERS.values()))
    environment = {"PYTHONPATH": f"{folders}:{Path(__file__).parents[2]}", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
