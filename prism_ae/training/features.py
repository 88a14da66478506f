"""What the target says about the training data: the hidden states that drafters read and are compared with.

They never change while drafters are trained, so they are computed once and kept in memory, all tokens of all
examples in one row after the other; where that would take too much memory they are computed batch by batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama
from prism_ae.training.examples import Example, PaddedBatch, collate, order

CACHE_BYTES = 2 << 30
"""Most memory that cached features may take."""

_ROWS = 32


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """Examples with what the target says about them.

    Attributes:
        batch: ids, answer mask, lengths.
        hidden: final hidden states, after the final norm [B, L, H].
        captured: captured states side by side [B, L, n * H]; the final ones where nothing is captured.
    """

    batch: PaddedBatch
    hidden: Tensor
    captured: Tensor


class Features:
    """The target's hidden states over a list of examples.

    Args:
        capture: hidden states to keep besides the final one (numbering: `Llama.forward`).
        cache_bytes: if they take more than this, they are computed whenever they are needed.
        tick: called after each batch of the first computation with the part done.
    """

    def __init__(
        self,
        target: Llama,
        examples: Sequence[Example],
        capture: Sequence[int],
        cache_bytes: int = CACHE_BYTES,
        tick: Callable[[float], None] = lambda part: None,
    ) -> None:
        self.target, self.examples, self.capture = target, examples, tuple(capture)
        lengths = [len(example.ids) for example in examples]
        starts = torch.tensor([0, *lengths]).cumsum(0)
        self._first = starts[:-1]
        size = target.config.hidden_size
        self._cached = int(starts[-1]) * size * 4 * (1 + len(self.capture)) <= cache_bytes
        if not self._cached:
            return
        device = target.embedding.weight.device
        self._hidden = torch.empty(int(starts[-1]), size, device=device)
        self._states = torch.empty(int(starts[-1]), size * len(self.capture), device=device)
        batches = order(lengths, min(_ROWS, len(examples)), "features")
        for number, rows in enumerate(batches, start=1):
            batch = collate([examples[row] for row in rows])
            hidden, states = self._compute(batch)
            for place, row in enumerate(rows):
                span = slice(int(starts[row]), int(starts[row + 1]))
                self._hidden[span] = hidden[place, : lengths[row]]
                if states is not None:
                    self._states[span] = states[place, : lengths[row]]
            tick(number / len(batches))

    @torch.no_grad()
    def _compute(self, batch: PaddedBatch) -> tuple[Tensor, Tensor | None]:
        """Raises CheckpointError for states that are not finite: a drafter would learn nothing else from them."""
        device = self.target.embedding.weight.device
        positions = torch.arange(batch.ids.shape[1], device=device)[None]
        hidden, states = self.target(batch.ids.to(device), positions, capture=self.capture)
        real = positions < batch.lengths.to(device)[:, None]
        if not torch.isfinite(hidden[real]).all():
            raise CheckpointError("the target computes numbers that are not finite", "its weights are damaged")
        return hidden, states

    def read(self, rows: Sequence[int], capture: Sequence[int]) -> FeatureBatch:
        """The examples of ``rows``; ``capture`` chooses among the states kept, () for the final ones."""
        batch = collate([self.examples[row] for row in rows])
        device = self.target.embedding.weight.device
        if self._cached:
            steps = torch.arange(batch.ids.shape[1])
            place = self._first[list(rows)][:, None] + steps.minimum(batch.lengths[:, None] - 1)
            hidden = self._hidden[place]
            states = self._states[place] if capture else None
        else:
            hidden, states = self._compute(batch)
        batch = PaddedBatch(batch.ids.to(device), batch.answer.to(device), batch.lengths)
        if not capture:
            return FeatureBatch(batch, hidden, hidden)
        assert states is not None
        parts = states.chunk(len(self.capture), dim=-1)
        return FeatureBatch(batch, hidden, torch.cat([parts[self.capture.index(index)] for index in capture], dim=-1))
