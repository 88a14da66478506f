"""A wrong file ends with a message that names the file, the key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from raising import raises

from prism_ae.errors import ConfigError
from prism_ae.io.schema import check, read_toml, record, suggest


@record
class Axis:
    label: str
    ticks: tuple[float, ...] = ()


@record
class Figure:
    name: str
    rows: int
    scale: Literal["linear", "log"]
    axes: dict[str, Axis]
    grid: bool = False
    span: tuple[int, int] = (0, 1)
    note: Axis | None = None
    panels: tuple[Axis, ...] = ()


GOOD: dict[str, Any] = {"name": "f", "rows": 2, "scale": "log", "axes": {"x": {"label": "X", "ticks": [1, 2.5]}}}


def message(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check(data, Figure, "figures/f.toml")
    assert caught.value.exit_code == 3
    return caught.value.what


def test_a_sound_table_becomes_a_record() -> None:
    assert check(GOOD, Figure, "f.toml") == Figure("f", 2, "log", {"x": Axis("X", (1.0, 2.5))})
    assert check(GOOD | {"note": {"label": "N"}}, Figure, "f.toml").note == Axis("N")


@pytest.mark.parametrize(
    ("change", "subjects"),
    [
        ({"rows": "2"}, 'rows: "2"'),
        ({"rows": 2.5}, "rows: 2.5"),
        ({"rows": True}, "rows: true"),
        ({"name": 3}, "name: 3"),
        ({"grid": 1}, "grid: 1"),
        ({"grid": "yes"}, 'grid: "yes"'),
        ({"axes": [1]}, "axes: [1]"),
        ({"axes": {"x": 1}}, "axes.x: 1"),
        ({"axes": {"x": {"label": "X", "ticks": 3}}}, "axes.x.ticks: 3"),
        ({"axes": {"x": {"label": "X", "ticks": [1, "a"]}}}, 'axes.x.ticks.1: "a"'),
        ({"scale": "lin"}, "scale: 'linear' 'log' \"lin\" 'linear'?"),
        ({"scale": "zzz"}, "scale: 'linear' 'log' \"zzz\""),
        ({"rowz": 1}, "'rowz' 'rows'"),
        ({"zzz": 1}, "'zzz' name, rows, scale, axes, grid, span, note, panels"),
        ({"axes": {"x": {"lable": "X", "label": "X"}}}, "'axes.x.lable' 'label'"),
        ({"note": {"lable": "X", "label": "X"}}, "'note.lable' 'label'"),
        ({"panels": [{"label": "a", "tick": [1]}]}, "'panels.0.tick' 'ticks'"),
        ({"axes": {"x": {}}}, "'axes.x.label'"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], subjects: str) -> None:
    with raises(ConfigError, "figures/f.toml: ", *subjects.split()):
        check(GOOD | change, Figure, "figures/f.toml")


def test_every_problem_is_told_at_once() -> None:
    lines = message({"rows": "2", "scale": "log", "axes": {}, "colour": 1}).split("\n")
    assert len(lines) == 3
    assert all(line.startswith("figures/f.toml: ") for line in lines)
    assert all(key in line for key, line in zip(("'name'", "rows: ", "'colour'"), lines, strict=True))


def test_dates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('name = 2026-01-01\nrows = 1\nscale = "log"\naxes = {}\n')
    with raises(ConfigError, path, "2026-01-01"):
        check(read_toml(path), Figure, str(path))


def test_a_long_value_is_shortened() -> None:
    assert len(message(GOOD | {"rows": "2" * 1000})) < 120


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (None, ""),
        (b"a = \n", "line 1"),
        (b"a = 1\na = 2\n", "line 2"),
        (b'a = "\xff"\n', "byte 5"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, place: str) -> None:
    path = tmp_path / "f.toml"
    if content is not None:
        path.write_bytes(content)
    with raises(ConfigError, path, place):
        read_toml(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with raises(ConfigError, tmp_path, "Is a directory"):
        read_toml(tmp_path)


def test_closest() -> None:
    assert "'HumanEval'" in suggest("Humaneval", ["gsm8k", "HumanEval"])
    assert "gsm8k" not in suggest("Humaneval", ["gsm8k", "HumanEval"])
    assert "gsm8k, qa" in suggest("xyz", ["gsm8k", "qa"])
    assert suggest("xyz", []) == ""


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert read_toml(tmp_path / "a.toml") == {"name": "x"}


def test_a_key_of_a_thousand_parts(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"{'.'.join('a' * 900)} = 1\n")
    with pytest.raises(ConfigError, match=r"a\.toml"):
        read_toml(tmp_path / "a.toml")
