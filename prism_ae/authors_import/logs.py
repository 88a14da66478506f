"""The log of one evaluation: what it says about its run, and whether its raw data say the same."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from prism_ae.analysis.quantities import AL_MACRO, conditional_acceptance
from prism_ae.analysis.results import columns_of
from prism_ae.authors_import.refused import RefusedError
from prism_ae.cells import Sample, TreeShape

_NUMBER = r"\d*\.?\d+(?:[eE][-+]?\d+)?"
_HEADER = re.compile(
    r"gpu=(?P<gpu>\w+), name=(?P<name>[\w.-]+), bench=(?P<benchmark>\w+), temp=(?P<temperature>[\d.]+)"
)
_LENGTH = re.compile(rf"average acceptance length\s*=\s*({_NUMBER})")
_RATES = re.compile(r"position\s+acceptance\s+rate\s*$", re.IGNORECASE)
_RATE = re.compile(rf"\s*([0-9]{{1,6}})\s+({_NUMBER})\s*$")
_REACHED = re.compile(r"cum_counter\s*=\s*\[([\d\s,]+)\]")
_FLAG = re.compile(r"(total_token|depth|top_k)=([0-9]{1,6})$")
_DRAWN = re.compile(r"Number of missing points \(fallback to hardcoded(?: values)?\): ([1-9]\d*)")
_PRINTED = re.compile(r"[0-9]{0,15}\.?[0-9]{1,20}(?:[eE][-+]?[0-9]{1,2})?")
"""What Python prints for a mean or a rate: of what `_NUMBER` finds, that with which one can calculate."""
_MOST_ROUNDS, _MOST_STEPS = 10**15, 1000
"""Beyond these no evaluation was run, and no memory is taken for it."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """A number as a log prints it, and where."""

    text: str
    line: int

    def agrees(self, value: float) -> bool:
        """Whether ``value``, rounded to as many places, is the number; a sum in another order may differ by 1e-9."""
        places = -int(Decimal(self.text).as_tuple().exponent)
        return abs(float(self.text) - value) <= 0.5 * 10.0**-places + 1e-9


@dataclasses.dataclass(frozen=True)
class EvaluationLog:
    """What a log says.

    Attributes:
        file: as it is shown.
        ended: it says that the evaluation ended, well or not.
        broke: the line in which the generation of answers failed.
        tree: the draft tree of its flags; None where it does not print them.
        length: the acceptance length (mean over questions).
        rates: conditional acceptance rate of position 1, 2, …
        reached: rounds that accepted at least 0, 1, 2, … drafts.
        reached_line: where that stands.
    """

    file: str
    ended: bool
    broke: int | None
    tree: TreeShape | None
    length: Stated | None
    rates: tuple[Stated, ...]
    reached: tuple[int, ...]
    reached_line: int


def parse_log(text: str, file: str, of: tuple[str, str, str, str]) -> EvaluationLog:
    """Read a log.

    Args:
        file: as it is shown.
        of: name, benchmark, temperature and GPU in the file's name.

    Raises:
        RefusedError: it is of another evaluation than its name says, or of more than one.
    """
    flags: dict[str, int] = {}
    length: Stated | None = None
    rates: list[Stated] = []
    reached: tuple[int, ...] = ()
    started = reached_line = 0
    broke: int | None = None
    ended = table = False
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("start: "):
            started += 1
            if started > 1:
                raise RefusedError(file, number, "a second run begins here: logs of two runs are mixed")
        if match := _HEADER.match(line):
            said = match.group("name"), match.group("benchmark"), match.group("temperature"), match.group("gpu")
            if said != of:
                raise RefusedError(file, number, f"is the log of {' '.join(said)}, which its name contradicts")
        if match := _FLAG.match(line):
            flags[match.group(1)] = int(match.group(2))
        if match := _LENGTH.search(line):
            found = _stated(match.group(1), file, number)
            if length and float(length.text) != float(found.text):
                raise RefusedError(file, number, f"a second acceptance length, {found.text} after {length.text}")
            length = found
        if match := _REACHED.search(line):
            counts = re.findall(r"\d+", match.group(1))
            if any(len(count) > len(str(_MOST_ROUNDS)) for count in counts):
                raise RefusedError(file, number, "counts more rounds than an evaluation has")
            reached, reached_line = tuple(map(int, counts)), number
        row = _RATE.match(line)
        if table and row and int(row.group(1)) == len(rates) + 1:
            rates.append(_stated(row.group(2), file, number))
        elif _RATES.search(line):
            if rates:
                raise RefusedError(file, number, "a second table of acceptance rates: two runs are mixed")
            table = True
        else:
            table = False
        if "[ERROR] gen_ea_answer" in line or "[ERROR] Missing model dir" in line:
            broke = number
        ended = ended or line.startswith(("done: ", "failed: "))
    tree = TreeShape(flags["depth"] + 1, flags["top_k"], flags["total_token"]) if len(flags) == 3 else None
    if tree and (problem := tree.problem() or ("too many steps" if tree.steps > _MOST_STEPS else "")):
        raise RefusedError(file, None, f"says the draft tree {tree}: {problem}")
    return EvaluationLog(file, ended, broke, tree, length, tuple(rates), reached, reached_line)


def _stated(text: str, file: str, line: int) -> Stated:
    if not _PRINTED.fullmatch(text):
        raise RefusedError(file, line, f"holds a number that no evaluation prints: {text[:40]}")
    return Stated(text, line)


def check_log(log: EvaluationLog, samples: Sequence[Sample]) -> None:
    """Compare a log's numbers with those of the raw data; raises RefusedError where they differ."""
    columns = columns_of(samples)
    own = columns.value(AL_MACRO)
    if log.length and not log.length.agrees(own):
        raise _disagreement(log.file, log.length.line, f"acceptance length {log.length.text}", f"{own:.5f}")
    pooled = columns.histograms.sum(axis=0)
    rates = conditional_acceptance(pooled, len(log.rates))
    for position, (stated, rate) in enumerate(zip(log.rates, rates, strict=True), start=1):
        if not np.isnan(rate) and not stated.agrees(float(rate)):
            raise _disagreement(log.file, stated.line, f"acceptance rate {stated.text} at {position}", f"{rate:.5f}")
    tail = [int(pooled[drafts:].sum()) for drafts in range(len(log.reached))]
    if list(log.reached) != tail:
        raise _disagreement(log.file, log.reached_line, f"rounds {list(log.reached)}", f"{tail}")


def _disagreement(file: str, line: int, said: str, own: str) -> RefusedError:
    return RefusedError(file, line, f"says {said}, and the answers give {own}: they are not of one run")


def drawn_with_fallbacks(text: str) -> tuple[int, str] | None:
    """Line and number of points for which a drawing script says that it drew stored numbers; None if it does not."""
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _DRAWN.search(line):
            return number, match.group(1)[:20]
    return None
