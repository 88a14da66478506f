"""matplotlib, of which nothing but its own files and this program decides how it draws. It is first imported here.

Left alone it reads a ``matplotlibrc`` of the current folder, of MATPLOTLIBRC or of the user, the backend that
MPLBACKEND names, and a list of fonts from a cache, in which any font may stand under any name. Some of that can refuse
the import, all of it can change a drawing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prism_ae.drawing.style import FONTS, RC
from prism_ae.io.environment import environment

_SETTINGS = Path(__file__).parent / "settings"
_ENVIRONMENT = {"MATPLOTLIBRC": str(_SETTINGS / "matplotlibrc"), "MPLBACKEND": None, "MPL_IGNORE_SYSTEM_FONTS": "1"}
_NOWHERE = os.path.join(os.devnull, "matplotlib")
"""No folder, and none can be made there."""
_FROM_RIGHT_TO_LEFT = ("R", "AL", "AN")


@functools.cache
def load_matplotlib() -> None:
    """Import matplotlib and give it the fonts of `style.FONTS`, straight from the files that come with it.

    Who imported matplotlib before keeps what they have; `own_settings` and these fonts do not depend on it.
    """
    with _quiet():
        if "matplotlib" not in sys.modules:
            with environment(_ENVIRONMENT), _folder(_SETTINGS):
                import matplotlib
        with environment(_ENVIRONMENT), _without_cache():
            import matplotlib.textpath  # it asks for the cache of fonts, and for TeX's
        import matplotlib.font_manager as fonts

        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        for family, files in FONTS.items():
            for file in files:
                entry = fonts.ttfFontProperty(fonts.get_font(str(folder / file)))
                fonts.fontManager.ttflist.append(dataclasses.replace(entry, name=family))


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """matplotlib's defaults with `style.RC` while the block lasts, whatever was set before.

    SOURCE_DATE_EPOCH, which the PDF backend reads although no date is written, is away.
    """
    load_matplotlib()
    import matplotlib

    # Not matplotlib.rcdefaults(): it reads the user's style files. The backend is whose program this is part of.
    settings: Any = matplotlib.rcParams
    with environment({"SOURCE_DATE_EPOCH": None}), matplotlib.rc_context():
        settings.update({key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"})
        settings.update(RC)
        yield


@functools.cache
def _letters() -> frozenset[int]:
    """Code points that can be drawn, in bold print too."""
    load_matplotlib()
    import matplotlib
    from matplotlib.font_manager import get_font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    covered = [
        frozenset().union(*(get_font(str(folder / files[weight])).get_charmap() for files in FONTS.values()))
        for weight in (0, 1)
    ]
    return covered[0] & covered[1]


def undrawable(text: str) -> str:
    """The first letter of a text that cannot be drawn, "" if all can.

    No font has it, or it is no letter (a control character), or it is written from right to left, and would turn the
    line that it stands in around.
    """
    for letter in text:
        if not letter.isprintable() or unicodedata.bidirectional(letter) in _FROM_RIGHT_TO_LEFT:
            return letter
        if not letter.isascii() and ord(letter) not in _letters():
            return letter
    return ""


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Another current folder while the block lasts: no variable keeps matplotlib from reading that of the user."""
    if not os.access(".", os.X_OK):  # no file in it can be read either, and there would be no way back
        yield
        return
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)  # the folder itself: its name may be gone, or be another's
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """No list of fonts is read or written, and no folder made for it, while the block lasts."""
    import matplotlib

    module: Any = matplotlib
    before = module.get_cachedir
    module.get_cachedir = lambda: _NOWHERE
    try:
        yield
    finally:
        module.get_cachedir = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """matplotlib's remarks about its start are for its developers."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
