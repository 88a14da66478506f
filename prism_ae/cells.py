"""What one measurement is, and its identity.

A *point* says what is asked; a figure is made of points. A *cell* is a point together with the fingerprints of
everything that could change its number: two cells with the same id may share one result, and nothing else may. A result
is raw counts, never averages: every definition of acceptance length is derived later from the same histograms.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

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
        return text_schema(cls._read, handler)

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

    def contains(self, other: TreeShape) -> bool:
        """Whether none of its three numbers is smaller than the other's."""
        return self.steps >= other.steps and self.branch >= other.branch and self.verified >= other.verified

    def __str__(self) -> str:
        return f"{self.steps},{self.branch},{self.verified}"


EXACT: Final = "exact"
STOCK: Final = "stock"
DraftLoop = Literal["exact", "stock"]
"""How a draft tree is drafted: exactly, or by SGLang's own loop, where a branch may attend to another's tokens."""


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
        training_seed: which of the drafter's trainings; 0 where there is only one.
        repeat: of a cell whose time is measured: 0 answers all questions, 1 and more answer the first ``questions`` of
            them again, so that each of their seconds is measured several times.
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
    drafting: str = EXACT
    compat: tuple[str, ...] = ()
    training_seed: int = 0
    repeat: int = 0

    @property
    def trained(self) -> str:
        """What the drafter is trained on, in words: "8x", "8x seed 1"; "" where it is not trained at scales."""
        seed = f"seed {self.training_seed}" if self.training_seed else ""
        return " ".join(word for word in (self.scale or "", seed) if word)

    @property
    def unfilled_batch(self) -> str:
        """Why the batch is never full, or ""."""
        if self.batch is None or self.batch <= self.questions:
            return ""
        return f"batch {self.batch} never fills with {self.questions} questions"


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
        return digest(self.to_json())[:16]

    def to_json(self) -> dict[str, Any]:
        """Everything that identifies the cell. A training seed and a repeat of 0 are left out: cells that were measured
        before there was any other keep their ids."""
        data = dataclasses.asdict(self)
        for name in ("training_seed", "repeat"):
            if not data["point"][name]:
                del data["point"][name]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cell:
        """Inverse of `to_json`; raises KeyError or TypeError for other data."""
        point = dict(data["point"])
        if point["tree"] is not None:
            point["tree"] = TreeShape(**point["tree"])
        point["compat"] = tuple(point["compat"])
        return cls(Point(**point), Fingerprints(**data["fingerprints"]))


STAGES: Final = ("draft", "verify", "sample", "host")
"""What a round's time goes to, in the order of `Sample.stage_seconds`:

    draft     the drafter, from the tokens that it has not read yet to the finished draft tree
    verify    the target's forward pass over the tree, or of vanilla decoding over one token
    sample    the target's tokens, the walk down the tree, and what is committed to the caches
    host      everything between one round's end and the next one's begin: scheduling, batches, answers handed on
"""

