"""Losslessness as evidence: every drawing says whether all drafters wrote the same texts.

Speculative decoding must not change what the target writes. A question's greedy text is therefore the same under every
drafter, at every training scale, with every draft tree and batch; where an engine's randomness belongs to the question
(`engines.registry`) the sampled texts are, too. The digests that are stored with each answer show it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

from prism_ae.analysis.results import Measured
from prism_ae.cells import Point
from prism_ae.engines import registry
from prism_ae.suites.compat import text_flags


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts that were written more than once: how many, and how many of them came out in more than one version."""

    compared: int
    differing: int


def compare(measured: Mapping[Point, Measured]) -> Texts:
    """Compare a question's texts over points that differ in nothing but drafter, scale, tree, drafting and batch."""
    same = {name: registry.find(name).uses_common_random_numbers for name in {point.engine for point in measured}}
    versions: dict[tuple[Point, str], list[str]] = defaultdict(list)
    for point, result in measured.items():
        if point.temperature == 0 or same[point.engine]:
            rest = dataclasses.replace(
                point, drafter="", scale=None, tree=None, batch=None, questions=0, drafting="", training_seed=0,
                compat=text_flags(point.compat),
            )  # fmt: skip
            for sample in result.samples:
                versions[rest, sample.question_id].append(sample.output_sha256)
    repeated = [texts for texts in versions.values() if len(texts) > 1]
    return Texts(len(repeated), sum(len(set(texts)) > 1 for texts in repeated))
