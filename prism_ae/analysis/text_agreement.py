"""Losslessness as evidence: every drawing says whether all drafters wrote the same texts.

Speculative decoding must not change what the target writes. A question's greedy text is therefore the same under every
drafter, at every training scale, with every draft tree and batch; where an engine's randomness belongs to the question
(`engines.registry`) the sampled texts are, too. The digests that are stored with each answer show it.

In half precision honest runs may differ where tokens are tied within rounding. The torch engine looks at every token
there and stores the near ties (`decoding.examine`), each with a digest of what was written before it. Two texts that
part at a near tie of both have parted by rounding; two that part elsewhere have not, and that is a fault. Which run
came first does not matter, nor in which order texts are compared.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from prism_ae.analysis.results import Measured
from prism_ae.cells import Point, Sample
from prism_ae.engines import registry
from prism_ae.suites.compat import text_flags

_EXACT = "float32"


@dataclasses.dataclass(frozen=True)
class Texts:
    """What the texts of a drawing show.

    Attributes:
        compared: texts that were written more than once; differing: how many of them came out in more than one version.
        ties: of those, in half precision, parted by ties within rounding alone; faults: some version parted elsewhere;
            unexamined: neither is known, since the near ties of some version were not recorded.
        wrong_tokens: of all half-precision answers, tokens that were not the target's own (`cells.Sample.faults`).

    What differs and is none of the three, differs in float32.
    """

    compared: int
    differing: int
    ties: int = 0
    faults: int = 0
    unexamined: int = 0
    wrong_tokens: int = 0

    @property
    def differing_exactly(self) -> int:
        """Texts that differ in float32."""
        return self.differing - self.ties - self.faults - self.unexamined


def compare(measured: Mapping[Point, Measured]) -> Texts:
    """Compare a question's texts over points that differ in nothing but drafter, scale, tree, drafting and batch."""
    same = {name: registry.find(name).uses_common_random_numbers for name in {point.engine for point in measured}}
    versions: dict[tuple[Point, str], list[Sample]] = defaultdict(list)
    for point, result in measured.items():
        if point.temperature == 0 or same[point.engine]:
            rest = dataclasses.replace(
                point, drafter="", scale=None, tree=None, batch=None, questions=0, drafting="", training_seed=0,
                repeat=0, compat=text_flags(point.compat),
            )  # fmt: skip
            for sample in result.samples:
                versions[rest, sample.question_id].append(sample)
    repeated = [(point.dtype, samples) for (point, _), samples in versions.items() if len(samples) > 1]
    differing = [(dtype, samples) for dtype, samples in repeated if len({each.output_sha256 for each in samples}) > 1]
    parted = [_parted(samples) for dtype, samples in differing if dtype != _EXACT]
    return Texts(
        compared=len(repeated),
        differing=len(differing),
        ties=parted.count(_TIE),
        faults=parted.count(_FAULT),
        unexamined=parted.count(_UNEXAMINED),
        wrong_tokens=sum(sample.faults or 0 for result in measured.values() for sample in result.samples),
    )


_TIE, _FAULT, _UNEXAMINED = "tie", "fault", "unexamined"

_Ties = Mapping[tuple[int, int, str], int]
"""Turn, position and digest of what is before -> the token that a text has there."""


def _parted(samples: Sequence[Sample]) -> str:
    """How the texts of one question have parted: the worst of every two versions, a fault before what is not known."""
    runs: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        runs[sample.output_sha256].append(sample)
    found = {_pair(one, other) for one, other in itertools.combinations(map(_near_ties, runs.values()), 2)}
    if _FAULT in found or any(sample.faults for sample in samples):
        return _FAULT
    return _UNEXAMINED if _UNEXAMINED in found else _TIE


def _near_ties(runs: Iterable[Sample]) -> _Ties | None:
    """Those of one text, whichever of its runs saw them; None where none of them was examined."""
    examined = [sample for sample in runs if sample.faults is not None]
    if not examined:
        return None
    return {(turn, place, before): token for sample in examined for turn, place, before, token in sample.near_ties}


def _pair(one: _Ties | None, other: _Ties | None) -> str:
    """How two different texts have parted. After the first difference no digest of theirs is the same."""
    if one is None or other is None:
        return _UNEXAMINED
    return _TIE if any(other.get(place, token) != token for place, token in one.items()) else _FAULT
