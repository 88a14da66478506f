"""A drawing depends on what was measured and on no setting, file or variable of a user: the same bytes, no word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

LATIN_1 = "# r\xe9glages\nfont.size : 30\n".encode("latin-1")
UGLY = (
    b"text.usetex : True\nsavefig.bbox : tight\nfont.family : cursive\nfont.size : 30\npdf.fonttype : 3\n"
    b"pdf.compression : 0\nfigure.dpi : 20\naxes.formatter.use_locale : True\nno such line\nbackend : agx\n"
)
CODE = """
import sys
sys.path[:0] = [{folder!r}, {folder!r} + "/.."]
{first}
from pathlib import Path
from synthetic import measure, render
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.suites.load import load_suite
suite, options = load_suite("mini"), Options(questions=2, scales=("1x", "8x"), benches=("qa",))
experiment = load_experiment("figure5")
results = measure(expand(experiment, suite, options), suite)
render(experiment, suite, options, results, Path({out!r}), with_paper=True)
"""


def drawn(
    out: Path, environment: Mapping[str, str | None] | None = None, cwd: Path | None = None, first: str = ""
) -> dict[str, bytes]:
    """The files that a process of its own writes, which says nothing meanwhile.

    Args:
        environment: variables that are added; None takes one away.
        first: Python that runs before anything of this project is imported.
    """
    changed = os.environ | {name: value for name, value in (environment or {}).items() if value is not None}
    for name, value in (environment or {}).items():
        if value is None:
            changed.pop(name, None)
    code = CODE.format(folder=str(Path(__file__).parent), out=str(out), first=first)
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=changed, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {path.name: path.read_bytes() for path in (out / "mini").iterdir()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = drawn(tmp_path_factory.mktemp("plain"))
    assert sorted(found) == [f"figure5.{kind}" for kind in ("csv", "json", "pdf")]
    return found


@pytest.mark.parametrize(("backend", "place"), [("agx", "/nowhere/matplotlibrc"), ("module://nowhere", "/dev/full")])
def test_no_word_in_a_variable_matters(plain: dict[str, bytes], tmp_path: Path, backend: str, place: str) -> None:
    assert drawn(tmp_path / "out", {"MPLBACKEND": backend, "MATPLOTLIBRC": place}) == plain


@pytest.mark.parametrize(
    ("place", "content"),
    [("current folder", LATIN_1), ("current folder", UGLY), (".config/matplotlib", LATIN_1), ("named", LATIN_1)],
)
def test_no_settings_file_matters(plain: dict[str, bytes], tmp_path: Path, place: str, content: bytes) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "matplotlibrc").write_bytes(content)
    environment: dict[str, str | None] = {"HOME": str(tmp_path)}
    environment |= dict.fromkeys(("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"))
    if place == "named":
        environment |= {"MATPLOTLIBRC": str(folder), "MPLCONFIGDIR": str(folder)}
    assert drawn(tmp_path / "out", environment, folder if place == "current folder" else None) == plain


def test_no_cache_style_or_font_of_the_user_matters(plain: dict[str, bytes], tmp_path: Path) -> None:
    """The list of fonts may name any file for any family, and be no list at all."""
    import matplotlib
    from matplotlib.font_manager import FontManager

    lying = {
        "_version": FontManager.__version__,
        "_FontManager__default_weight": "normal",
        "default_size": None,
        "defaultFamily": {"ttf": "DejaVu Sans", "afm": "Helvetica"},
        "afmlist": [],
        "ttflist": [
            {
                "fname": str(Path(matplotlib.get_data_path()) / "fonts/ttf/cmmi10.ttf"),
                "index": 0,
                "name": name,
                "style": "normal",
                "variant": "normal",
                "weight": 400,
                "stretch": "normal",
                "size": "scalable",
                "__class__": "FontEntry",
            }
            for name in ("STIXGeneral", "DejaVu Sans")
        ],
        "__class__": "FontManager",
    }
    for number, cache in enumerate((b"garbage \xff", json.dumps(lying).encode())):
        folder = tmp_path / str(number)
        (folder / "stylelib").mkdir(parents=True)
        (folder / "stylelib" / "mine.mplstyle").write_bytes(LATIN_1)
        name = f"fontlist-v{FontManager.__version__}.json"
        (folder / name).write_bytes(cache)
        assert drawn(folder / "out", {"MPLCONFIGDIR": str(folder)}) == plain
        assert sorted(path.name for path in folder.iterdir()) == sorted([name, "out", "stylelib"]), "written there"
        assert (folder / name).read_bytes() == cache


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null"])
def test_no_folder_is_needed_that_can_be_written(plain: dict[str, bytes], tmp_path: Path, folder: str) -> None:
    names = ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME", "TMPDIR")
    assert drawn(tmp_path / "out", dict.fromkeys(names, folder)) == plain


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "TZ": "Pacific/Kiritimati", "COLUMNS": "20"},
        {"SOURCE_DATE_EPOCH": "no number", "TZ": "nonsense", "PYTHONHASHSEED": "7"},
    ],
)
def test_neither_language_nor_time_matters(
    plain: dict[str, bytes], tmp_path: Path, environment: dict[str, str]
) -> None:
    assert drawn(tmp_path / "out", environment) == plain


@pytest.mark.parametrize(
    "first",
    [
        "import matplotlib; matplotlib.rcParams['font.style'] = 'italic'; matplotlib.rcParams['text.usetex'] = True",
        "import matplotlib.pyplot as p; p.style.use('dark_background'); p.rcParams['savefig.bbox'] = 'tight'",
        "import matplotlib, matplotlib.font_manager as f\n"
        "for e in list(f.fontManager.ttflist): e.name == 'cmr10' and f.fontManager.ttflist.insert(0, "
        "f.FontEntry(fname=e.fname, name='STIXGeneral', style='normal', variant='normal', weight=400, "
        "stretch='normal', size='scalable'))",
    ],
)
def test_who_imported_matplotlib_before_does_not_matter(plain: dict[str, bytes], tmp_path: Path, first: str) -> None:
    assert drawn(tmp_path / "out", first=first) == plain


def test_the_current_folder_is_left_as_it_was(plain: dict[str, bytes], tmp_path: Path) -> None:
    """Also one that is gone: there is a way back into it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    first = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})"
    assert drawn(tmp_path / "out", first=first) == plain
    code = (
        "import os; from prism_ae.drawing.canvas import load_matplotlib; before = dict(os.environ)\n"
        "load_matplotlib(); print(os.getcwd(), dict(os.environ) == before)"
    )
    changed = os.environ | {"MPLBACKEND": "agx", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=changed, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path.resolve()} True\n", "")
