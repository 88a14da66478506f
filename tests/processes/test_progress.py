"""Progress says how far, how fast and how long, and does not flood a log file."""

from __future__ import annotations

import io

import pytest

from prism_ae.execution.run import cells_state
from prism_ae.io.words import duration
from prism_ae.processes.progress import PlainLines, display_on


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 300, 0, 5.0), "0 of 300 cells"),
        ((12, 300, 0, 4.0), "12 of 300 cells, 3.0 per second, 1:36 left"),
        ((2, 10, 1, 40.0), "2 of 10 cells, 1 failed, 20.0 s each, 2:40 left"),
        ((10, 10, 0, 5.0), "10 of 10 cells, 2.0 per second, 0:00 left"),
        ((1, 2, 0, 7200.0), "1 of 2 cells, 7200.0 s each, 2:00:00 left"),
    ],
)
def test_rate_and_time_left_follow_from_what_is_done(arguments: tuple[int, int, int, float], said: str) -> None:
    assert cells_state(*arguments) == said


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.2, "1:00"), (61, "1:01"), (3600, "1:00:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_come_first_then_every_ten_seconds_and_at_the_end() -> None:
    stream, time = io.StringIO(), iter(range(1000))
    lines = PlainLines(stream, 25, clock=lambda: float(next(time)))
    for done in range(1, 26):
        lines.show(f"{done} of 25", done)
    said = stream.getvalue().splitlines()
    assert said == ["1 of 25", "11 of 25", "21 of 25", "25 of 25"]


def test_a_terminal_gets_a_bar_that_shows_notes_as_they_are() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with display_on(stream, "0 of 2 [cells]", 2) as bar:
        bar.note("cell [1] failed: [red]why[/red]")
        bar.show("2 of 2 [cells], 1 failed", 2)
    assert "cell [1] failed: [red]why[/red]" in stream.getvalue()
    assert "2 of 2 [cells], 1 failed" in stream.getvalue()
