"""Prompt lookup: drafts without a model, copied from the text so far.

The last tokens of prompt and answer, an n-gram, are looked up where they occurred before; what followed them there is
the draft, a chain. The longest n-gram that occurred before counts, and of its occurrences the most recent. Where even
the shortest never occurred, nothing is drafted. The target verifies the chain as it verifies every draft tree, so the
text stays its own.

Source: Saxena, "Prompt Lookup Decoding" (2023), which takes the first occurrence, as does transformers'
``prompt_lookup_num_tokens``. SGLang's NGRAM is another lookup: trees, from the texts of all requests together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from prism_ae.cells import TreeShape
from prism_ae.decoding.tree import DraftTree, root_only

_NO_PARENT = -2
"""Parent of a node that only pads a row: no walk reaches it."""


@dataclasses.dataclass(frozen=True)
class PromptLookup:
    """A drafter without parameters: the n-grams that are looked up have ``min_ngram`` to ``max_ngram`` tokens."""

    min_ngram: int
    max_ngram: int


def look_up(text: Tensor, lengths: Tensor, lookup: PromptLookup, steps: int) -> tuple[Tensor, Tensor]:
    """What followed the last tokens of each row where they most recently occurred before.

    Args:
        text: token ids [B, T], padded at the end with anything.
        lengths: tokens of each row [B], at least 1.
        steps: most tokens drafted.

    Returns:
        Drafts [B, steps] and how many of them there are [B], 0 to ``steps``; those behind are any tokens of the row.
    """
    width = text.shape[1]
    place = torch.arange(width, device=text.device)
    last = (lengths - 1).unsqueeze(1)
    going = place < last
    run = torch.zeros_like(text)  # how many tokens that end at a place are the row's last ones
    for back in range(min(lookup.max_ngram, width)):
        same = text[:, : width - back] == text.gather(1, (last - back).clamp(min=0))
        going = going & torch.cat([torch.zeros_like(going[:, :back]), same], dim=1)
        run = run + going
    # The longest run first, of equal ones the one that ends last.
    best = torch.where(run >= lookup.min_ngram, run * width + place, -1).max(dim=1).values
    end = best % width
    counts = torch.where(best < 0, 0, (last.squeeze(1) - end).clamp(max=steps))
    following = (end.unsqueeze(1) + 1 + torch.arange(steps, device=text.device)).clamp(max=width - 1)
    return text.gather(1, following), counts


class LookupDrafting:
    """A prompt lookup's side of a batch, as `prism_ae.decoding.drafting.Drafting` is a draft head's.

    Args:
        shape: a chain.
        rows: sequences at once.
        max_seq_len: most committed tokens per row.
    """

    def __init__(
        self, lookup: PromptLookup, shape: TreeShape, rows: int, max_seq_len: int, *, device: torch.device
    ) -> None:
        if shape.branch != 1:
            raise ValueError(f"prompt lookup drafts chains, not the tree {shape}")
        self.lookup, self.shape = lookup, shape
        # A round may commit beyond the end of an answer.
        self._text = torch.zeros(rows, max_seq_len + shape.steps + 1, dtype=torch.long, device=device)
        self._lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        """Nothing is computed that could be non-finite."""

    def prefill(self, first: int, prompts: Tensor, features: Tensor, last: Tensor, roots: Tensor) -> None:
        """Take the prompts of new rows and their first tokens; arguments as `Drafting.prefill`."""
        new = slice(first, first + len(prompts))
        self._text[new, : prompts.shape[1]] = prompts
        self._text[new].scatter_(1, (last + 1).unsqueeze(1), roots.unsqueeze(1))
        self._lengths[new] = last + 2

    def commit(self, features: Tensor, tokens: Tensor, counts: Tensor) -> None:
        """Take what the last round committed; arguments as `Drafting.commit`."""
        rows, places = tokens.shape
        # What lies behind the committed tokens is overwritten by the next round's.
        at = self._lengths[:rows].unsqueeze(1) + torch.arange(places, device=tokens.device)
        self._text[:rows].scatter_(1, at, tokens)
        self._lengths[:rows] += counts

    def move(self, source: int, target: int, length: int) -> None:
        """Copy row ``source`` over row ``target``."""
        self._text[target], self._lengths[target] = self._text[source], self._lengths[source]

    def draft_tree(self, roots: Tensor, length: Tensor, counts: Sequence[int], prefix: Tensor) -> DraftTree:
        """The chains of a round, as long as the longest of them; arguments as `Drafting.draft_tree`."""
        rows = len(roots)
        lengths = self._lengths[:rows]
        tokens, found = look_up(self._text[:rows, : prefix.shape[-1] + 1], lengths, self.lookup, self.shape.steps)
        nodes = int(found.max())
        if nodes == 0:
            return root_only(roots)
        depths = torch.arange(nodes + 1, device=roots.device).expand(rows, nodes + 1)
        return DraftTree(
            tokens=torch.cat([roots.unsqueeze(1), tokens[:, :nodes]], dim=1),
            parents=torch.where(depths <= found.unsqueeze(1), depths - 1, _NO_PARENT),
            depths=depths,
        )
