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


def describe(state: Progress) -> str:
    """ "12 of 77 models, 3:10 left; mini-llama-2 hass 35% (loss 1.21)"."""
    text = f"{state.done} of {state.total} models"
    if state.seconds_left is not None:
        text += f", {duration(state.seconds_left)} left"
    running = [
        f"{label} {part:.0%}" + (f" (loss {loss:.2f})" if loss is not None else "")
        for label, part, loss in state.running
    ]
    return "; ".join([text, *running])


@contextlib.contextmanager
def display_on(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    """A function to call with every new state."""
    if stream.isatty():
        from rich.console import Console

        with Console(file=stream, highlight=False).status("starting") as status:
            yield lambda state: status.update(describe(state).replace("[", "\\["))
        return
    said = -math.inf

    def show(state: Progress) -> None:
        nonlocal said
        if time.monotonic() - said >= _EVERY:
            said = time.monotonic()
            print(describe(state), file=stream, flush=True)

    yield show
