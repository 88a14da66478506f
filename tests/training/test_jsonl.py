"""JSON lines: both layouts, and bad lines named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from raising import raises

from prism_ae.errors import ConfigError, MissingError
from prism_ae.mini import corpus
from prism_ae.training import jsonl


def test_json_lines_round_trip(tmp_path: Path) -> None:
    data = corpus.conversations(30, 2)
    jsonl.write_jsonl(tmp_path / "a.jsonl", data)
    assert jsonl.read_conversations(tmp_path / "a.jsonl").conversations == data


def test_unicode_line_separators_inside_a_text_are_text(tmp_path: Path) -> None:
    data = ((("one\u2028two", "three\x85four"),),)
    jsonl.write_jsonl(tmp_path / "a.jsonl", data)
    assert jsonl.read_conversations(tmp_path / "a.jsonl").conversations == data


def test_share_gpt_is_read(tmp_path: Path) -> None:
    messages = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi"},
        {"from": "human", "value": "no answer to this"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "conversations": messages}) + "\n\n")
    assert jsonl.read_conversations(path).conversations == ((("Hello", "Hi"),),)


def share_gpt(*said: tuple[object, object]) -> str:
    return json.dumps({"conversations": [{"from": side, "value": text} for side, text in said]})


GOOD = (("human", "a"), ("gpt", "b"))


@pytest.mark.parametrize(
    ("line", "turns", "reason"),
    [
        ("{", (), "not valid JSON"),
        ("{}", (), "not a list of messages"),
        ('{"conversations": 3}', (), "not a list of messages"),
        ('{"conversations": ["a", "b"]}', (), "not a list of messages"),
        ("3", (), "not a list of messages"),
        ('{"conversations": []}', (), "no question that is answered"),
        ('{"conversations": [{"user": "a"}]}', (), "no text"),
        ('{"conversations": [{"user": "a", "assistant": 3}]}', (), "no text"),
        ('{"conversations": [{"user": "a", "assistant": "b"}, {"user": "c", "assistant": " "}]}', 1, "empty"),
        (share_gpt(("human", "a")), (), "no question that is answered"),
        (share_gpt(("system", "s")), (), "no question that is answered"),
        (share_gpt(("gpt", "hi"), *GOOD), 1, "begins with an answer"),
        (share_gpt(("system", "s"), ("gpt", "hi"), ("gpt", "ho"), *GOOD), 1, "begins with an answer"),
        (share_gpt(*GOOD, ("human", "c"), ("tool", "x"), ("gpt", "d")), 1, "'tool'"),
        (share_gpt(*GOOD, ("observation", "x"), *GOOD), 1, "'observation'"),
        (share_gpt(*GOOD, ("system", "s"), *GOOD), 1, "'system'"),
        (share_gpt(*GOOD, ("human", "c"), ("human", "d"), ("gpt", "e")), 1, "one side in a row"),
        (share_gpt(*GOOD, ("human", "c"), ("gpt", "")), 1, "empty"),
        (share_gpt(*GOOD, ("human", "\n"), ("gpt", "d")), 1, "empty"),
        (share_gpt(*GOOD, ("human", None)), 1, "no text"),
        (share_gpt(*GOOD, ("human", ["c"]), ("gpt", "d")), 1, "no text"),
        (share_gpt(*GOOD, ("human", "c"), ("gpt", "\ud800")), 1, "surrogate"),
        (share_gpt(*GOOD, ("human", "\udfff c"), ("gpt", "d")), 1, "surrogate"),
        (share_gpt(*GOOD, ([], "c"), ("gpt", "d")), 1, "a message from"),
        (share_gpt(*GOOD, ("human", "no answer to this")), 1, ""),
        (json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}), 1, ""),
        (
            json.dumps({"conversations": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}),
            (),
            "tool",
        ),
    ],
)
def test_a_conversation_is_used_up_to_its_first_defect(
    tmp_path: Path, line: str, turns: int | tuple[()], reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"conversations": [{"user": "x", "assistant": "y"}]}\n\n' + line + "\n")
    told = jsonl.read_conversations(path)
    assert told.conversations == ((("x", "y"),), *([(("a", "b"),)] if turns else []))
    assert told.records == 2
    assert told.places[0] == "line 1"
    if not reason:
        assert told.defects == ()
        return
    (defect,) = told.defects
    assert reason in defect.reason
    assert (defect.count, defect.first) == (1, "line 3")
    assert "line 3" in told.in_words()[1]
    # Alone in a file it is an error where it leaves nothing, and names the file and the place.
    path.write_text(line)
    if not turns:
        with pytest.raises(ConfigError, match=r"a\.jsonl, line 1: ") as caught:
            jsonl.read_conversations(path)
        assert reason in caught.value.what


def test_defects_of_one_kind_are_counted_together(tmp_path: Path) -> None:
    lines = [share_gpt(*GOOD), *['{"a'] * 3, *[share_gpt(("gpt", "x"), *GOOD)] * 2, "{"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    told = jsonl.read_conversations(tmp_path / "a.jsonl")
    assert [(defect.count, defect.first) for defect in told.defects] == [(4, "line 2"), (2, "line 5")]
    assert told.in_words()[0].startswith("3 of 7 ")


def test_one_array_is_read_like_lines(tmp_path: Path) -> None:
    """As ShareGPT's own files are."""
    entries = [json.loads(share_gpt(*GOOD)), {"conversations": []}, json.loads(share_gpt(*GOOD))]
    for number, indent in enumerate((None, 1)):
        path = tmp_path / f"{number}.json"
        path.write_text("\ufeff" + json.dumps(entries, indent=indent))
        told = jsonl.read_conversations(path)
        assert told.conversations == ((("a", "b"),),) * 2
        assert told.places == ("entry 1", "entry 3")
        assert told.defects[0].first == "entry 2"


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        jsonl.read_conversations(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with raises(ConfigError, tmp_path / "empty.jsonl"):
        jsonl.read_conversations(tmp_path / "empty.jsonl")
