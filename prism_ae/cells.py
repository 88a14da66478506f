"""What one measurement is, and its identity.

A *point* says what is asked; a figure is made of points. A *cell* is a point together with the fingerprints of
everything that could change its number: two cells with the same id may share one result, and nothing else may.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Self

from prism_ae.errors import UsageError
from prism_ae.fingerprint import digest


@dataclasses.dataclass(frozen=True, order=True)
class TreeShape:
    """A draft tree, as SGLang and the paper's figure 8 count it: (d, w, v).

    Attributes:
        steps: d, draft steps of a round; the deepest drafted token is the d-th. AL is at most d + 1.
        branch: w, the width of the beam and the children tried per node.
        verified: v, tokens the target verifies in a round: the root and v - 1 drafts.

    The authors' torch flags say the same as total_token = v, depth = d - 1, top_k = w.
    """

    steps: int
    branch: int
    verified: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "6,10,60"; raises UsageError for another form or a tree that no engine can build."""
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*", text)
        if found is None:
            raise UsageError(
                f"'{text[:80]}' is not a draft tree", "write steps,branch,verified tokens, as in --tree 6,10,60"
            )
        tree = cls(*map(int, found.groups()))
        if problem := tree.problem():
            raise UsageError(f"draft tree {tree}: {problem}", "see 'prism-ae run --help' for valid trees")
        return tree

    def problem(self) -> str:
        """Why no engine can build this tree, or ""."""
        d, w, v = self.steps, self.branch, self.verified
        if d < 1 or w < 1:
            return "steps and branch must be at least 1"
        if v < 2:
            return "at least 2 tokens must be verified, the root and one draft"
        if w == 1 and v != d + 1:
            return f"a chain of {d} steps verifies {d + 1} tokens, not {v}"
        most = 1 + w + w * w * (d - 1)
        if v > most:
            return f"{d} steps of branch {w} draft {most - 1} tokens, so at most {most} can be verified, not {v}"
        return ""

    def __str__(self) -> str:
        return f"{self.steps},{self.branch},{self.verified}"


@dataclasses.dataclass(frozen=True)
class Point:
    """What is asked. Names are those of the suite's records.

    Attributes:
        suite, target, drafter, benchmark: record names; drafter "vanilla" decodes without speculation.
        scale: name of the training scale, None for vanilla and standard.
        temperature: 0 is greedy.
        tree: None for vanilla.
        engine: "torch" or "sglang".
        batch: sequences decoded together when time is measured; None for an acceptance cell, whose numbers do not
            depend on what else is in the batch.
        questions: the first n of the benchmark's set.
        max_new_tokens: per turn.
        max_length: prompt and answer together.
        seed: of the sampling; each question derives its own from it.
        dtype: "float32", "bfloat16" or "float16".
        drafting: "exact", or "stock": SGLang's own draft loop, in which a branch attends to a stranger's drafts.
        compat: names of the original artifact's choices that are imitated, sorted.
    """

    suite: str
    target: str
    drafter: str
    scale: str | None
    benchmark: str
    temperature: float
    tree: TreeShape | None
    engine: str
    batch: int | None
    questions: int
    max_new_tokens: int
    max_length: int
    seed: int
    dtype: str
    drafting: str = "exact"
    compat: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """Digests (hex) and versions of what could change a cell's number."""

    target: str
    drafter: str | None
    prompts: str
    engine: str
    verifier: str


@dataclasses.dataclass(frozen=True)
class Cell:
    point: Point
    fingerprints: Fingerprints

    @property
    def id(self) -> str:
        """16 hex digits, the same on every machine."""
        return digest(self)[:16]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cell:
        """Inverse of `to_json`; raises KeyError or TypeError for other data."""
        point = dict(data["point"])
        if point["tree"] is not None:
            point["tree"] = TreeShape(**point["tree"])
        point["compat"] = tuple(point["compat"])
        return cls(Point(**point), Fingerprints(**data["fingerprints"]))