NearTie = tuple[int, int, str, int]
"""A token of a question that an honest run may have chosen otherwise within rounding: its turn and its position there,
both from 0; 8 hex digits of a digest of the question's tokens before it; its id."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question, all its turns. One line of ``samples.jsonl``.

    Attributes:
        question_id: benchmark and the id in its file, as in "gsm8k/12".
        turns: turns answered.
        prompt_tokens: summed over turns.
        generated_tokens: summed over turns, an end token included, nothing after it.
        histogram: ``histogram[i]`` rounds in which the target accepted i drafts; () for vanilla. What the verification
            accepted counts, also in a round that reached the end token or the length limit.
        stops: why each turn ended: "end", "length" (max_new_tokens) or "window" (max_length).
        prefill_seconds, decode_seconds: wall time while this question was being served, others beside it.
        output_sha256: of the answers' token ids, turns separated: two runs with equal output have equal digests.
        accepted: of each turn, the drafts that each of its rounds accepted, in their order: what ``histogram`` counts.
            () for vanilla and where the order was not recorded.
        turn_tokens: generated tokens of each turn; () where only their sum was recorded.
        near_ties: of a half-precision cell, in their order; () where there are none, or nothing was examined.
        faults: tokens that were not the target's own, whatever rounding did; None where that was not examined: in
            float32, where a text's digest tells, in cells whose time is measured, and by other engines than torch.
        stage_seconds: by `STAGES`, of the rounds (vanilla decoding: the steps) that this question was in, each as long
            as the round took, like ``decode_seconds``; () where they were not measured apart.
    """

    question_id: str
    turns: int
    prompt_tokens: int
    generated_tokens: int
    histogram: tuple[int, ...]
    stops: tuple[str, ...]
    prefill_seconds: float
    decode_seconds: float
    output_sha256: str
    accepted: tuple[tuple[int, ...], ...] = ()
    turn_tokens: tuple[int, ...] = ()
    near_ties: tuple[NearTie, ...] = ()
    faults: int | None = None
    stage_seconds: tuple[float, ...] = ()

    @property
    def rounds(self) -> int:
        """Draft-verify-commit rounds, the prefill not counted (0 for vanilla)."""
        return sum(self.histogram)

    def problem(self) -> str:
        """How the numbers of its turns contradict its sums, or ""."""
        if self.turn_tokens and len(self.turn_tokens) != self.turns:
            return f"the tokens of {len(self.turn_tokens)} turns are listed, {self.turns} were answered"
        if self.turn_tokens and sum(self.turn_tokens) != self.generated_tokens:
            return f"its turns have {sum(self.turn_tokens)} tokens, {self.generated_tokens} were generated"
        if self.near_ties and self.faults is None:
            return "it names near ties, and was not examined"
        if self.stage_seconds and len(self.stage_seconds) != len(STAGES):
            return f"the seconds of {len(self.stage_seconds)} stages are listed, a round has {len(STAGES)}"
        if not self.accepted:
            return ""
        if not len(self.accepted) == len(self.turn_tokens) == self.turns:
            return f"rounds of {len(self.accepted)} turns are listed, {self.turns} were answered"
        counts = Counter(drafts for turn in self.accepted for drafts in turn)
        if counts != Counter(dict(enumerate(self.histogram))):
            return "the rounds that are listed are not those of its histogram"
        for number, (turn, tokens) in enumerate(zip(self.accepted, self.turn_tokens, strict=True), start=1):
            most = committed_tokens(turn)
            # A round that was drafted began before the answer's end.
            least = committed_tokens(turn[:-1]) + 1 if turn else 0
            if not least <= tokens <= most:
                return f"turn {number} has {tokens} tokens, and its rounds make it {least} to {most}"
        return ""


def committed_tokens(accepted: Sequence[int]) -> int:
    """Tokens that a turn's prefill and its rounds commit, by the drafts that each round accepted."""
    return 1 + sum(drafts + 1 for drafts in accepted)


Graphs = Sequence[int] | Literal["eager"] | None
"""Batch sizes that CUDA graphs were captured for."""


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """What an engine had in effect, read back from where it takes effect (as the store has it: `to_json`).

    What this program reads again has a name here, None where the engine does not say it.

    Attributes:
        torch, sglang: versions.
        attention: the class of the attention kernels.
        cuda_graphs, draft_cuda_graphs, extend_cuda_graphs: of the target's decoding, the draft loop, its first step.
        radix_cache: whether prompts' prefixes are kept; overlap: whether SGLang schedules beside the device's work.
        concurrency: requests in flight; largest_batch: at most.
        tree: of SGLang its parts, of the torch engine its text.
        drafter: folder; nonce: what the engine was to echo. No result has them.
        target_rope_theta, drafter_rope_theta: RoPE's bases in use; drafter_config_rope_theta: what the drafter's
            config.json says.
        others: what is only recorded.
    """

    torch: str | None = None
    sglang: str | None = None
    dtype: str | None = None
    attention: str | None = None
    cuda_graphs: Graphs = None
    draft_cuda_graphs: Graphs = None
    extend_cuda_graphs: Graphs = None
    radix_cache: bool | None = None
    overlap: bool | None = None
    concurrency: int | None = None
    largest_batch: int | None = None
    tree: Sequence[int] | str | None = None
    drafting: str | None = None
    drafter: str | None = None
    nonce: str | None = None
    target_rope_theta: float | None = None
    drafter_rope_theta: float | None = None
    drafter_config_rope_theta: float | None = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        names = [field.name for field in dataclasses.fields(self) if field.name != "others"]
        return {**self.others, **{name: value for name in names if (value := getattr(self, name)) is not None}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json` for any JSON object: keys that this version does not know, and null, are kept."""
        known = {field.name for field in dataclasses.fields(cls)} - {"others"}
        named = {name: value for name, value in data.items() if name in known and value is not None}
        return cls(**named, others={name: value for name, value in data.items() if name not in named})


@dataclasses.dataclass(frozen=True)
class Result:
    """What an engine returns for one cell.

    Attributes:
        samples: in the order of the questions.
        wall_seconds: of the whole batch run the cell was part of, prefill included.
    """

    samples: tuple[Sample, ...]
    wall_seconds: float
    settings: EngineSettings

    def with_others(self, others: Mapping[str, Any]) -> Result:
        """The result with more among what its settings only record."""
        merged = {**self.settings.others, **others}
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, others=merged))
