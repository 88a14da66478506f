"""Where one worker trains: from a recipe to a published folder.

What exists already is kept, so that a job can be run again after any interruption; a drafter of a real target goes on
from the last state of its training, with hidden states that are computed once, in files beside it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism_ae.recipes.catalogue import Artifact, Catalogue, SuiteOrder
from prism_ae.training.jobs import (
    JobEffort,
    JobProgress,
    Report,
    StepCounter,
    Tell,
    TrainingJob,
    dtype_of,
    provenance,
    state_file,
    work_folder,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from prism_ae.prompts.conversation import Conversation
    from prism_ae.suites.records import Template
    from prism_ae.training.drafter import Data
    from prism_ae.training.examples import Example


def peak_memory() -> int:
    """Bytes that this process held at most so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _train_language_model(artifact: Artifact, catalogue: Catalogue, report: Report) -> None:
    from prism_ae.mini import corpus
    from prism_ae.models.checkpoints import Manifest, publish, save_target
    from prism_ae.prompts.templates import stop_ids
    from prism_ae.training.examples import encode
    from prism_ae.training.target import answer_quality, new_target, target_config, train_target, training_steps
    from prism_ae.training.tokenizer import save_tokenizer, special_tokens, train_tokenizer

    began = time.monotonic()
    recipe, suite = catalogue.recipes.targets[artifact.target], catalogue.suite
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


class Workbench:
    """Where one worker trains: its device, and what it keeps of a target for the next job.

    Args:
        order: what is trained.
        device: torch's name.
    """

    def __init__(self, order: SuiteOrder, device: str = "cpu") -> None:
        self.order, self.catalogue, self.device = order, order.catalogue, device
        self._data: dict[str, dict[str, Data]] = {}

    def run(self, job: TrainingJob, tell: Tell) -> None:
        """Train and publish; raises StoreError, or CheckpointError if what it needs is damaged."""
        if job.artifact.kind == "draft-head":
            self._train_drafter(job.artifact, tell)
        else:
            _train_language_model(job.artifact, self.catalogue, lambda part, loss: tell(JobProgress(part, loss)))

    def data(self, target: str, tell: Tell = lambda message: None) -> dict[str, Data]:
        """The drafters' training data of each scale that is asked, with the features of the target.

        Kept for the next job of the same target, which saves most of a short job's time.
        """
        if target not in self._data:
            self._data.clear()  # of the target before, so that its memory is free
            downloaded = self.catalogue.is_downloaded(target)
            self._data[target] = self._real_data(target, tell) if downloaded else self._corpus_data(target)
        return self._data[target]

    def _corpus_data(self, name: str) -> dict[str, Data]:
        import torch

        from prism_ae.mini import corpus
        from prism_ae.models.checkpoints import load_target
        from prism_ae.prompts.conversation import open_conversation
        from prism_ae.training.drafter import Data
        from prism_ae.training.examples import encode
        from prism_ae.training.features import Features

        recipes, suite = self.catalogue.recipes, self.catalogue.suite
        assert recipes.corpus is not None
        folder, record, unit = self.catalogue.target(name).folder, suite.targets[name], recipes.corpus.unit
        target = load_target(folder, torch.float32, torch.device("cpu"))
        counts = {scale.name: round(scale.value * unit) for scale in suite.scales}
        told = corpus.conversations(max(counts.values()), recipes.corpus.seed)
        conversation = open_conversation(folder, suite.templates[record.template], suite.system_prompt)
        turns = encode(told, conversation, target.config.max_position_embeddings).turns
        capture = sorted({*record.capture, *record.eagle3_capture})
        features = Features(target, _flat(turns), capture)
        return {scale: Data(features, len(_flat(turns[:count])), scale) for scale, count in counts.items()}

    def _real_data(self, name: str, tell: Tell) -> dict[str, Data]:
        import torch

        from prism_ae.models.checkpoints import load_target
        from prism_ae.training.drafter import Data
        from prism_ae.training.features import FeaturePlace, Features
        from prism_ae.training.material import material

        found, recipes = material(self.order, name), self.catalogue.recipes
        target = load_target(found.target, dtype_of(recipes.drafter_training), torch.device(self.device))
        asked = {one.name for one in self.order.artifacts if one.target == name and one.kind == "draft-head"}
        capture = sorted({layer for one in asked for layer in self.catalogue.captured(name, recipes.drafters[one])})
        began = time.monotonic()
        features = Features(
            target,
            found.examples,
            capture,
            FeaturePlace(0, work_folder(self.catalogue)),
            tick=lambda part: tell(JobProgress(part, None, preparing=True)),
        )
        tokens = sum(len(example.ids) for example in found.examples)
        tell(JobEffort("states", tokens, time.monotonic() - began, os.getpid(), peak_memory()))
        return {scale: Data(features, count, scale) for scale, count in found.counts.items()}

    def _train_drafter(self, artifact: Artifact, tell: Tell) -> None:
        import torch

        from prism_ae.drafters.checkpoint import load_drafter, save_drafter
        from prism_ae.models.checkpoints import Manifest, publish
        from prism_ae.training.drafter import (
            Course,
            new_drafter,
            train,
            training_steps,
            training_tokens,
            warm_started,
        )

        scale, recipes = str(artifact.scale), self.catalogue.recipes
        data, began = self.data(artifact.target, tell)[scale], time.monotonic()
        downloaded = self.catalogue.is_downloaded(artifact.target)
        recipe = recipes.drafters[artifact.name]
        training = recipes.drafter_training.of_seed(artifact.training_seed)
        target = data.features.target
        if recipe.start:
            start = load_drafter(artifact.needs[-1], target, torch.float32, torch.device(self.device))
            drafter = warm_started(recipe, target, start)
        else:
            drafter = new_drafter(recipe, target, artifact.recipe["capture"], data.examples, training.seed)
        progress = StepCounter(training_steps(recipe, training, data), lambda part, loss: tell(JobProgress(part, loss)))
        state = state_file(artifact, self.catalogue) if downloaded else None
        course = Course(state=state, every=self.order.state_seconds)
        train(recipe, training, data, drafter, progress.tick, course=course)
        seconds, tokens = time.monotonic() - began, training_tokens(recipe, training, data)
        facts = provenance(seconds, loss=round(progress.loss, 4))
        if downloaded:
            tell(JobEffort("drafters", tokens, seconds, os.getpid(), peak_memory()))
        about = Manifest("drafter", artifact.name, scale, artifact.recipe, provenance=facts)
        publish(artifact.folder, about, lambda folder: save_drafter(folder, drafter))
        if state:
            state.unlink(missing_ok=True)
