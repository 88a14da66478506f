"""The records of a suite, as `prism_ae/suites/<name>.toml` states them. Facts only; loading is `load.py`'s."""

from __future__ import annotations

import dataclasses
from typing import Literal

from prism_ae.cells import TreeShape
from prism_ae.io.schema import OptionalText, record


@record
class Template:
    """How a conversation becomes text. Every piece is literal text with {system}, {user} or {answer} in it.

    Attributes:
        first: the first user turn, with the system prompt.
        later: a further user turn, after an answer.
        answer: an answer that is followed by a further turn (its end marker included).
        stop: texts of the special tokens that end an answer, one token each.
        trim: whether whitespace around system prompt and user turns is dropped (Llama-3's own template does).

    Beginning-of-sequence markers are part of the text, so that a tokenizer is always called without adding any.
    """

    name: str
    first: str
    later: str
    answer: str
    stop: tuple[str, ...]
    trim: bool = False


@record
class TargetRecord:
    """A model that is sped up.

    Attributes:
        roles: "llama-2", "llama-3" or both: figures ask for roles, each suite fills them with its own targets. One that
            takes both is measured once, and drawn once.
        folder: below the models folder; None for a target that is trained here and found by its recipe.
        drafter_folder: below the models folder, holds its drafters; small_folder: its small LM.
        capture: hidden states that PRISM* reads, eagle3_capture: that EAGLE-3 reads (numbering: `Llama.forward`).
    """

    name: str
    roles: tuple[str, ...]
    label: str
    template: str
    capture: tuple[int, ...]
    eagle3_capture: tuple[int, ...]
    folder: OptionalText = None
    drafter_folder: OptionalText = None
    small_folder: OptionalText = None


@record
class ServedCheckpoint:
    """A checkpoint that was published for SGLang: for which role and scale, and its folder below the models folder."""

    role: str
    scale: str
    folder: str


