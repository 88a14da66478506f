"""What a timed cell is held against, recorded in its settings: the device's bandwidth and what the cell's steps read.

    bandwidth   bytes per second that the device reads, measured once in a worker's life (`devices.bandwidth`)
    sizes       parameters, and bytes per step and round (`drafters.sizes.sizes`)

What could not be measured, or is not known (a target that is no Llama), is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from prism_ae.cells import Cell, Result, Sample
from prism_ae.devices.bandwidth import measure_bandwidth
from prism_ae.devices.slots import Slot
from prism_ae.drafters.sizes import BYTES, Decoding, Model, sizes
from prism_ae.engines import registry
from prism_ae.engines.pairs import make_pair
from prism_ae.engines.protocol import Assignment
from prism_ae.errors import PrismError
from prism_ae.models.checkpoints import read_target_config
from prism_ae.suites.records import Suite

MeasureBandwidth = Callable[[str, int], float | None]


class Limit:
    """Of one worker's device.

    Args:
        measure: of the device's name and threads, bytes per second.
    """

    def __init__(self, suite: Suite, slot: Slot, measure: MeasureBandwidth = measure_bandwidth) -> None:
        self._suite = suite
        self._bandwidth = cache(lambda: measure(slot.device, slot.threads))
        self._make_pair = cache(make_pair)

    def prepare(self, assignment: Assignment) -> None:
        """Measure what has to be measured before an assignment, while nothing else uses the device."""
        if _concerns(assignment):
            self._bandwidth()

    def recorded(self, cell: Cell, assignment: Assignment, result: Result) -> Result:
        """The result with what is known in its settings."""
        if not _concerns(assignment):
            return result
        said = {"bandwidth": self._bandwidth(), "sizes": self._sizes(cell, assignment, result.samples)}
        known = {key: value for key, value in said.items() if value}
        return result.with_others(known)

    def _sizes(self, cell: Cell, assignment: Assignment, samples: Sequence[Sample]) -> dict[str, float]:
        point = cell.point
        assert point.batch is not None
        how = Decoding(point.batch, mean_context(samples), BYTES[point.dtype])
        try:
            target = read_target_config(assignment.target_path)
            return sizes(target, self._drafter(assignment), point.tree, how)
        except PrismError:  # an engine that knows more than Llamas measured it
            return {}

    def _drafter(self, assignment: Assignment) -> Model | None:
        point, folder = assignment.cells[0].point, assignment.drafter_path
        if folder is None:
            return None
        kind, record = self._suite.drafters[point.drafter].kind, self._suite.targets[point.target]
        if kind == "model":
            return read_target_config(folder)
        return self._make_pair(record, assignment.target_path, folder, kind, point.engine).config


def _concerns(assignment: Assignment) -> bool:
    return assignment.timed and registry.find(assignment.cells[0].point.engine).runs_models


def mean_context(samples: Sequence[Sample]) -> float:
    """Tokens before a generated one, its turn's prompt included, over all generated ones in the mean."""
    tokens = sum(sample.generated_tokens for sample in samples)
    seen = sum(
        sample.generated_tokens * (sample.prompt_tokens + sample.generated_tokens / 2) / max(sample.turns, 1)
        for sample in samples
    )
    return seen / max(tokens, 1)
