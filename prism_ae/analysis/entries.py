"""A frame of timed cells folded into entries: one target, drafter, temperature, tree and batch each.

Figures and tables draw entries and claims are judged on them. An entry is of one benchmark, or of the mean over all
that were asked, and then it is a hole wherever one of their cells is missing. A ratio to vanilla decoding needs the
vanilla cell of everything that is alike (`_ALIKE`), measured on the same device with the same attention kernels, and is
a hole without it.

Over several benchmarks, acceptance length and TPS are arithmetic means, and the speed-up is the mean TPS over
vanilla's mean TPS (the paper's definition). All that comes from rounds and decode seconds (decode TPS, tokens per
round, seconds, costs, decode speed-up) is of the sums over the benchmarks, so that decode speed-up = tokens per
round / round cost holds there, too.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prism_ae.analysis.acceptance import Counts, Floats, acceptance_lengths, al_macro, al_micro, ratio
from prism_ae.analysis.bootstrap import interval, mean_replicates, micro_replicates, total_replicates
from prism_ae.analysis.curves import Estimate
from prism_ae.analysis.speed import (
    Times,
    Totals,
    decode_speed_up,
    decode_tps,
    round_cost,
    round_seconds,
    step_seconds,
    tokens_per_round,
    totals,
    tps,
)

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = (
    "al_macro", "al_micro", "tps", "decode_tps", "tokens_per_round", "round_seconds", "step_seconds", "speed_up",
    "round_cost", "decode_speed_up",
)  # fmt: skip
"""What an entry can have values of; the formulas are `timing`'s and `metrics`'."""

_ALIKE = (
    "suite", "target", "benchmark", "temperature", "engine", "batch", "questions", "max_new_tokens", "max_length",
    "seed", "dtype", "compat",
)  # fmt: skip
"""What a cell shares with the vanilla cell that it is compared with."""

_OF = ("target", "drafter", "temperature", "drafting", "tree", "batch")
"""What an entry is of, the benchmark apart."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """What was measured of one target, drafter, temperature, way of drafting, tree and batch.

    Attributes:
        tree: as text; None for vanilla.
        benchmark: "" is the mean over the benchmarks that were asked.
        values: by `QUANTITIES`; what is missing is a hole or undefined (vanilla decoding has no rounds).
        baseline: vanilla's "tps", "decode_tps" and "step_seconds" that the ratios are to; empty where there is none.
        asked: cells it needs; cell_ids: those measured; baseline_ids: vanilla's.
        questions: with rounds, over its benchmarks; without_rounds: those left out of the acceptance length.
    """

    target: str
    drafter: str
    temperature: float
    drafting: str
    tree: str | None
    batch: int
    benchmark: str
    values: Mapping[str, Estimate]
    baseline: Mapping[str, float]
    asked: int
    cell_ids: tuple[str, ...]
    baseline_ids: tuple[str, ...]
    questions: int
    without_rounds: int

    @property
    def vanilla(self) -> bool:
        return self.tree is None


@dataclasses.dataclass(frozen=True, eq=False)
class _Cell:
    """A measured cell with its resampled sums, computed once however many entries it is part of.

    Attributes:
        hardware: the device and the engine's attention kernels, None where the engine has one kind.
    """

    id: str
    benchmark: str
    hardware: tuple[str, str | None]
    counts: Counts
    times: Times

    @functools.cached_property
    def total(self) -> Totals:
        return totals(self.times)

    @functools.cached_property
    def resampled(self) -> Totals:
        return total_replicates(self.times, self.benchmark)


def fold_times(frame: pd.DataFrame, benchmarks: bool) -> tuple[Entry, ...]:
    """The entries of timed cells, in the order of the frame.

    Args:
        frame: `build_frame` of points that all have a batch.
        benchmarks: also an entry per benchmark, before the mean over them.
    """
    rows = frame.to_dict("records")
    cells = [_cell(row) for row in rows]
    plain = {_key(row, _ALIKE): cell for row, cell in zip(rows, cells, strict=True) if row["tree"] is None}
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_key(row, _OF), []).append(number)
    entries = []
    for numbers in groups.values():
        parts = [([number], rows[number]["benchmark"]) for number in numbers] if benchmarks else []
        for part, benchmark in [*parts, (numbers, "")]:
            found = [cells[number] for number in part]
            alike = [plain.get(_key(rows[number], _ALIKE)) for number in part]
            entries.append(_entry(rows[part[0]], benchmark, found, alike))
    return tuple(entries)


def _cell(row: Mapping[Hashable, Any]) -> _Cell | None:
    if not row["measured"]:
        return None
    hardware = row["device"], row["settings"].get("attention")
    return _Cell(row["cell_id"], row["benchmark"], hardware, row["counts"], row["times"])


def _key(row: Mapping[Hashable, Any], columns: Sequence[str]) -> tuple[Hashable, ...]:
    return tuple(row[column] for column in columns)


def _entry(
    row: Mapping[Hashable, Any], benchmark: str, found: Sequence[_Cell | None], alike: Sequence[_Cell | None]
) -> Entry:
    done = [cell for cell in found if cell is not None]
    base = [cell for cell in alike if cell is not None]
    complete = len(done) == len(found)
    comparable = complete and len(base) == len(found)
    comparable = comparable and all(one.hardware == other.hardware for one, other in zip(done, base, strict=True))
    vanilla = row["tree"] is None
    values = _values(done, vanilla) if complete else {}
    if comparable:
        values |= _ratios(done, base, vanilla)
    without = 0 if vanilla else sum(int(np.count_nonzero(cell.counts.rounds == 0)) for cell in done)
    return Entry(
        **{column: row[column] for column in _OF},
        benchmark=benchmark,
        values={name: value for name, value in values.items() if value is not None},
        baseline={name: value.value for name, value in _values(base, True).items() if value} if comparable else {},
        asked=len(found),
        cell_ids=tuple(cell.id for cell in done),
        baseline_ids=tuple(cell.id for cell in base) if comparable else (),
        questions=sum(len(cell.counts.question_ids) for cell in done) - without,
        without_rounds=without,
    )


def _values(cells: Sequence[_Cell], vanilla: bool) -> dict[str, Estimate | None]:
    """What the cells say by themselves."""
    total, resampled = _summed(cells)
    found = {
        "tps": (_mean([tps(cell.total) for cell in cells]), _mean([tps(cell.resampled) for cell in cells])),
        "decode_tps": (decode_tps(total), decode_tps(resampled)),
    }
    if vanilla:
        found["step_seconds"] = (step_seconds(total), step_seconds(resampled))
    else:
        macro = [mean_replicates(acceptance_lengths(cell.counts), cell.benchmark) for cell in cells]
        micro = [micro_replicates(cell.counts, cell.benchmark) for cell in cells]
        found |= {
            "al_macro": (_mean([al_macro(cell.counts) for cell in cells]), _mean(macro)),
            "al_micro": (_mean([al_micro(cell.counts) for cell in cells]), _mean(micro)),
            "tokens_per_round": (tokens_per_round(total), tokens_per_round(resampled)),
            "round_seconds": (round_seconds(total), round_seconds(resampled)),
        }
    return {name: _estimate(*pair, cells) for name, pair in found.items()}


def _ratios(cells: Sequence[_Cell], base: Sequence[_Cell], vanilla: bool) -> dict[str, Estimate | None]:
    """What the cells say beside vanilla's; without intervals where vanilla answered other questions."""
    (total, resampled), (plain, replain) = _summed(cells), _summed(base)
    fast, refast = (_mean([tps(cell.total) for cell in cells]), _mean([tps(cell.resampled) for cell in cells]))
    slow, reslow = (_mean([tps(cell.total) for cell in base]), _mean([tps(cell.resampled) for cell in base]))
    found = {"speed_up": (ratio(fast, slow), ratio(refast, reslow))}
    if vanilla:
        found["decode_speed_up"] = (
            ratio(decode_tps(total), decode_tps(plain)),
            ratio(decode_tps(resampled), decode_tps(replain)),
        )
    else:
        found["round_cost"] = (round_cost(total, plain), round_cost(resampled, replain))
        found["decode_speed_up"] = (decode_speed_up(total, plain), decode_speed_up(resampled, replain))
    paired = [cell.counts.question_ids for cell in cells] == [cell.counts.question_ids for cell in base]
    return {name: _estimate(*pair, cells, paired) for name, pair in found.items()}


def _summed(cells: Sequence[_Cell]) -> tuple[Totals, Totals]:
    """Sums over the cells' questions, and the resampled ones."""
    return (
        functools.reduce(operator.add, [cell.total for cell in cells]),
        functools.reduce(operator.add, [cell.resampled for cell in cells]),
    )


def _mean(values: Sequence[float | Floats]) -> Floats:
    return np.mean(np.asarray(values, dtype=np.float64), axis=0)


def _estimate(value: Floats, replicates: Floats, cells: Sequence[_Cell], paired: bool = True) -> Estimate | None:
    """None where the value is undefined."""
    if np.isnan(value):
        return None
    ids = tuple(cell.counts.question_ids for cell in cells)
    # One question with rounds among many without has no interval; vanilla decoding has none with rounds.
    fewest = min(int(np.count_nonzero(cell.counts.rounds)) or len(cell.counts.question_ids) for cell in cells)
    bounds = interval(replicates, fewest) if paired else None
    return Estimate(float(value), bounds, replicates, ids, None)
