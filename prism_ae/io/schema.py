"""TOML files to frozen records, checked once at the border.

An error names the file, the key and what would be right. A key that no record knows is an error too: a misspelt option
must not be silently ignored. Values are not converted: "80" is no number, 1 is no truth value.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from prism_ae.errors import ConfigError

T = TypeVar("T")


_DEEPEST = 20


def _depth(data: Any) -> int:
    """How deep tables and lists lie within each other."""
    depth, level = 0, [data]
    while level:
        level = [
            inside
            for value in level
            for inside in (value.values() if isinstance(value, dict) else value)
            if isinstance(inside, dict | list)
        ]
        depth += 1
    return depth


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass that `check` fills strictly: unknown keys are refused."""
    cls.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


def text_schema(read: Callable[[str], Any], handler: Any) -> Any:
    """For a class's ``__get_pydantic_core_schema__``: a value that is written as a text.

    Args:
        read: makes the value of the text; its ValueError says what is wrong, and is the whole message.
    """
    from pydantic import AfterValidator

    return handler.generate_schema(Annotated[str, AfterValidator(read)])


class _EmptyIsNone:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import BeforeValidator

        return BeforeValidator(lambda text: None if text == "" else text).__get_pydantic_core_schema__(source, handler)


OptionalText = Annotated[str | None, _EmptyIsNone()]
"""A key that may be missing: None. Files from before keys could be missing say "" there."""


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; raises ConfigError naming the file and the line."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        if _depth(data) > _DEEPEST:
            raise ConfigError(f"{path}: tables within tables, more than {_DEEPEST} deep", "no key here is so long")
        return data
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # besides TOML's own: too many digits, brackets inside brackets
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def check(data: Any, cls: type[T], where: str) -> T:
    """``data`` (tables and values as TOML gives them) as a ``cls``.

    Raises:
        ConfigError: with every wrong key, one line each: "where: key.path: what would be right".
    """
    from pydantic import TypeAdapter, ValidationError

    if wide := _wide(data):
        raise ConfigError(f"{where}: {wide}: TOML's whole numbers have 64 bits", "correct the file and run again")
    try:
        # Through JSON, because only there strict types and TOML's lists for tuples go together.
        return TypeAdapter(cls).validate_json(json.dumps(data, default=_refuse), strict=True)
    except _NotJsonError as error:
        raise ConfigError(f"{where}: {error}", "correct the file and run again") from None
    except ValidationError as error:
        problems = [f"{where}: {_problem(item, cls)}" for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems), "correct the file and run again") from None


def suggest(name: str, names: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for a name that resembles one of ``names``, else what there is."""
    known = list(dict.fromkeys(names))
    return did_you_mean(name, known) or (f"; there is {', '.join(known)}" if known else "")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The first half of `suggest`, for a message that lists all names anyway; "" where none is like ``name``."""
    lowered = {item.lower(): item for item in names}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean '{lowered[match[0]]}'?" if match else ""


class _NotJsonError(Exception):
    pass


def _refuse(value: Any) -> Any:
    raise _NotJsonError(f"{value} is a {type(value).__name__}, which no key takes; write it in quotes")


def _wide(data: Any, key: str = "") -> str:
    """The key of a number of more than 64 bits, which Python's reader lets through; "" where there is none."""
    if isinstance(data, int):
        return key if not -(2**63) <= data < 2**63 else ""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return next(filter(None, (_wide(value, f"{key}.{name}" if key else str(name)) for name, value in inside)), "")


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": 'a text in quotes ("...")',
    "bool_type": "true or false",
    "tuple_type": "a list in square brackets",
    "list_type": "a list in square brackets",
    "dict_type": "a table",
    "dataclass_type": "a table",
}


def _problem(item: Any, cls: Any) -> str:
    """One line for one of pydantic's findings."""
    kind, location = item["type"], item["loc"]
    key = ".".join(str(part) for part in location)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{key}'{suggest(str(location[-1]), _keys(cls, location[:-1]))}"
    if kind in ("missing", "missing_argument"):
        return f"key '{key}' is missing"
    if kind == "literal_error":
        wanted = str(item["ctx"]["expected"])
        names = wanted.replace("'", "").replace(" or ", ", ").split(", ")
        return f"{key}: must be {wanted}, got {_shown(item['input'])}{did_you_mean(str(item['input']), names)}"
    if kind in _EXPECTED:
        return f"{key}: must be {_EXPECTED[kind]}, got {_shown(item['input'])}"
    if kind == "value_error":  # said by the type of the key itself
        return f"{key}: {item['ctx']['error']}"
    message = item["msg"]
    return f"{key}: {message[0].lower()}{message[1:]}, got {_shown(item['input'])}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys(cls: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys that the record at ``location`` below ``cls`` knows; [] where that is no record."""
    for part in location:
        cls = _inside(cls, part)
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _inside(cls: Any, part: int | str) -> Any:
    """The type at key or index ``part`` of a value of type ``cls``, without "or None"; None where it cannot be told."""
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    found: Any = None
    if dataclasses.is_dataclass(cls):
        found = typing.get_type_hints(cls).get(str(part))
    elif origin is dict:
        found = arguments[1]
    elif origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        found = arguments[0]
    elif origin is tuple and isinstance(part, int) and part < len(arguments):
        found = arguments[part]
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(found) if choice is not type(None)]
        found = choices[0] if len(choices) == 1 else None
    return found
