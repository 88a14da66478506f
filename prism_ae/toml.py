"""TOML files to frozen records, checked once at the border.

An error names the file, the key and what would be right. A key that no record knows is an error too: a misspelt option
must not be silently ignored.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from prism_ae.errors import ConfigError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass that `check` fills strictly: unknown keys are refused."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; raises ConfigError naming the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def check(data: Any, cls: type[T], where: str) -> T:
    """``data`` as a ``cls``; raises ConfigError with every wrong key, "where: key.path: what would be right"."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                problems.append(f"{where}: unknown key '{key}'{_known(data, cls, item['loc'])}")
            elif item["type"] in ("missing", "missing_argument"):
                problems.append(f"{where}: key '{key}' is missing")
            else:
                problems.append(f"{where}: {key}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}")
        raise ConfigError("\n".join(problems), "correct the file and run again") from None


def _known(data: Any, cls: type[Any], location: tuple[int | str, ...]) -> str:
    """For an unknown key at the top of ``cls``: the keys that exist."""
    if len(location) == 1 and dataclasses.is_dataclass(cls):
        return "; known keys: " + ", ".join(field.name for field in dataclasses.fields(cls))
    return ""
