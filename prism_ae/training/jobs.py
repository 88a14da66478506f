"""The jobs of training: what is to be made, what a worker says of it, and where it keeps what it goes on from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prism_ae.errors import PrismError
from prism_ae.recipes.catalogue import Artifact, Catalogue, SuiteOrder
from prism_ae.recipes.file import DrafterTraining

if TYPE_CHECKING:
    import torch


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
    """The part done (0 to 1) and the current loss; ``preparing``: of the target's hidden states of the data."""

    part: float
    loss: float | None
    preparing: bool = False


@dataclasses.dataclass(frozen=True)
class JobEffort:
    """What a part of a job took: tokens that the target or the drafter read, and the process's peak memory so far."""

    stage: Literal["states", "drafters"]
    tokens: int
    seconds: float
    process: int
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class JobFailed:
    """``trace``: of a bug, or ""."""

    error: PrismError
    trace: str = ""


def plan_jobs(order: SuiteOrder) -> tuple[TrainingJob, ...]:
    """The jobs that make what does not exist yet."""
    catalogue = order.catalogue
    return tuple(TrainingJob(one, _cost(one, catalogue)) for one in order.artifacts if not one.folder.exists())


def _cost(artifact: Artifact, catalogue: Catalogue) -> float:
    """Tokens times layers times size: good enough to start long jobs first and to guess the time left."""
    recipes = catalogue.recipes
    if artifact.kind == "draft-head":
        drafter = recipes.drafters[artifact.name]
        work = (0.5 + drafter.forwards * drafter.layers) * artifact.recipe["training"]["passes"]
        if catalogue.is_downloaded(artifact.target):
            return float(artifact.recipe["data"]["answer_tokens"] * work)
        data, size = artifact.recipe["corpus"], recipes.targets[artifact.target].shape.hidden_size
        return float(data["scale"] * data["unit"] * work * size)
    target = recipes.targets[artifact.target]
    small = artifact.kind == "model"
    shape, training = (target.small_shape, target.small_training) if small else (target.shape, target.training)
    return float(training.conversations * shape.layers * shape.hidden_size)


Tell = Callable[["JobProgress | JobEffort"], None]


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


def work_folder(catalogue: Catalogue) -> Path:
    """What trainings keep for themselves: hidden states, and the states that they go on from."""
    return catalogue.folder / "training"


def state_file(artifact: Artifact, catalogue: Catalogue) -> Path:
    """What the training of a drafter goes on from."""
    return work_folder(catalogue) / f"{artifact.folder.name}.state"


def dtype_of(training: DrafterTraining) -> torch.dtype:
    """What the target's hidden states are computed and kept in: what the drafter's products are."""
    import torch

    return torch.bfloat16 if training.dtype == "bfloat16" else torch.float32
