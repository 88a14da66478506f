"""One job of training: from a recipe to a published folder. What a worker process runs.

What exists already is kept, so that a job can be run again after any interruption.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_ae.errors import PrismError
from prism_ae.recipes.catalogue import SUITE, Artifact
from prism_ae.recipes.file import Recipes, load_recipes
from prism_ae.suites.load import load_suite

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from prism_ae.prompts.conversation import Conversation
    from prism_ae.suites.records import Template
    from prism_ae.training.drafter import Data
    from prism_ae.training.examples import Example

Report = Callable[[float, float | None], None]
"""Called with the part done (0 to 1) and the current loss."""


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """An artifact to make; ``cost`` is the estimated work, in units that only compare jobs."""

    artifact: Artifact
    cost: float

    @property
    def affinity(self) -> tuple[str, ...]:
        """A worker keeps the features of the target that it trained for last."""
        return (self.artifact.target,)

    @property
    def label(self) -> str:
        return self.artifact.label


@dataclasses.dataclass(frozen=True)
class JobProgress:
    """The part done (0 to 1) and the current loss."""

    part: float
    loss: float | None


@dataclasses.dataclass(frozen=True)
class JobFailed:
    """``trace``: of a bug, or ""."""

    error: PrismError
    trace: str = ""


def plan_jobs(artifacts: Sequence[Artifact], recipe_file: Path) -> tuple[TrainingJob, ...]:
    """The jobs that make what does not exist yet."""
    recipes = load_recipes(recipe_file)
    return tuple(TrainingJob(one, _cost(one, recipes)) for one in artifacts if not one.folder.exists())


def _cost(artifact: Artifact, recipes: Recipes) -> float:
    """Tokens times layers times size: good enough to start long jobs first and to guess the time left."""
    target = recipes.targets[artifact.target]
    if artifact.kind == "target":
        return float(target.training.conversations * target.shape.layers * target.shape.hidden_size)
    if artifact.kind == "model":
        return float(target.small_training.conversations * target.small_shape.layers * target.small_shape.hidden_size)
    drafter = recipes.drafters[artifact.name]
    conversations = artifact.recipe["corpus"]["scale"] * recipes.corpus.unit * artifact.recipe["training"]["passes"]
    return float(conversations * (0.5 + drafter.forwards * drafter.layers) * target.shape.hidden_size)


def run_job(job: TrainingJob, recipe_file: Path, report: Report) -> None:
    """Train and publish; raises StoreError, or CheckpointError if what it needs is damaged."""
    # Torch is loaded here, not when jobs are planned.
    train = _train_drafter if job.artifact.kind == "draft-head" else _train_language_model
    train(job.artifact, recipe_file, report)


class StepCounter:
    """Steps done to `Report`; the loss is smoothed over about twenty steps."""

    def __init__(self, total: int, report: Report) -> None:
        self.total, self.report, self.done, self.loss = total, report, 0, float("nan")

    def tick(self, steps: int, loss: float) -> None:
        self.done += steps
        self.loss = loss if self.loss != self.loss else 0.95 * self.loss + 0.05 * loss
        self.report(self.done / self.total, self.loss)


def provenance(seconds: float, **facts: Any) -> dict[str, Any]:
    import torch

    import prism_ae

    return {
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "prism_ae": prism_ae.__version__,
        **facts,
    }


def _train_language_model(artifact: Artifact, recipe_file: Path, report: Report) -> None:
    from prism_ae.mini import corpus
    from prism_ae.models.checkpoints import Manifest, publish, save_target
    from prism_ae.prompts.templates import stop_ids
    from prism_ae.training.examples import encode
    from prism_ae.training.target import answer_quality, new_target, target_config, train_target, training_steps
    from prism_ae.training.tokenizer import save_tokenizer, special_tokens, train_tokenizer

    began = time.monotonic()
    recipe, suite = load_recipes(recipe_file).targets[artifact.target], load_suite(SUITE)
    template = suite.templates[suite.targets[artifact.target].template]
    small = artifact.kind == "model"
    shape, training = (recipe.small_shape, recipe.small_training) if small else (recipe.shape, recipe.training)
    # Both models of a target learn the same tokenizer, from the same conversations.
    told = corpus.conversations(recipe.tokenizer.conversations, recipe.training.seed)
    tokenizer = train_tokenizer(
        told, template, suite.system_prompt, recipe.tokenizer.vocabulary, single_digits=recipe.tokenizer.single_digits
    )

    conversation = _conversation(tokenizer, template, suite.system_prompt, shape.window)

    def ready(data: Sequence[corpus.Conversation]) -> list[Example]:
        return _flat(encode(data, conversation, shape.window).turns)

    examples = ready(corpus.conversations(training.conversations, training.seed))
    target = new_target(target_config(shape, tokenizer.get_vocab_size()), training.embedding_std, training.seed)
    train_target(target, examples, training, StepCounter(training_steps(len(examples), training), report).tick)
    unseen = [
        example
        for benchmark in suite.benchmarks
        for example in ready(corpus.held_out_conversations(benchmark, _UNSEEN))
    ]
    quality = {name: round(value, 4) for name, value in answer_quality(target, unseen).items()}

    def write(folder: Path) -> None:
        begin = tokenizer.token_to_id(special_tokens(template)[0])
        extra = {"bos_token_id": begin, "eos_token_id": stop_ids(template, tokenizer)[0]}
        save_target(folder, target, extra)
        save_tokenizer(folder, tokenizer, template, shape.window)

    facts = provenance(time.monotonic() - began, unseen=quality)
    kind = "drafter" if small else "target"
    publish(artifact.folder, Manifest(kind, artifact.name, None, artifact.recipe, provenance=facts), write)


def _conversation(tokenizer: Tokenizer, template: Template, system: str, max_seq_len: int) -> Conversation:
    """The conversation with a target that is not there yet: its tokenizer as it will be saved, read as it will be."""
    from prism_ae.prompts.conversation import open_conversation
    from prism_ae.training.tokenizer import save_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}))
        save_tokenizer(folder, tokenizer, template, max_seq_len)
        return open_conversation(folder, template, system)


_UNSEEN = 20
"""Held-out conversations per benchmark that a target's quality is stated on."""