@record
class DrafterRecord:
    """A kind of drafter.

    Attributes:
        kind: "vanilla" (none), "draft-head" (drafts from the target's hidden states), "model" (a separate small LM) or
            "lookup" (prompt lookup: copies from the text so far, without a model).
        roles: targets it exists for.
        scaled: whether it is trained at every scale.
        control: an equal-budget control, or one for what a drafter reads.
        folder: below the models folder, with {drafters} (the target's ``drafter_folder``), {small} (its
            ``small_folder``) and {scale}; None for vanilla, for a checkpoint that is trained here and found by its
            recipe, and where there is none.
        absent: why there is no checkpoint in ``folder``.
        served: checkpoints published for SGLang; the sglang engine uses them where there is one, else ``folder``'s.
        config_rope: whether the authors evaluate it with the RoPE base of its config.json, not the one it was trained
            with.
        min_ngram, max_ngram: tokens that a prompt lookup looks up, at least and at most; 0 for others.
    """

    name: str
    label: str
    kind: Literal["vanilla", "draft-head", "model", "lookup"]
    roles: tuple[str, ...]
    scaled: bool = False
    control: bool = False
    folder: OptionalText = None
    absent: OptionalText = None
    served: tuple[ServedCheckpoint, ...] = ()
    config_rope: bool = False
    min_ngram: int = 0
    max_ngram: int = 0

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to train or to download."""
        return self.kind in ("draft-head", "model")

    def exists_for(self, target: TargetRecord) -> bool:
        """Whether it is a drafter of this target, by the roles of both."""
        return any(role in self.roles for role in target.roles)

    def served_folder(self, target: TargetRecord, scale: str | None) -> str | None:
        """The folder below the models folder that was published for SGLang, None where none was."""
        return next((one.folder for one in self.served if one.role in target.roles and one.scale == scale), None)


@record
class Scale:
    """Amount of training data: ``value`` is its place on the axis, in the unit that the suite names."""

    name: str
    value: float


@record
class Benchmark:
    """A question set: ``file`` is below ``benchmarks`` in the models folder; None where the embedded corpus makes it.

    ``turns`` is the number of user turns that each question has.
    """

    name: str
    label: str
    turns: int
    file: OptionalText = None


@record
class Limits:
    """What a measurement uses unless asked otherwise.

    Attributes:
        questions: of each benchmark.
        max_new_tokens: of an answer; ``turns_max_new_tokens``: of each answer where questions have several turns.
        max_length: prompt and answer together.
    """

    questions: int
    max_new_tokens: int
    turns_max_new_tokens: int
    max_length: int
    seed: int
    dtype: Literal["float32", "bfloat16", "float16"]

    def new_tokens(self, turns: int) -> int:
        """``max_new_tokens`` of a benchmark whose questions have so many turns."""
        return self.turns_max_new_tokens if turns > 1 else self.max_new_tokens


@record
class PackagedFile:
    """A file inside a wheel of the Python package index, and how both are known again.

    Attributes:
        project, version: of the package.
        wheel_size, wheel_sum: bytes and sha256 (hex) of its wheel.
        file: its path inside the wheel; file_size, file_sum: its bytes and sha256 (hex).
    """

    project: str
    version: str
    wheel_size: int
    wheel_sum: str
    file: str
    file_size: int
    file_sum: str

    @property
    def requirement(self) -> str:
        """As pip is asked for it, and as its source is noted."""
        return f"{self.project}=={self.version}"


@record
class PackagedModel:
    """A model in a package, as a GGUF file.

    Attributes:
        source: where that file is.
        folder_size: bytes, at least, of the folder that is made of it.
    """

    source: PackagedFile
    folder_size: int

    @property
    def disk(self) -> int:
        """Bytes of the disk that it takes meanwhile; ``folder_size`` remain."""
        return self.source.wheel_size + self.source.file_size + self.folder_size


@record
class PackagedQuestions:
    """A benchmark whose question file is made of HumanEval's tasks in a package.

    Attributes:
        source: where HumanEval's own file is, compressed.
        before: text in front of each task's prompt.
        order: numbers of the tasks, in the order of the questions.
    """

    source: PackagedFile
    before: str
    order: tuple[int, ...]


@record
class Hub:
    """Where a suite's models and questions are published.

    Attributes:
        modelscope, huggingface: the repository that holds every folder of the suite, on either hub.
        whole: the one folder that these repositories are, where they do not hold folders.
        revision: of the repository on Hugging Face; "" for its main branch.
        sums: file name -> sha256 (hex) of ``whole``, on either hub; {} where they are not known before.
        packages: folder -> the package that has the same model.
        packaged_questions: benchmark -> the package that its question file can be made of.
        official: folder -> the Hugging Face repository of those who published that model first.
        questions: address of a benchmark's question file, with {file} for its ``Benchmark.file``.
        question_sums: benchmark -> sha256 (hex) of its question file.
        size_note: what those who published it say about its size, with the source; "" where nothing is known.
    """

    modelscope: str
    huggingface: str
    questions: str
    question_sums: dict[str, str]
    size_note: str = ""
    official: dict[str, str] = dataclasses.field(default_factory=dict)
    whole: OptionalText = None
    revision: str = ""
    sums: dict[str, str] = dataclasses.field(default_factory=dict)
    packages: dict[str, PackagedModel] = dataclasses.field(default_factory=dict)
    packaged_questions: dict[str, PackagedQuestions] = dataclasses.field(default_factory=dict)


@record
class Suite:
    """Everything an experiment can refer to. Mappings keep the file's order.

    Attributes:
        version: raised whenever a fact in the file changes a number.
        models_hint: how to get the models, shown where one is missing.
        trees: named draft trees: figures ask for "main" or "small", tables for "sglang".
        limits: of experiments that measure acceptance; serving: of those that measure time.
        hub: where ``prism-ae download`` finds it all; None for a suite that is not downloaded.
        controls: whether the equal-budget controls are measured and drawn unless asked otherwise.
        seed_scales: names of the scales at which drafters are trained with further seeds; () for a suite whose
            drafters are not trained here.
        recipes: recipe file of a suite whose drafters are trained here, named relative to the suite's own, or one of
            this package's (`load_suite` makes it a path); None for a suite that is only downloaded.
        source: what ``--suite`` takes for it, by `load_suite`.
        repeats: how often times are measured; most_repeats: at most, where they are unstable; repeat_questions: of
            each benchmark, after the first time (all of them where several are decoded together).
    """

    name: str
    version: int
    title: str
    models_hint: str
    system_prompt: str
    scale_axis: str
    scales: tuple[Scale, ...]
    targets: dict[str, TargetRecord]
    drafters: dict[str, DrafterRecord]
    benchmarks: dict[str, Benchmark]
    templates: dict[str, Template]
    trees: dict[str, TreeShape]
    limits: Limits
    serving: Limits
    hub: Hub | None = None
    controls: bool = False
    seed_scales: tuple[str, ...] = ()
    recipes: OptionalText = None
    source: str = ""
    repeats: int = 1
    most_repeats: int = 1
    repeat_questions: int = 1

    @property
    def download_command(self) -> str:
        """What fetches it, where it is downloaded."""
        return "prism-ae download" + ("" if self.name == "paper" else f" --suite {self.name}")

    def target_of(self, role: str) -> TargetRecord:
        """The suite's target for a role; raises KeyError."""
        for target in self.targets.values():
            if role in target.roles:
                return target
        raise KeyError(role)

    @property
    def roles(self) -> tuple[str, ...]:
        """Those that the suite fills, in the order of its targets."""
        return tuple(role for target in self.targets.values() for role in target.roles)

    def why_unpublished(self, target: str, drafter: str, scale: str | None) -> str:
        """Why no checkpoint of a drafter was published for a target and scale; "" where one was, or is trained here."""
        record = self.drafters[drafter]
        return "" if record.served_folder(self.targets[target], scale) else record.absent or ""

    def drafter_folder(self, target: str, drafter: str, scale: str | None, engine: str = "torch") -> str | None:
        """The folder below the models folder that holds a drafter for a target.

        SGLang's engine reads what was published for it, where something was; the others read that only where nothing
        else was published.

        Args:
            target, drafter: names of records.
            scale: of a drafter that is trained at scales, else None.
            engine: the one that would read it.

        Returns:
            None where none was published: of vanilla decoding, of a drafter that is trained here, or of none at all.
        """
        record, of = self.drafters[drafter], self.targets[target]
        served = record.served_folder(of, scale)
        if served and (engine == "sglang" or record.absent):
            return served
        if record.absent or not record.folder or not record.exists_for(of):
            return None
        return record.folder.format(drafters=of.drafter_folder, small=of.small_folder, scale=scale)
