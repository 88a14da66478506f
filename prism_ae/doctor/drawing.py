"""Drawing: matplotlib's own fonts, which every figure is set in, and settings of the user's that it does not follow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from prism_ae.doctor.findings import Finding, listed, ok, problem, shown
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.drawing.style import FONTS

SETTINGS = ("MPLBACKEND", "MATPLOTLIBRC", "MPLCONFIGDIR")
"""Variables of matplotlib's that drawing does not follow."""


def check(snapshot: Snapshot) -> Iterator[Finding]:
    """Findings about drawing. Imports no matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    places = (
        [Path(place) / "mpl-data" / "fonts" / "ttf" for place in (spec.submodule_search_locations or ())]
        if spec
        else []
    )
    files = [file for family in FONTS.values() for file in family]
    missing = [file for file in files if not any((place / file).is_file() for place in places)]
    yield judge_fonts(missing, places[0] if places else None)
    yield from judge_settings(snapshot.variables, snapshot.folder)


def judge_fonts(missing: list[str], place: Path | None) -> Finding:
    """Pure.

    Args:
        missing: files of `style.FONTS` that are not there.
        place: the folder that was looked in, None where matplotlib is not installed.
    """
    repair = "install matplotlib again: run 'make setup'"
    if place is None:
        return problem("drawing", "matplotlib is not installed: nothing can be drawn", repair)
    if missing:
        return problem("drawing", f"{place}: fonts that figures are set in are missing: {listed(missing)}", repair)
    return ok("drawing", "matplotlib's fonts are there; a machine's own fonts are not needed")


def judge_settings(variables: Mapping[str, str], folder: Path | None) -> Iterator[Finding]:
    """Settings that are there and change nothing: pure but for a look for a matplotlibrc in the current folder."""
    for name in SETTINGS:
        if value := variables.get(name):
            yield ok(name, f"{name}={shown(value)} is set; drawing does not follow it")
    if folder is not None and (folder / "matplotlibrc").exists():
        yield ok("matplotlibrc", f"{folder / 'matplotlibrc'} is there; drawing does not follow it")