def _flat(turns: list[list[Example]]) -> list[Example]:
    return [example for conversation in turns for example in conversation]


@functools.lru_cache(maxsize=1)
def suite_data(folder: Path, target_name: str, recipe_file: Path) -> dict[str, Data]:
    """The drafters' training data of each scale, with the features of the target in ``folder``.

    Kept for the next job of the same target, which saves most of a short job's time.
    """
    import torch

    from prism_ae.mini import corpus
    from prism_ae.models.checkpoints import load_target
    from prism_ae.prompts.conversation import open_conversation
    from prism_ae.training.drafter import Data
    from prism_ae.training.examples import encode
    from prism_ae.training.features import Features

    recipes, suite = load_recipes(recipe_file), load_suite(SUITE)
    record = suite.targets[target_name]
    target = load_target(folder, torch.float32, torch.device("cpu"))
    counts = {scale.name: round(scale.value * recipes.corpus.unit) for scale in suite.scales}
    told = corpus.conversations(max(counts.values()), recipes.corpus.seed)
    conversation = open_conversation(folder, suite.templates[record.template], suite.system_prompt)
    turns = encode(told, conversation, target.config.max_position_embeddings).turns
    capture = sorted({*record.capture, *record.eagle3_capture})
    features = Features(target, _flat(turns), capture)
    return {scale: Data(features, len(_flat(turns[:count])), scale) for scale, count in counts.items()}


def _train_drafter(artifact: Artifact, recipe_file: Path, report: Report) -> None:
    import torch

    from prism_ae.drafters.checkpoint import load_drafter, save_drafter
    from prism_ae.models.checkpoints import Manifest, publish
    from prism_ae.training.drafter import new_drafter, train, training_steps, warm_started

    began = time.monotonic()
    recipes, scale = load_recipes(recipe_file), str(artifact.scale)
    recipe = recipes.drafters[artifact.name]
    training = recipes.drafter_training.of_seed(artifact.training_seed)
    data = suite_data(artifact.needs[0], artifact.target, recipe_file)[scale]
    target = data.features.target
    if recipe.start:
        start = load_drafter(artifact.needs[1], target, torch.float32, torch.device("cpu"))
        drafter = warm_started(recipe, target, start)
    else:
        drafter = new_drafter(recipe, target, artifact.recipe["capture"], data.examples, training.seed)
    progress = StepCounter(training_steps(recipe, training, data), report)
    train(recipe, training, data, drafter, progress.tick)
    facts = provenance(time.monotonic() - began, loss=round(progress.loss, 4))
    about = Manifest("drafter", artifact.name, scale, artifact.recipe, provenance=facts)
    publish(artifact.folder, about, lambda folder: save_drafter(folder, drafter))
