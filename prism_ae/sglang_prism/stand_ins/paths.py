"""The stand-ins that the processes of an engine need."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SITE = Path(__file__).parent / "site"
_FOLDERS = {"sgl_kernel": _SITE / "kernels", "torchvision": _SITE / "vision", "soundfile": _SITE / "audio"}


def stand_in_paths() -> list[Path]:
    """The folders that belong at the front of ``PYTHONPATH``: one for each package that is not installed.

    The packages are looked up without importing them. A stand-in that is already on the path counts as not installed,
    so a process that an engine starts gets the same answer.
    """
    return [folder for package, folder in _FOLDERS.items() if is_stood_in(package)]


def is_stood_in(package: str) -> bool:
    """Whether one of these packages is not installed, so that a stand-in is, or has to be, on the path."""
    return not _installed(package, _FOLDERS[package])


def _installed(package: str, folder: Path) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and not (spec.origin and Path(spec.origin).is_relative_to(folder))
