"""Suites from TOML, checked once at the border so that everything behind it may trust them.

`prism_ae.io.schema` checks the form (keys and types). What one table says about another (a target names a template, a
drafter names roles) is checked here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, UsageError
from prism_ae.io.schema import check, did_you_mean, read_toml
from prism_ae.suites.records import Suite
from prism_ae.suites.rules import problems

_NAMED = ("targets", "drafters", "benchmarks", "templates")
"""Tables of tables: the key is the record's name."""


def suite_names() -> tuple[str, ...]:
    """The suites that come with the package, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.toml")))


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name, or from a file of one's own (a path that ends in ``.toml``).

    Raises:
        UsageError: no suite of that name.
        ConfigError: the file says something impossible; the message names file, key and what would be right.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        names = suite_names()
        if str(name_or_path) not in names:
            raise UsageError(
                f"there is no suite '{name_or_path}'{did_you_mean(str(name_or_path), names)}",
                f"suites: {', '.join(names)}; or give the path of a .toml file",
            )
        path = Path(__file__).parent / f"{name_or_path}.toml"
    suite = parse_suite(read_toml(path), str(path))
    recipes = str(_beside(path, suite.recipes)) if suite.recipes else None
    return dataclasses.replace(suite, source=str(name_or_path), recipes=recipes)


def parse_suite(data: dict[str, Any], where: str) -> Suite:
    """A suite from the tables of its file; ``where`` names the file in messages. Raises ConfigError.

    What is measured in time has the limits of what is not, and questions of several turns have those of one, where the
    file says nothing else.
    """
    data = dict(data)
    for table in _NAMED:
        if isinstance(data.get(table), dict):
            data[table] = {name: _with_name(name, entry) for name, entry in data[table].items()}
    if isinstance(data.get("limits"), dict):
        data = {"serving": data["limits"], **data}
    for table in ("limits", "serving"):
        if isinstance(data.get(table), dict) and type(most := data[table].get("max_new_tokens")) is int:
            data[table] = {"turns_max_new_tokens": most, **data[table]}
    suite = check(data, Suite, where)
    if found := problems(suite):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in found), "correct the file and run again")
    return suite


def _with_name(name: str, entry: Any) -> Any:
    return {**entry, "name": name} if isinstance(entry, dict) and "name" not in entry else entry


def _beside(path: Path, recipes: str) -> Path:
    """The recipe file that a suite's file names: beside it, or one of this package's, which a copied suite goes on
    naming."""
    own, packaged = path.parent / recipes, Path(__file__).parent / recipes
    return packaged if not own.exists() and packaged.exists() else own
