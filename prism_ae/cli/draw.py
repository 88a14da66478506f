"""Drawing a request's experiments from the store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from prism_ae.cli.measure import measured
from prism_ae.cli.output import say
from prism_ae.cli.request import Request
from prism_ae.errors import StoreError
from prism_ae.plan import Plan
from prism_ae.store import Store


def check_writable(out: Path, request: Request) -> None:
    """A place for the figures that cannot be written is refused before hours of measuring; raises StoreError."""
    folder = out / request.suite.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}", "choose another place with --out") from error


def draw(request: Request, plan: Plan, store: Store, out: Path, with_paper: bool) -> None:
    """Draw every experiment and print the files, one per line; raises StoreError."""
    from prism_ae.drawing.render import render

    found = measured(plan, store)
    for experiment, points in zip(request.experiments, request.points, strict=True):
        own = {point: found[point] for point in points if point in found}
        files = render(experiment, request.suite, request.options, own, out, with_paper)
        say(str(file) for file in files)
