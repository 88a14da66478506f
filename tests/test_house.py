"""The house's own rules: a class's name means one thing, and a room imports only from the rooms below it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest


def named_twice(package: Path) -> dict[str, list[str]]:
    """The classes at the top level of a package's modules, public or private, whose name stands more than once."""
    places = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.col_offset:
                places[node.name].append(f"{path.relative_to(package).as_posix()}:{node.lineno}")
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_class_name_stands_twice(repository: Path) -> None:
    assert named_twice(repository / "prism_ae") == {}


def test_a_class_name_that_stands_twice_shows(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "one.py").write_text("class Cell:\n    class Inner: ...\nclass _Part: ...\nclass Batch: ...\n")
    (tmp_path / "room" / "two.py").write_text("if True:\n    class Inner: ...\nclass Cell: ...\n\nclass _Part: ...\n")
    assert named_twice(tmp_path) == {"Cell": ["one.py:1", "room/two.py:3"], "_Part": ["one.py:3", "room/two.py:5"]}


LAYERS = [
    [room.strip() for room in floor.split("|")]
    for floor in tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ][0]["layers"]
]


@pytest.mark.parametrize(
    ("room", "other", "refused"),
    [
        ("cli", "errors", False),
        ("errors", "cli", True),
        ("analysis", "drawing", True),
        ("execution", "training", True),
        ("decoding", "sglang_prism", True),
        ("attic", "errors", True),
    ],
)
def test_make_lint_refuses_an_import_of_a_higher_room(
    room: str, other: str, refused: bool, repository: Path, tmp_path: Path
) -> None:
    """In a package of empty rooms: upwards, sideways, and from a room that has no place in the contract."""
    shutil.copy2(repository / "pyproject.toml", tmp_path)
    for name in ["", room, *(name for floor in LAYERS for name in floor)]:
        (tmp_path / "prism_ae" / name).mkdir(exist_ok=True)
        (tmp_path / "prism_ae" / name / "__init__.py").touch()
    (tmp_path / "prism_ae" / room / "module.py").write_text(f"from prism_ae import {other}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "BROKEN" in done.stdout) == (int(refused), refused), done.stdout + done.stderr
