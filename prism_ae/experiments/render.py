"""A drawing's files: .pdf, .csv of what was drawn, .json with caption, counts and verdicts, and a table's .tex.

The same data give the same bytes: no dates, no random names, fonts that come with matplotlib. A reader never sees half
of a file.
"""

from __future__ import annotations

import io
from pathlib import Path

from prism_ae.drawing.canvas import own_settings
from prism_ae.drawing.page import draw
from prism_ae.errors import StoreError
from prism_ae.experiments.compose import Drawing
from prism_ae.io.atomic import atomic_write_all
from prism_ae.io.digests import digest
from prism_ae.io.paths import why_not

MOST_IDS = 1000
"""More cell ids than this do not go into a PDF's metadata; their digest does."""


def render(drawing: Drawing, out_dir: Path) -> list[Path]:
    """Write ``<out_dir>/<suite>/<experiment>`` as .pdf, .csv, .json and, if it is a table, .tex; returns the paths.

    Raises:
        StoreError: the folder cannot be written.
    """
    name = drawing.experiment.name
    place = out_dir / drawing.suite.name / name
    texts = {".csv": drawing.rows.to_csv(index=False), ".json": drawing.as_json()}
    if (latex := drawing.as_latex()) is not None:
        texts[".tex"] = latex
    files = {place.with_name(f"{name}{suffix}"): text.encode() for suffix, text in texts.items()}
    files |= {place.with_name(f"{name}.pdf"): _pdf(drawing)}
    try:
        atomic_write_all(files)
    except OSError as error:
        path = Path(error.filename or place)
        hint = "choose another place with --out, or free some space; measurements are kept"
        raise StoreError(f"cannot write {path}: {why_not(error, path)}", hint) from error
    return sorted(files, key=lambda path: (path.suffix != ".pdf", path.name))


def _pdf(drawing: Drawing) -> bytes:
    ids = [cell.measured.cell_id for cell in drawing.results.done]
    listed = " ".join(ids) if len(ids) <= MOST_IDS else f"{len(ids)} cells, sha256 {digest(sorted(ids))}"
    metadata = {
        "Title": drawing.page.title.text,
        "Subject": f"every value and cell id: {drawing.experiment.name}.csv",
        "Keywords": f"cells: {listed}",
        "Creator": "prism-ae",
        "CreationDate": None,
    }
    with own_settings():
        buffer = io.BytesIO()
        draw(drawing.page).savefig(buffer, format="pdf", metadata=metadata)
    return buffer.getvalue()
