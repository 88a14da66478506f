"""The kinds of figures and tables, one module each: fields, selection, panels, words.

A kind is a subclass of `base.Kind` whose ``kind`` is a literal. Those of other packages are found by the entry point
group ``prism_ae.kinds``: the entry's name is the kind, its value the class.
"""

from __future__ import annotations

from importlib import metadata

from prism_ae.errors import ConfigError
from prism_ae.experiments.kinds.anatomy import Anatomy
from prism_ae.experiments.kinds.base import Kind
from prism_ae.experiments.kinds.batches import Batches
from prism_ae.experiments.kinds.positions import Positions
from prism_ae.experiments.kinds.scaling import ScalingGrid, ScalingMean
from prism_ae.experiments.kinds.table import PaperTable
from prism_ae.experiments.kinds.trees import Trees
from prism_ae.io.schema import suggest

KINDS: dict[str, type[Kind]] = {
    "positions": Positions,
    "scaling-grid": ScalingGrid,
    "scaling-mean": ScalingMean,
    "batches": Batches,
    "trees": Trees,
    "table": PaperTable,
    "anatomy": Anatomy,
}
"""Those that come with the package."""


def find_kind(name: object, where: str) -> type[Kind]:
    """The class of a kind; raises ConfigError for an unknown one, with ``where`` naming the file."""
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    entries = {entry.name: entry for entry in metadata.entry_points(group="prism_ae.kinds")}
    if isinstance(name, str) and name in entries:
        found: type[Kind] = entries[name].load()
        return found
    if name is None:
        raise ConfigError(f"{where}: key 'kind' is missing", "correct the file and run again")
    raise ConfigError(f"{where}: kind: there is no '{name}'{suggest(str(name), [*KINDS, *entries])}")
