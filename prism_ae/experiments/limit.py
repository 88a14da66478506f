"""How near vanilla decoding comes to the memory's limit, in words for a caption: whether the baseline of every speed-up
is a fast one."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator

from prism_ae.analysis.estimates import unique
from prism_ae.analysis.quantities import MBU
from prism_ae.analysis.results import Results
from prism_ae.drawing.text import Text
from prism_ae.suites.records import Suite

USUAL = (0.5, 0.8)
"""Of a GPU's bandwidth: what well-made engines reach at batch 1."""


def limit_words(suite: Suite, results: Results) -> Iterator[Text]:
    """A sentence per target and device whose vanilla decoding was measured at batch 1, with sizes and bandwidth; a
    warning where that is on a GPU, and out of the ordinary."""
    plain = [cell for cell in results.done if cell.point.tree is None and cell.point.batch == 1]
    for target, device in unique((cell.point.target, cell.measured.device) for cell in plain):
        mine = [cell for cell in plain if (cell.point.target, cell.measured.device) == (target, device)]
        total = functools.reduce(operator.add, (cell.total for cell in mine))
        assert MBU.formula is not None
        if math.isnan(share := float(MBU.formula(total))):
            continue
        reads = float(total.reads[1] / total.decode_seconds)
        label, measured = suite.targets[target].label, f"{reads / 1e9:,.1f} GB/s that {device} was measured to read"
        said = f"Vanilla decoding of {label} reads {100 * share:.0f} % of the {measured} (MBU)"
        on_gpu = str(mine[0].measured.settings.get("device", "")).startswith("cuda")
        if not on_gpu:
            yield Text(f"{said}; a model that fits into a CPU's caches may be beyond it.")
        elif share < USUAL[0]:
            yield Text(f"{said}: less than the usual 50 to 80 %, so that speed-ups over it flatter.", warning=True)
        elif share > USUAL[1]:
            yield Text(f"{said}: more than the usual 50 to 80 %, so that one of the two is doubtful.", warning=True)
        else:
            yield Text(f"{said}, within the usual 50 to 80 %.")
