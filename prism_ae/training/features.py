"""The target's hidden states over the training data: drafters read them and are compared with them.

They never change while drafters are trained, so they are computed once and kept in memory, the tokens of all examples
one after the other; where that would take too much memory they are computed batch by batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama
from prism_ae.training.examples import Example, ExampleBatch, collate, order

CACHE_BYTES = 2 << 30
"""Most memory that cached features may take."""

_ROWS = 32


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """Examples with the target's hidden states.

    Attributes:
        batch: ids, answer mask, lengths.
        hidden: final hidden states, after the final norm [B, L, H].
        aux_hidden: auxiliary hidden states side by side [B, L, n * H]; ``hidden`` where the drafter reads none.
    """

    batch: ExampleBatch
    hidden: Tensor
    aux_hidden: Tensor


class Features:
    """The target's hidden states over a list of examples.

    Args:
        aux_hidden_layers: layers whose hidden states to keep besides the final ones (numbering: `Llama.forward`).
        cache_bytes: if the states take more than this, they are computed whenever they are needed.
        tick: called after each batch of the first computation with the share that is done.
    """

    def __init__(
        self,
        target: Llama,
        examples: Sequence[Example],
        aux_hidden_layers: Sequence[int],
        cache_bytes: int = CACHE_BYTES,
        tick: Callable[[float], None] = lambda part: None,
    ) -> None:
        self.target, self.examples, self.aux_hidden_layers = target, examples, tuple(aux_hidden_layers)
        lengths = [len(example.ids) for example in examples]
        starts = torch.tensor([0, *lengths]).cumsum(0)
        self._first = starts[:-1]
        size = target.config.hidden_size
        self._cached = int(starts[-1]) * size * 4 * (1 + len(self.aux_hidden_layers)) <= cache_bytes
        if not self._cached:
            return
        device = target.embedding.weight.device
        self._hidden = torch.empty(int(starts[-1]), size, device=device)
        self._states = torch.empty(int(starts[-1]), size * len(self.aux_hidden_layers), device=device)
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
    def _compute(self, batch: ExampleBatch) -> tuple[Tensor, Tensor | None]:
        """Final [B, L, H] and auxiliary hidden states [B, L, n * H]; raises CheckpointError for non-finite ones."""
        device = self.target.embedding.weight.device
        positions = torch.arange(batch.ids.shape[1], device=device)[None]
        hidden, states = self.target(batch.ids.to(device), positions, aux_hidden_layers=self.aux_hidden_layers)
        real = positions < batch.lengths.to(device)[:, None]
        if not torch.isfinite(hidden[real]).all():
            raise CheckpointError("the target computes numbers that are not finite", "its weights are damaged")
        return hidden, states

    def read(self, rows: Sequence[int], aux_hidden_layers: Sequence[int]) -> FeatureBatch:
        """The examples of ``rows`` with those of the kept states that ``aux_hidden_layers`` names."""
        batch = collate([self.examples[row] for row in rows])
        device = self.target.embedding.weight.device
        if self._cached:
            steps = torch.arange(batch.ids.shape[1])
            place = self._first[list(rows)][:, None] + steps.minimum(batch.lengths[:, None] - 1)
            hidden = self._hidden[place]
            states = self._states[place] if aux_hidden_layers else None
        else:
            hidden, states = self._compute(batch)
        batch = ExampleBatch(batch.ids.to(device), batch.answer.to(device), batch.lengths)
        if not aux_hidden_layers:
            return FeatureBatch(batch, hidden, hidden)
        assert states is not None
        parts = states.chunk(len(self.aux_hidden_layers), dim=-1)
        chosen = [parts[self.aux_hidden_layers.index(layer)] for layer in aux_hidden_layers]
        return FeatureBatch(batch, hidden, torch.cat(chosen, dim=-1))
