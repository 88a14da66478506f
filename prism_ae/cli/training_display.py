"""How far a training run is, on standard error: a line rewritten in place on a terminal, now and then one elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from prism_ae.execution.progress import duration

if TYPE_CHECKING:
    from prism_ae.training.run import Progress

_EVERY = 10.0
"""Seconds between plain lines."""


def suite_state(state: Progress) -> str:
    """ "12 of 77 models, 3:10 left; mini-llama-2 hass 35%, loss 1.21"."""
    left = "" if state.seconds_left is None else f", {duration(state.seconds_left)} left"
    jobs = (job_state(label, part, loss) for label, part, loss in state.running)
    return "; ".join([f"{state.done} of {state.total} models{left}", *jobs])


def job_state(label: str, part: float, loss: float | None) -> str:
    """ "prism 35%, loss 1.21": the part done, 0 to 1, and the current loss."""
    return f"{label} {part:.0%}" + ("" if loss is None else f", loss {loss:.2f}")


@contextlib.contextmanager
def line_on(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """A function to call with every new state, as often as one likes."""
    if stream.isatty():
        from rich.console import Console
        from rich.text import Text

        with Console(file=stream, highlight=False).status("starting") as status:
            yield lambda text: status.update(Text(text))
        return
    said = -math.inf

    def show(text: str) -> None:
        nonlocal said
        if time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            print(text, file=stream, flush=True)

    yield show
