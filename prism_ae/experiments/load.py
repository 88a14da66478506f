"""Experiments from TOML, checked once at the border so that everything behind it may trust them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, UsageError
from prism_ae.experiments.kinds import find_kind
from prism_ae.experiments.kinds.base import Kind
from prism_ae.io.schema import check, did_you_mean, read_toml

FOLDERS = ("figures", "tables")
"""Where experiments' files are, in the order in which they are listed."""


def experiment_folder(kind: str = "figures") -> Path:
    """One of `FOLDERS`, or "claims": package data in a wheel, beside the package in a checkout."""
    packaged = Path(__file__).parent / kind
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / kind


def experiment_names() -> tuple[str, ...]:
    """The experiments that come with the package: figures, then tables, each in the order of their numbers."""
    return tuple(_files())


def _files() -> dict[str, Path]:
    """Name -> file of the experiments that come with the package, in order."""
    return {
        path.stem: path
        for kind in FOLDERS
        for path in sorted(experiment_folder(kind).glob("*.toml"), key=lambda path: _natural(path.stem))
    }


def load_experiment(name_or_path: str | Path) -> Kind:
    """An experiment by its name, or from a file of one's own (a path that ends in ``.toml``).

    Raises:
        UsageError: no experiment of that name.
        ConfigError: the file says something impossible; the message names file, key and what would be right.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        files = _files()
        if str(name_or_path) not in files:
            raise UsageError(
                f"there is no experiment '{name_or_path}'{did_you_mean(str(name_or_path), files)}",
                f"experiments: {', '.join(files)}; or give the path of a .toml file",
            )
        path = files[str(name_or_path)]
    return parse_experiment(read_toml(path), str(path))


def parse_experiment(data: dict[str, Any], where: str) -> Kind:
    """An experiment from the tables of its file; ``where`` names the file in messages. Raises ConfigError."""
    experiment = check(data, find_kind(data.get("kind"), where), where)
    if found := list(experiment.problems()):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in found), "correct the file and run again")
    return experiment


def _natural(name: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"(\D*)(\d+)(.*)", name)
    return (match[1], int(match[2]), match[3]) if match else (name, 0, "")
