"""What one measurement is, and its identity.

A *point* says what is asked; a figure is made of points. A *cell* is a point together with the fingerprints of
everything that could change its number: two cells with the same id may share one result, and nothing else may. A result
is raw counts, never averages: every definition of acceptance length is derived later from the same histograms.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Self

from prism_ae.errors import UsageError
from prism_ae.io.digests import digest
from prism_ae.io.schema import text_schema


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
        """From "6,10,60"; raises UsageError for another form or a tree that no engine can build.

        For the command line. A record of a TOML file has a TreeShape as a field, which is written in the same form.
        """
        try:
            return cls._read(text)
        except ValueError as error:
            raise UsageError(str(error), "write steps,branch,verified tokens, as in --tree 6,10,60") from None

    @classmethod
    def _read(cls, text: str) -> Self:
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*,\s*([0-9]{1,6})\s*", text)
        if found is None:
            raise ValueError(f"'{text[:80]}' is not a draft tree (steps,branch,verified tokens)")
        tree = cls(*map(int, found.groups()))
        if problem := tree.problem():
            raise ValueError(f"draft tree {tree}: {problem}")
        return tree

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """How `io.schema.check` fills a record's field of this type: from a text."""
        return text_schema(cls._read)

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
        drafting: "exact", or "stock": SGLang's own draft loop, where a branch may attend to another branch's tokens.
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


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question, all its turns. One line of ``samples.jsonl``.

    Attributes:
        question_id: benchmark and the id in its file, as in "gsm8k/12".
        turns: turns answered.
        prompt_tokens: summed over turns.
        generated_tokens: summed over turns, an end token included, nothing after it.
        rounds: draft-verify-commit rounds, the prefill not counted (0 for vanilla).
        histogram: ``histogram[i]`` rounds in which the target accepted i drafts; sums to ``rounds``. What the
            verification accepted counts, also in a round that reached the end token or the length limit.
        stops: why each turn ended: "end", "length" (max_new_tokens) or "window" (max_length).
        prefill_seconds, decode_seconds: wall time while this question was being served, others beside it.
        output_sha256: of the answers' token ids, turns separated: two runs with equal output have equal digests.
    """

    question_id: str
    turns: int
    prompt_tokens: int
    generated_tokens: int
    rounds: int
    histogram: tuple[int, ...]
    stops: tuple[str, ...]
    prefill_seconds: float
    decode_seconds: float
    output_sha256: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What an engine returns for one cell.

    Attributes:
        samples: in the order of the questions.
        wall_seconds: of the whole batch run the cell was part of, prefill included.
        settings: the engine's effective settings, read back (threads, device, batch, dtype, library versions).
    """

    samples: tuple[Sample, ...]
    wall_seconds: float
    settings: Mapping[str, Any]
