"""The target's hidden states over the training data: drafters read them and are compared with them.

They never change while drafters are trained, so they are computed once, the tokens of all examples one after the other,
in the target's dtype: in memory where they fit into the budget, else in files that are mapped into memory, where there
is a folder for them. To compute a token's states takes a real target's whole pass (135M parameters: more than a
millisecond on one core), to read them a few kilobytes; so they are computed batch by batch only where there is neither
memory nor folder.

Files outlive the process: what is computed is not computed again, by the next drafter of the target or after a kill.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from prism_ae.errors import CheckpointError
from prism_ae.models.llama import Llama
from prism_ae.training.examples import Example, ExampleBatch, collate, order
from prism_ae.training.mapped import MappedFiles, content_digest
from prism_ae.training.ranks import ALONE, Ranks

CACHE_BYTES = 2 << 30
"""Most memory that cached features may take."""

_ROWS = 32
_TOKENS = 16384
"""Most tokens, padding included, of one pass of the target."""

_SPAN = 256
"""Positions whose scores over the target's vocabulary are held at once."""


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


@dataclasses.dataclass(frozen=True)
class FeaturePlace:
    """Where features are kept.

    Attributes:
        memory: bytes that they may take in memory.
        folder: for those that take more; None: they are computed whenever they are needed.
    """

    memory: int = CACHE_BYTES
    folder: Path | None = None


IN_MEMORY = FeaturePlace()


class Features:
    """The target's hidden states over a list of examples.

    Args:
        aux_hidden_layers: layers whose hidden states to keep besides the final ones (numbering: `Llama.forward`).
        place: where they are kept.
        ranks: the processes that compute them together, each its part; they share the place's folder.
        tick: called after each batch of the first computation with the share that is done.

    Attributes:
        kept: "in memory", "in files" or "nowhere".

    Raises:
        CheckpointError: the target computes numbers that are not finite.
        StoreError: the folder cannot be written, or has no room.
    """

    def __init__(
        self,
        target: Llama,
        examples: Sequence[Example],
        aux_hidden_layers: Sequence[int],
        place: FeaturePlace = IN_MEMORY,
        *,
        ranks: Ranks = ALONE,
        tick: Callable[[float], None] = lambda part: None,
    ) -> None:
        self.target, self.examples, self.aux_hidden_layers = target, examples, tuple(aux_hidden_layers)
        lengths = [len(example.ids) for example in examples]
        starts = torch.tensor([0, *lengths]).cumsum(0)
        self._first, count = starts[:-1], int(starts[-1])
        weight = target.embedding.weight
        size, layers = target.config.hidden_size, len(self.aux_hidden_layers)
        wanted = count * size * weight.dtype.itemsize * (1 + layers)
        self.kept = "in memory" if wanted <= place.memory else "in files" if place.folder else "nowhere"
        self._files: MappedFiles | None = None
        if self.kept == "in files":
            assert place.folder is not None
            about = [content_digest(target.parameters()), [one.ids for one in examples], self.aux_hidden_layers]
            self._files = MappedFiles(place.folder, "features", about)
            self._hidden = self._files.tensor("hidden", (count, size), weight.dtype)
            self._states = self._files.tensor("states", (count, size * layers), weight.dtype)
            self._best = self._files.tensor("best", (count,), torch.int32)
        else:
            count_kept = count if self.kept == "in memory" else 0
            # Zeros, for the sum over processes.
            make = torch.zeros if ranks.world > 1 else torch.empty
            self._hidden = make(count_kept, size, dtype=weight.dtype, device=weight.device)
            self._states = make(count_kept, size * layers, dtype=weight.dtype, device=weight.device)
            self._best = torch.zeros(count, dtype=torch.int32)
        if self.kept != "nowhere":
            self._fill(starts, lengths, ranks, tick)

    def _fill(self, starts: Tensor, lengths: Sequence[int], ranks: Ranks, tick: Callable[[float], None]) -> None:
        """Compute what is not there yet, this process its part."""
        batches = [
            few for rows in order(lengths, min(_ROWS, len(lengths)), "features") for few in _narrow(rows, lengths)
        ]
        part = f"{ranks.rank} of {ranks.world}"
        done = self._files.progress(part) if self._files else 0
        for number, rows in enumerate(batches[done:], start=done + 1):
            if number % ranks.world == ranks.rank:
                hidden, states = self._compute(collate([self.examples[row] for row in rows]))
                for place, row in enumerate(rows):
                    span = slice(int(starts[row]), int(starts[row + 1]))
                    self._hidden[span] = hidden[place, : lengths[row]]
                    if states is not None:
                        self._states[span] = states[place, : lengths[row]]
            if self._files:
                self._files.note(part, number, last=number == len(batches))
            tick(number / len(batches))
        if ranks.world > 1:
            if self._files:
                ranks.add_up(torch.zeros(1, device=self.target.embedding.weight.device))  # all are ready
            else:
                for tensor in (self._hidden, self._states):
                    if tensor.numel():
                        ranks.add_up(tensor.view(torch.int32))  # exact: of each number one process has the bits

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
        if self.kept == "nowhere":
            hidden, states = self._compute(batch)
        else:
            place = self._places(rows, batch)
            hidden = self._hidden[place].to(device)
            states = self._states[place].to(device) if aux_hidden_layers else None
        batch = ExampleBatch(batch.ids.to(device), batch.answer.to(device), batch.lengths)
        if not aux_hidden_layers:
            return FeatureBatch(batch, hidden, hidden)
        assert states is not None
        parts = states.chunk(len(self.aux_hidden_layers), dim=-1)
        chosen = [parts[self.aux_hidden_layers.index(layer)] for layer in aux_hidden_layers]
        return FeatureBatch(batch, hidden, torch.cat(chosen, dim=-1))

    @torch.no_grad()
    def best(self, rows: Sequence[int], features: FeatureBatch, asked: Tensor) -> Tensor:
        """The target's most likely token after each position [B, L], where ``asked`` [B, L] says so; 0 elsewhere.

        The scores over the target's vocabulary are the dearest part of labels; each is computed once.
        """
        asked = asked.cpu()
        place = self._places(rows, features.batch)
        new = asked & (self._best[place] == 0)
        if bool(new.any()):
            hidden = features.hidden[new.to(features.hidden.device)]
            found = [self.target.head(some).float().argmax(-1).cpu() for some in hidden.split(_SPAN)]
            self._best[place[new]] = torch.cat(found).int() + 1
        return torch.where(asked, self._best[place] - 1, 0).long().to(features.hidden.device)

    def _places(self, rows: Sequence[int], batch: ExampleBatch) -> Tensor:
        """Where the tokens of ``rows`` are kept [B, L]; padding is a row's last token."""
        steps = torch.arange(batch.ids.shape[1])
        return self._first[list(rows)][:, None] + steps.minimum(batch.lengths[:, None] - 1)


def _narrow(rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The same rows in batches that one pass of the target has room for."""
    longest = max(lengths[row] for row in rows)
    size = max(1, _TOKENS // longest)
    return [list(rows[at : at + size]) for at in range(0, len(rows), size)]
