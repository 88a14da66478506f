"""Files that are almost right: strategies that spoil a real one, and what is asked of who reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from prism_ae.errors import PrismError

T = TypeVar("T")

MANY = 20
"""Times as many examples in the heavy profile."""

amounts = pytest.mark.parametrize(
    "times", [pytest.param(1, id="some"), pytest.param(MANY, id="many", marks=pytest.mark.heavy)]
)
"""Runs a test twice: quickly, and with `MANY` times the examples."""

_LONGEST = 20_000
"""Characters of a message: the largest lists eight problems with what was found, each cut."""


def survives(
    examples: int, strategy: st.SearchStrategy[T], enter: Callable[[T], object], pinned: Sequence[T] = ()
) -> None:
    """Calls ``enter`` with what the strategy draws, always the same: it returns, or raises a `PrismError`.

    Args:
        examples: drawn.
        enter: an entrance; what it asserts of a result counts too.
        pinned: what was found once, tried first.
    """
    for case in pinned:
        _entered(enter, case)

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def inner(case: T) -> None:
        _entered(enter, case)

    inner()


def _entered(enter: Callable[[T], object], case: T) -> None:
    refused: PrismError | None = None
    try:
        enter(case)
    except PrismError as error:
        refused = error
    if refused is not None:
        assert type(refused) is not PrismError, "an exit code of its own"
        assert refused.what.strip()
        assert len(str(refused)) < _LONGEST


NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 7, 10**9, 2**31, 2**63, 10**30, 10**400, -(10**400), 0.5, -0.0, 1e-320, 1e308, 1e400, float("nan")]
)
WORDS = st.sampled_from(
    [
        "",
        " ",
        "1",
        "null",
        "llama",
        "../up",
        "/etc/passwd",
        "a\0b",
        "\ud800",
        "é▁🙂",
        "{",
        "}",
        "{0}",
        "{user}",
        "x" * 300,
    ]
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | st.integers(-9, 9) | st.floats() | st.text(max_size=6)
KEYS = WORDS | st.text(max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)
"""Any JSON value, Python's NaN and infinities among them."""

Place = tuple[str | int, ...]


def places(data: Any, but: Sequence[str] = ()) -> list[Place]:
    """The way to every value inside ``data``, without what lies below a key of ``but``."""
    found: list[Place] = []
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        found += [(key,), *([] if key in but else [(key, *rest) for rest in places(value, but)])]
    return found


@st.composite
def spoiled(draw: st.DrawFn, data: Any, but: Sequence[str] = (), values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A copy of JSON data with one to three things wrong: a key less, a key more, another value."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        known = places(data, but)
        if not known:
            return draw(values)
        place = draw(st.sampled_from(known))
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        what = draw(st.sampled_from(["replace", "replace", "type", "drop", "add", "move"]))
        if what == "replace":
            inner[place[-1]] = draw(values)
        elif what == "type":
            inner[place[-1]] = _almost(draw(st.sampled_from(range(5))), inner[place[-1]])
        elif what == "drop":
            del inner[place[-1]]
        elif what == "move":
            other = draw(st.sampled_from(known))
            inner[place[-1]] = _at(data, other)
        elif isinstance(inner, dict):
            inner[draw(KEYS)] = draw(values)
        else:
            inner.insert(int(place[-1]), draw(values))
    return data


def _almost(how: int, value: Any) -> Any:
    """The same in another type."""
    return (
        str(value),
        [value],
        {"content": value},
        float(value) if type(value) is int and abs(value) < 2**53 else [[value]],
        not value,
    )[how]


def _at(data: Any, place: Place) -> Any:
    for key in place:
        data = data[key]
    return json.loads(json.dumps(data))


_DEEP = (b"[" * 3000, b'{"a":' * 3000, b"[" * 900 + b"]" * 900)
_OTHERS = (
    b"",
    b" ",
    b"null",
    b"{}",
    b"[]",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    b"<!doctype html><title>404</title>",
    b"\xff\xfe\x00",
    b"\x80",
    b"1" * 5000,
    b"-" + b"1" * 4300,
    *_DEEP,
)


@st.composite
def bytes_of(draw: st.DrawFn, text: str) -> bytes:
    """A file's bytes, damaged: cut off, altered, in another encoding, or another file altogether."""
    data = text.encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(["cut", "alter", "encoding", "other", "any", "twice"])):
        case "cut":
            return data[: draw(st.integers(0, len(data)))]
        case "alter":
            at = draw(st.integers(0, len(data)))
            return data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
        case "encoding":
            encoding = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-7"]))
            return text.encode(encoding, "replace")
        case "other":
            return draw(st.sampled_from(_OTHERS))
        case "any":
            return draw(st.binary(max_size=40))
        case _:
            return data + data


def files_of(data: Any, but: Sequence[str] = ()) -> st.SearchStrategy[bytes]:
    """A JSON file whose content is spoiled (mostly), or whose bytes are damaged."""
    text = json.dumps(data)
    content = spoiled(data, but).map(lambda changed: json.dumps(changed).encode())
    return st.one_of(content, content, content, bytes_of(text))


DATE = "1979-05-27"
"""A text that `as_toml` writes as a date."""


def as_toml(data: dict[str, Any]) -> bytes:
    """TOML of JSON data, one line per key; what TOML has no word for (null) is written all the same."""
    return "".join(f"{_text(key)} = {_toml(value)}\n" for key, value in data.items()).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if value == DATE:
        return DATE
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_text(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    return repr(value) if type(value) is float else json.dumps(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_of(data: dict[str, Any], values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[bytes]:
    """A TOML file whose content is spoiled (mostly), or whose bytes are damaged."""
    content = spoiled(data, values=values | st.just(DATE)).map(lambda changed: as_toml(changed))
    return st.one_of(content, content, content, bytes_of(as_toml(data).decode()))
