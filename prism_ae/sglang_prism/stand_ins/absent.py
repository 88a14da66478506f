"""Placeholders for names that SGLang imports, but a text model never uses."""

from __future__ import annotations

from typing import Any, NoReturn


def placeholder(module: str, name: str) -> Any:
    """A placeholder that refuses to be called: a class if the name begins with a capital letter, otherwise a function.

    Raises:
        AttributeError: for a dunder name, as a module without it does.
    """
    if name.startswith("__"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def refuse(*args: object, **options: object) -> NoReturn:
        raise NotImplementedError(f"{module}.{name}: {module.partition('.')[0]} is not installed")

    return type(name, (), {"__init__": refuse, "__module__": module}) if name[:1].isupper() else refuse
