"""A training that goes on where it was killed: what it has learnt so far, as one file.

It holds the weights, the optimiser's state and the number of steps. The order of the data is a function of the seed and
the number of steps, and nothing else is random: a training that goes on gives the bytes of one that was never
disturbed. The file is of the safetensors format, its facts as JSON in the header; it appears by a rename, whole or not
at all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from prism_ae.errors import CheckpointError, StoreError
from prism_ae.io.atomic import atomic_write
from prism_ae.io.paths import why_not

_FORMAT = 1
_AGAIN = "delete it, and the training begins anew"


@dataclasses.dataclass(frozen=True)
class TrainingState:
    """A training after so many steps.

    Attributes:
        training: digest of everything that decides what it yields: a file of another training is refused.
        steps: that were taken.
        loss: of the last one.
        tensors: weights and the optimiser's state, by names of the trainer's.
    """

    training: str
    steps: int
    loss: float
    tensors: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Replace the file; raises StoreError."""
        from safetensors.torch import save

        facts = {"format": _FORMAT, "training": self.training, "steps": self.steps, "loss": self.loss}
        data = save({name: tensor.contiguous() for name, tensor in self.tensors.items()}, {"state": json.dumps(facts)})
        try:
            atomic_write(path, data)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {why_not(error, path)}", f"{len(data) / 1e6:,.0f} MB are needed there"
            ) from error

    @staticmethod
    def load(path: Path, training: str) -> TrainingState | None:
        """The state in a file, its tensors on the CPU; None where there is no file.

        Raises:
            CheckpointError: the file is damaged, or belongs to another training.
        """
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {}).get("state", "{}"))
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            found = TrainingState(str(facts["training"]), int(facts["steps"]), float(facts["loss"]), tensors)
            known = facts["format"] == _FORMAT
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is no state of a training: {error}", _AGAIN) from error
        if not known or found.training != training:
            raise CheckpointError(f"{path} belongs to another training than this one", _AGAIN)
        return found
