"""JSON lines: both layouts, and bad lines named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prism_ae.errors import ConfigError, MissingError
from prism_ae.training import corpus, jsonl


def test_json_lines_round_trip(tmp_path: Path) -> None:
    data = corpus.conversations(30, 2)
    jsonl.write_jsonl(tmp_path / "a.jsonl", data)
    assert jsonl.read_jsonl(tmp_path / "a.jsonl") == data


def test_unicode_line_separators_inside_a_text_are_text(tmp_path: Path) -> None:
    data = ((("one\u2028two", "three\x85four"),),)
    jsonl.write_jsonl(tmp_path / "a.jsonl", data)
    assert jsonl.read_jsonl(tmp_path / "a.jsonl") == data


def test_share_gpt_is_read(tmp_path: Path) -> None:
    messages = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {"from": "human", "value": "no answer to this"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "conversations": messages}) + "\n\n")
    assert jsonl.read_jsonl(path) == ((("Hello", "Hi"),),)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"conversations": []}',
        '{"conversations": [{"user": "a"}]}',
        '{"conversations": [{"user": "a", "assistant": 3}]}',
        '{"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}',
        '{"conversations": [{"from": "human", "value": "a"}]}',
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"conversations": [{"user": "a", "assistant": "b"}]}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 2: not a conversation"):
        jsonl.read_jsonl(path)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        jsonl.read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no conversation"):
        jsonl.read_jsonl(tmp_path / "empty.jsonl")
