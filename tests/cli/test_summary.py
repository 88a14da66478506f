"""How a run ends: what was drawn, what is missing, why, and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sweeps import Sweep

from prism_ae.cells import Cell, Fingerprints, Point
from prism_ae.cli.summary import Cause, Drawn, causes_in_words, causes_of, check_complete, run_summary
from prism_ae.engines.protocol import Assignment
from prism_ae.errors import IncompleteError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.planning.plan import MissingCell, Plan, TimeEstimate
from prism_ae.store import Record
from prism_ae.suites.load import load_suite

POINTS = expand(load_experiment("figure4"), load_suite("mini"), Options(scales=("8x",), benches=("qa", "sum")))
PAGES = Path("figures/out/mini")


def cell(point: Point) -> Cell:
    return Cell(point, Fingerprints("", None, "", "", ""))


def plan(done: int = 0, failed: int = 0, left: int = 0, missing: tuple[tuple[str, str], ...] = ()) -> Plan:
    """A plan whose first points are done, the next failed, and so on."""
    points = iter(POINTS)
    finished = [next(points) for _ in range(done)]
    records = {point: Record(cell(point), "ok", "", "", "", "", 1.0, 1.0, {}, "", "cpu") for point in finished}
    broken = [cell(next(points)) for _ in range(failed)]
    waiting = [cell(next(points)) for _ in range(left)]
    cells = (*broken, *waiting)
    return Plan(
        done=records,
        from_store_only=frozenset(),
        failed={one.id: "it broke\nmend it" for one in broken},
        assignments=(Assignment(cells, Path("t"), None),) if cells else (),
        missing=tuple(MissingCell(next(points), reason, hint) for reason, hint in missing),
        estimate=TimeEstimate(0.0, 0.0, 0, 0),
    )


def drawn(*names: str, points: tuple[Point, ...] = POINTS) -> list[Drawn]:
    return [Drawn(name, points, (PAGES / f"{name}.pdf", PAGES / f"{name}.csv")) for name in names]


def test_what_is_complete_is_listed_and_nothing_is_missing() -> None:
    everything = plan(done=len(POINTS))
    assert run_summary(everything, drawn("figure4")) == [
        "drawn:",
        f"  figure4  {len(POINTS)} of {len(POINTS)} cells  figures/out/mini/figure4.pdf",
    ]
    check_complete(everything)


def test_missing_cells_failures_and_what_was_not_reached_are_told_with_their_remedy() -> None:
    made = plan(
        done=2, failed=3, left=1, missing=(("no model", "train it"), ("never published", ""), ("no model", "train it"))
    )
    some = POINTS[:8]
    lines = run_summary(made, [*drawn("figure4", points=POINTS[:9]), *drawn("figure10", points=some)])
    assert lines == [
        "drawn:",
        "  figure4   2 of 9 cells  figures/out/mini/figure4.pdf",
        "  figure10  2 of 8 cells  figures/out/mini/figure10.pdf",
        "missing, 7 cells of 9:",
        "  3 cells failed: it broke; mend it (figure4, figure10)",
        "  1 cell not measured (figure4, figure10)",
        "  1 cell cannot be measured: never published (figure4, figure10)",
        "  2 cells cannot be measured: no model (figure4, figure10)",
        "    train it",
    ]
    only = run_summary(plan(missing=(("never published", ""),)), drawn("figure4", points=POINTS[:1]))
    assert only[-1] == "  1 cell cannot be measured: never published"


def test_a_cause_names_the_experiments_that_it_concerns() -> None:
    made = plan(missing=(("a", "x"), ("b", "x")))
    lines = run_summary(made, [*drawn("one", points=POINTS[:1]), *drawn("two", points=POINTS[1:2])])
    assert lines[-3:] == ["  1 cell cannot be measured: a (one)", "  1 cell cannot be measured: b (two)", "    x"]


def test_only_what_could_be_measured_is_an_error() -> None:
    check_complete(plan(done=1, missing=(("never published", ""),)))
    for made, count in ((plan(failed=2), 2), (plan(left=1), 1), (plan(missing=(("a", "b"), ("c", ""))), 1)):
        with pytest.raises(IncompleteError, match=rf"^{count} of {made.total} cells? "):
            check_complete(made)


def test_many_reasons_with_one_remedy_are_one_line_and_more_lines_than_fit_are_counted() -> None:
    alike = [Cause(f": {name} is not here", "fetch it", (point,)) for name, point in zip("abcde", POINTS, strict=False)]
    assert causes_in_words(alike) == [
        "  5 cells: a is not here, and 4 more like it",
        "    fetch it",
    ]
    assert len(causes_in_words(alike[:3])) == 4
    hopeless = [Cause(f": reason {number}", "", (POINTS[0],)) for number in range(30)]
    lines = causes_in_words(hopeless)
    assert (len(lines), lines[-1]) == (21, "  … and 10 more reasons")
    assert causes_in_words(()) == []


def test_causes_are_counted_and_ordered() -> None:
    first, second, third = causes_of(
        [(POINTS[0], "a", ""), (POINTS[1], "b", "x"), (POINTS[2], "b", "x"), (POINTS[3], "b", "")]
    )
    assert (first.text, first.hint, first.points) == ("b", "x", POINTS[1:3])
    assert {second.points, third.points} == {POINTS[:1], POINTS[3:4]}


def test_a_run_ends_with_the_list_after_the_files(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    shutil.rmtree(sweep.models / "mini-llama-2-prism-8x")
    done = sweep.run(sweep.arguments("run"))
    assert done.returncode == 8
    page = next(line for line in done.stdout.splitlines() if line.endswith(".pdf"))
    ending = done.stderr.splitlines()[done.stderr.splitlines().index("drawn:") :]
    assert ending[1] == f"  figure1  24 of 28 cells  {page}"
    assert ending[2] == "missing, 4 cells of 28:"
    assert ending[-2] == "error: 4 of 28 cells have no result and could have one, see above"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("code", "lines"), [(0, 1), (8, 2), (6, 0), (130, 0)])
def test_make_ends_as_the_run_ends(repository: Path, code: int, lines: int) -> None:
    """It says where the drawings are whenever there are some, and never hides that something is missing."""
    command = ["make", "--old-file=setup", "all-figures", f"PRISM=sh -c 'exit {code}' run"]
    # As a user calls it: within 'make test' it would take itself for a part of that.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=repository, env=outside, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (code == 0)
    assert len(done.stdout.splitlines()) == lines
    assert ("figures/out/paper/" in done.stdout) == (code in (0, 8))
    assert ("Error 8" in done.stdout) == (code == 8)
