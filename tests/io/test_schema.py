"""A wrong file ends with a message that names the file, the key and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

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
    ("change", "says"),
    [
        ({"rows": "2"}, 'figures/f.toml: rows: must be a whole number, got "2"'),
        ({"rows": 2.5}, "figures/f.toml: rows: must be a whole number, got 2.5"),
        ({"rows": True}, "figures/f.toml: rows: must be a whole number, got true"),
        ({"name": 3}, 'figures/f.toml: name: must be a text in quotes ("..."), got 3'),
        ({"grid": 1}, "figures/f.toml: grid: must be true or false, got 1"),
        ({"grid": "yes"}, 'figures/f.toml: grid: must be true or false, got "yes"'),
        ({"axes": [1]}, "figures/f.toml: axes: must be a table, got [1]"),
        ({"axes": {"x": 1}}, "figures/f.toml: axes.x: must be a table, got 1"),
        ({"axes": {"x": {"label": "X", "ticks": 3}}}, "axes.x.ticks: must be a list in square brackets, got 3"),
        ({"axes": {"x": {"label": "X", "ticks": [1, "a"]}}}, 'axes.x.ticks.1: must be a number, got "a"'),
        ({"scale": "lin"}, "scale: must be 'linear' or 'log', got \"lin\"; did you mean 'linear'?"),
        ({"scale": "zzz"}, "scale: must be 'linear' or 'log', got \"zzz\""),
        ({"rowz": 1}, "figures/f.toml: unknown key 'rowz'; did you mean 'rows'?"),
        ({"zzz": 1}, "unknown key 'zzz'; there is name, rows, scale, axes, grid, span, note, panels"),
        ({"axes": {"x": {"lable": "X", "label": "X"}}}, "unknown key 'axes.x.lable'; did you mean 'label'?"),
        ({"note": {"lable": "X", "label": "X"}}, "unknown key 'note.lable'; did you mean 'label'?"),
        ({"panels": [{"label": "a", "tick": [1]}]}, "unknown key 'panels.0.tick'; did you mean 'ticks'?"),
        ({"axes": {"x": {}}}, "figures/f.toml: key 'axes.x.label' is missing"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], says: str) -> None:
    assert message(GOOD | change).endswith(says)


def test_every_problem_is_told_at_once() -> None:
    lines = message({"rows": "2", "scale": "log", "axes": {}, "colour": 1}).split("\n")
    assert lines == [
        "figures/f.toml: key 'name' is missing",
        'figures/f.toml: rows: must be a whole number, got "2"',
        "figures/f.toml: unknown key 'colour'; there is name, rows, scale, axes, grid, span, note, panels",
    ]


def test_dates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('name = 2026-01-01\nrows = 1\nscale = "log"\naxes = {}\n')
    with pytest.raises(ConfigError, match=r"f\.toml: 2026-01-01 is a date, which no key takes; write it in quotes"):
        check(read_toml(path), Figure, str(path))


def test_a_long_value_is_shortened() -> None:
    assert len(message(GOOD | {"rows": "2" * 1000})) < 120


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"a = \n", r"is not valid TOML: .*line 1"),
        (b"a = 1\na = 2\n", r"is not valid TOML: .*line 2"),
        (b'a = "\xff"\n', "is not UTF-8 text: .* at byte 5"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "f.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        read_toml(path)
    assert str(path) in caught.value.what


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_toml(tmp_path)


def test_closest() -> None:
    assert suggest("Humaneval", ["gsm8k", "HumanEval"]) == "; did you mean 'HumanEval'?"
    assert suggest("xyz", ["gsm8k", "qa"]) == "; there is gsm8k, qa"
    assert suggest("xyz", []) == ""


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert read_toml(tmp_path / "a.toml") == {"name": "x"}


def test_a_key_of_a_thousand_parts(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"{'.'.join('a' * 900)} = 1\n")
    with pytest.raises(ConfigError, match=r"a\.toml"):
        read_toml(tmp_path / "a.toml")
